// libFuzzer target of the reader of profiler traces and of what follows it: any bytes either end as
// a comparison with a prediction or throw InputError.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "models/trace/attribution.hpp"
#include "models/trace/gpu_time.hpp"
#include "models/trace/host_tree.hpp"
#include "models/trace/torch_trace.hpp"
#include "models/trace/trace_check.hpp"
#include "models/vocab/error.hpp"
#include "tests/fuzz/memory_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    ModelSpec model{.vocab_size = 8192, .hidden = 1024, .num_layers = 2};
    model.attention = {.num_heads = 8, .num_kv_heads = 4, .head_width = 128};
    model.moe = {.num_experts = 16, .top_k = 2, .expert_width = 1024};
    const Plan plan{.name = "ep", .layer = ExpertParallel{}, .group_size = 2};
    PlanPrediction prediction{.name = "ep", .layer_split = "expert_parallel", .num_ranks = 2};
    prediction.step = 1.0 * ms;
    for (int phase = 0; phase < kNumPhases; ++phase)
        prediction.phases.push_back({.phase = static_cast<Phase>(phase),
                                     .pass = phase % 2 == 0 ? Pass::forward : Pass::backward,
                                     .count = 1,
                                     .time = 1.0 * us,
                                     .bytes = 1024.0 * byte});
    try {
        const fuzz::MemoryFile file(data, size);
        const TorchTrace trace = read_torch_trace(file.path());
        const HostTree host(trace);
        const auto joined = attribute(trace, host, model, plan, prediction);
        if (joined.size() != trace.gpu.size()) std::abort();
        const auto steps = gpu_steps(trace, host, joined);
        if (check_trace(prediction, {rank_trace(trace, steps)}).text.empty()) std::abort();
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
    }
    return 0;
}
