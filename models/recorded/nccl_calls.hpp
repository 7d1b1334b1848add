// Collectives of a trace as calls of a side table, whichever of the two has them. Private to
// models/recorded.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "models/recorded/call_table.hpp"
#include "models/recorded/recording.hpp"
#include "models/trace/torch_trace.hpp"

namespace headway::inline recorded {

// What a kernel of NCCL was launched with, as the recorder would have written it. InputError where
// sizes, splits or ranks are not in the trace.
RecordedCall call_of_kernel(const TorchTrace& trace, const NcclCall& call);
// The ranks of its group.
std::vector<int> ranks_of_kernel(const TorchTrace& trace, const NcclCall& call);

// The group of these ranks as an axis; InputError where it is none.
RecordedGroup group_of(const std::string& where, const std::string& name,
                       const std::vector<int>& ranks);

// InputError for a kind that cannot be replayed.
Collective collective_of(const std::string& where, const std::string& kind);

}  // namespace headway::inline recorded
