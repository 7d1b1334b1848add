// NCCL's kernels by what they exchange: which of the predicted exchanges of a plan a call is.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "models/trace/torch_trace.hpp"
#include "models/vocab/phase.hpp"
#include "models/vocab/plan.hpp"
#include "models/vocab/prediction.hpp"

namespace headway::inline trace {

enum class CallKind { all_to_all, all_reduce, all_gather, reduce_scatter, point_to_point, other };

// By the collective's name; where the file does not have it, by the kernel's.
CallKind kind_of(const NcclCall& call, std::string_view kernel);

// Sent to other ranks, as predictions count it; 0 where the file has no sizes.
Bytes sent_bytes(const NcclCall& call, CallKind kind);

// A predicted exchange of the same kind, over as many ranks, whose message is nearest in size; of
// several that are alike (a dispatch and a combine), the one whose turn it is in the pass.
class CollectiveJoin {
  public:
    CollectiveJoin(const PlanPrediction& prediction, const Plan& plan);

    std::optional<Phase> join(const NcclCall& call, CallKind kind, Pass pass);
    // Keeps the turn where something else told the phase of a call.
    void note(Phase phase, Pass pass);

  private:
    struct Expected {
        Phase phase = Phase::dispatch;
        Pass pass = Pass::forward;
        int group_size = 1;
        Bytes message;  // of one execution
    };

    bool may_be(const Expected& expected, const NcclCall& call, CallKind kind, Pass pass) const;

    CpCommType cp_comm_type_;
    bool gathers_tokens_;             // moe_token_dispatcher_type allgather
    std::vector<Expected> expected_;  // in order of the step
    std::array<std::optional<Phase>, kPassNames.size()> last_;
};

}  // namespace headway::inline trace
