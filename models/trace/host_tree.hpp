// What the host was in when it launched something: operators and annotations around the launch, and
// of the backward pass the operators that it differentiates.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "models/trace/torch_trace.hpp"

namespace headway::inline trace {

class HostTree {
  public:
    explicit HostTree(const TorchTrace& trace);

    struct Origin {
        Nanoseconds launched = 0;
        std::int32_t thread = -1;
        std::int32_t span = -1;  // the innermost around it, in TorchTrace::host; -1: none
    };
    // Where a kernel was launched; null where the file does not say it.
    const Origin* origin(const GpuWork& work) const;

    std::int32_t parent(std::int32_t span) const {
        return parents_[static_cast<std::size_t>(span)];
    }
    // The innermost span of which `holds` is true, from `span` outwards; -1: none.
    template <class Holds>
    std::int32_t innermost(std::int32_t span, const Holds& holds) const {
        while (span >= 0 && !holds(span)) span = parent(span);
        return span;
    }
    // The operator of the forward pass that a span, or one around it, differentiates; -1: none.
    std::int32_t differentiated(std::int32_t span) const;
    // Whether autograd's engine runs a span.
    bool in_backward(std::int32_t span) const;

  private:
    const TorchTrace& trace_;
    std::vector<std::int32_t> parents_, forward_of_;
    std::vector<bool> is_engine_;
    std::unordered_map<std::int64_t, Origin> origins_;  // by correlation
};

}  // namespace headway::inline trace
