// What the host of headway's own runtime hands to a GPU, by what a call costs it.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace headway {

enum class HostCall {
    kernel,              // a launch, a copy or a fill
    product,             // cuBLASLt's
    attention,           // cuDNN's, forward
    attention_backward,  // the same, backward
    grouped,             // of experts or heads, whose tensors are described anew for each launch
    all_to_all,          // NCCL's, of equal blocks
    exchange,            // sends and receives in a group, a rank's own block beside them
    reduction,           // an all-reduce on a stream of its own
};

inline constexpr std::array kHostCallNames = {
    std::string_view("kernel"),    std::string_view("product"),
    std::string_view("attention"), std::string_view("attention_backward"),
    std::string_view("grouped"),   std::string_view("all_to_all"),
    std::string_view("exchange"),  std::string_view("reduction"),
};
inline constexpr std::size_t kNumHostCalls = kHostCallNames.size();

template <class T>
struct PerHostCall {
    std::array<T, kNumHostCalls> values{};

    T& operator[](HostCall call) { return values[static_cast<std::size_t>(call)]; }
    const T& operator[](HostCall call) const { return values[static_cast<std::size_t>(call)]; }
};

}  // namespace headway
