// A trace of PyTorch's profiler, and the recorder's side table beside it, as a Recording.
#pragma once

#include <optional>

#include "models/recorded/call_table.hpp"
#include "models/recorded/recording.hpp"
#include "models/trace/torch_trace.hpp"

namespace headway::inline recorded {

struct ImportRecordingOptions {
    std::optional<int> step;   // by the profiler's count; none: the median of all
    std::optional<int> top_k;  // experts a token chooses; traces do not say it
};

// `table`: may be null for a trace of NCCL's collectives, of groups of up to 30 ranks. InputError
// for what cannot be replayed: graphs, collectives without sizes, messages of a pipeline.
Recording import_recording(const TorchTrace& trace, const CallTable* table,
                           const ImportRecordingOptions& options);

}  // namespace headway::inline recorded
