#include "runtime/cuda/measure_device.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "kernels/bench/device_info.hpp"
#include "kernels/check.hpp"
#include "models/vocab/error.hpp"
#include "runtime/cuda/ep_layer.hpp"
#include "runtime/cuda/hp_ep_layer.hpp"
#include "runtime/cuda/hp_layer.hpp"
#include "runtime/cuda/row_kernels.hpp"
#include "runtime/cuda/stream_graph.hpp"

namespace headway::runtime {
namespace {

using bf16 = __nv_bfloat16;
using Executions = std::vector<LayerSamples>;

// How long a stream waits for the host before a pass: longer than enqueuing takes, with NCCL's
// calls.
constexpr std::int64_t kHeadStart = 400'000, kHeadStartWithPeers = 1'500'000;  // ns

// What of a run is the same for every kind of layer.
struct RunOf {
    const Scenario& scenario;
    const LayerSetup& setup;
    const DeviceMeasureOptions& options;
    bool graph = false;
};

struct Tokens {
    bf16 *x, *y, *dy, *dx;

    Tokens(DeviceContext& context, std::int64_t tokens, int hidden) {
        const std::int64_t n = tokens * hidden;
        for (bf16** p : {&x, &y, &dy, &dx}) *p = context.arena.take<bf16>(n);
        const auto seed = static_cast<std::uint64_t>(100 + context.communicator.rank());
        fill_normal(x, n, 1.0F, seed, context.stream);
        fill_normal(dy, n, 1.0F, seed + 1000, context.stream);
    }
};

std::int32_t* upload(DeviceContext& context, const std::vector<std::int32_t>& values) {
    auto* at = context.arena.take<std::int32_t>(static_cast<std::int64_t>(values.size()));
    HEADWAY_CUDA_CHECK(cudaMemcpy(at, values.data(), values.size() * sizeof(std::int32_t),
                                  cudaMemcpyHostToDevice));
    return at;
}

// Enqueues one pass of a layer with its clock.
template <class Layer>
void enqueue(DeviceContext& context, Layer& layer, PhaseClock& clock, const Tokens& tokens,
             const std::int32_t* forced, bool backward) {
    context.clock = &clock;
    context.communicator.meet(context.stream);  // begin times of all ranks count from here
    clock.start(context.stream);
    layer.forward(tokens.x, tokens.y, forced);
    if (backward) layer.backward(tokens.x, tokens.dy, tokens.dx);
    if constexpr (requires { layer.release(); }) layer.release();
    context.clock = nullptr;
}

// A layer's kernels and the events of its phases, to be launched at once.
struct CapturedLayer {
    PhaseClock clock{Timing::in_flow};
    std::optional<StreamGraph> graph;
};

template <class Layer>
std::vector<CapturedLayer> capture(DeviceContext& context, Layer& layer, const Tokens& tokens,
                                   const std::vector<std::int32_t*>& forced, bool backward) {
    std::vector<CapturedLayer> captured(forced.size());
    for (std::size_t l = 0; l < forced.size(); ++l) {
        CapturedLayer& c = captured[l];
        c.clock.set_captured();
        c.graph.emplace(context.stream,
                        [&] { enqueue(context, layer, c.clock, tokens, forced[l], backward); });
    }
    return captured;
}

// Repeats all layers, warm-ups first, and keeps the phases of the others. Warm-ups, one at least
// before a capture, are enqueued by the host.
template <class Layer>
Executions repeat(DeviceContext& context, Layer& layer, const Tokens& tokens,
                  const std::vector<std::int32_t*>& forced, const RunOf& run) {
    const DeviceMeasureOptions& options = run.options;
    Executions executions;
    PhaseClock clock(options.timing);
    const std::int64_t head_start =
        context.communicator.size() == 1 ? kHeadStart : kHeadStartWithPeers;
    std::vector<CapturedLayer> captured;
    const int first = run.graph ? std::min(-options.num_warmups, -1) : -options.num_warmups;
    for (int i = first; i < options.num_repeats; ++i) {
        if (i == 0 && run.graph)
            captured = capture(context, layer, tokens, forced, options.backward);
        for (std::size_t l = 0; l < forced.size(); ++l) {
            context.communicator.wait(context.stream);
            context.communicator.barrier();
            if (!captured.empty()) {
                captured[l].graph->replay(context.stream);
            } else {
                hold_stream(head_start, context.stream);
                enqueue(context, layer, clock, tokens, forced[l], options.backward);
            }
            context.communicator.wait(context.stream);
            if (i >= 0) {
                executions.push_back({run.scenario.model.moe_layer(static_cast<int>(l)),
                                      (captured.empty() ? clock : captured[l].clock).read()});
            }
        }
        if (options.progress) options.progress(i - first + 1, options.num_repeats - first);
    }
    return executions;
}

std::vector<std::vector<std::vector<Assignment>>> routing_of(const RunOf& run) {
    std::vector<std::vector<std::vector<Assignment>>> routing;
    for (int l = 0; l < run.options.num_layers; ++l)
        routing.push_back(layer_routing(run.scenario, run.setup, run.scenario.model.moe_layer(l)));
    return routing;
}

Executions run_hp(DeviceContext& context, const RunOf& run) {
    const LayerSetup& setup = run.setup;
    CudaHpLayer layer(context, setup);
    const CudaHpLayer::Weights& w = layer.weights();
    const std::vector<std::int64_t> n = layer.sizes();
    const int d = setup.dims.hidden, width = setup.hp.head_width;
    const auto scale = [](int fan_in) { return 1.0F / std::sqrt(static_cast<float>(fan_in)); };
    fill_normal(w.project, n[0], scale(d), 1, context.stream);
    fill_normal(w.merge, n[1], scale(setup.hp.num_heads * width), 2, context.stream);
    fill_normal(w.w1, n[2], scale(width), 3, context.stream);
    fill_normal(w.w2, n[3], scale(setup.dims.expert_width), 4, context.stream);
    fill_normal(w.router, n[4], scale(width), 5, context.stream);
    const Tokens tokens(context, run.scenario.batch.tokens_per_rank(), d);
    std::vector<std::int32_t*> forced;
    for (const auto& by_head : routing_of(run)) {
        std::vector<std::int32_t> own;
        const int first = setup.hp.first_head(context.communicator.rank());
        for (int h = 0; h < setup.hp.heads_per_rank(); ++h) {
            for (const Assignment& a : by_head[static_cast<std::size_t>(first + h)])
                own.insert(own.end(), a.expert.begin(), a.expert.end());
        }
        forced.push_back(upload(context, own));
    }
    return repeat(context, layer, tokens, forced, run);
}

Executions run_ep(DeviceContext& context, const RunOf& run) {
    const LayerSetup& setup = run.setup;
    CudaEpLayer layer(context, setup, run.scenario.batch.tokens_per_rank());
    const CudaEpLayer::Weights& w = layer.weights();
    const std::vector<std::int64_t> n = layer.sizes();
    const int d = setup.dims.hidden;
    const auto rank = static_cast<std::uint64_t>(context.communicator.rank());
    const auto scale = [](int fan_in) { return 1.0F / std::sqrt(static_cast<float>(fan_in)); };
    fill_normal(w.router, n[0], scale(d), 1, context.stream);
    fill_normal(w.w1, n[1], scale(d), 10 + rank, context.stream);
    fill_normal(w.w2, n[2], scale(setup.dims.expert_width), 1000 + rank, context.stream);
    const Tokens tokens(context, run.scenario.batch.tokens_per_rank(), d);
    std::vector<std::int32_t*> forced;
    for (const auto& by_source : routing_of(run))
        forced.push_back(upload(context, by_source.front()[static_cast<std::size_t>(rank)].expert));
    return repeat(context, layer, tokens, forced, run);
}

// Chosen experts of the sub-tokens that rank `rank` holds of its shared head, by source.
std::vector<std::int32_t> held_choices(const std::vector<Assignment>& by_source,
                                       const HpShape& shape, int rank) {
    std::vector<std::int32_t> held;
    for (const HeadBlock& block : head_blocks(shape, rank)) {
        const auto& chosen = by_source[static_cast<std::size_t>(block.source)].expert;
        held.insert(held.end(), chosen.begin(), chosen.end());
    }
    return held;
}

Executions run_hp_ep(DeviceContext& context, const RunOf& run) {
    const LayerSetup& setup = run.setup;
    CudaHpEpLayer layer(context, setup);
    const int d = setup.dims.hidden, width = setup.hp.head_width;
    const int rank = context.communicator.rank(), head = setup.hp.first_head(rank);
    const auto seed = static_cast<std::uint64_t>(rank);
    const auto scale = [](int fan_in) { return 1.0F / std::sqrt(static_cast<float>(fan_in)); };
    const std::int64_t n = layer.projection_size();
    fill_normal(layer.projections().project, n, scale(d), 1, context.stream);
    fill_normal(layer.projections().merge, n, scale(setup.hp.num_heads * width), 2, context.stream);
    const CudaEpLayer::Weights& w = layer.head().weights();
    const std::vector<std::int64_t> sizes = layer.head().sizes();
    fill_normal(w.router, sizes[0], scale(width), 5 + static_cast<std::uint64_t>(head),
                context.stream);
    fill_normal(w.w1, sizes[1], scale(width), 10'000 + seed, context.stream);
    fill_normal(w.w2, sizes[2], scale(setup.dims.expert_width), 20'000 + seed, context.stream);
    const Tokens tokens(context, run.scenario.batch.tokens_per_rank(), d);
    std::vector<std::int32_t*> forced;
    for (const auto& by_head : routing_of(run)) {
        forced.push_back(
            upload(context, held_choices(by_head[static_cast<std::size_t>(head)], setup.hp, rank)));
    }
    return repeat(context, layer, tokens, forced, run);
}

DeviceMeasurement measure(DeviceContext& context, const Scenario& scenario, const Plan& plan,
                          const DeviceMeasureOptions& options) {
    const LayerSetup setup = layer_setup(scenario, plan);
    const TrafficLedger before = context.communicator.traffic();
    const ArenaScope scope(context.arena);
    context.arena.reset_peak();
    const auto base = static_cast<std::int64_t>(context.arena.used());
    const auto run_layer = !setup.head_parallel     ? run_ep
                           : setup.hp.sharers() > 1 ? run_hp_ep
                                                    : run_hp;
    // EP's host waits for counts, and isolated exchanges for all hosts: a graph holds neither.
    const bool alone = context.communicator.size() == 1;
    const bool graph =
        options.graph && (alone || (run_layer == run_hp && options.timing == Timing::in_flow));
    const Executions own = run_layer(
        context, {.scenario = scenario, .setup = setup, .options = options, .graph = graph});
    RunState state = run_state(context.communicator);
    state.graph = graph;
    state.in_flow = options.timing == Timing::in_flow;
    const auto gather = [&](std::span<const std::int64_t> counts) {
        return context.communicator.all_gather_counts(counts);
    };
    const int ranks = context.communicator.size();
    const std::vector<Executions> by_rank = gather_samples(gather, ranks, own);
    const std::vector<TrafficLedger> ledgers =
        gather_ledgers(gather, ranks, before, context.communicator.traffic());
    // A replay books nothing: the capture did.
    const int enqueued =
        graph ? std::max(options.num_warmups, 1) + 1 : options.num_warmups + options.num_repeats;
    const int passes = options.num_layers * enqueued;
    DeviceMeasurement result{
        .measurement =
            to_measurement(scenario, plan, device_name(), by_rank, ledgers, passes, options.timing),
        .peak_bytes = {static_cast<std::int64_t>(context.arena.peak()) - base}};
    result.peak_bytes = context.communicator.all_gather_counts(result.peak_bytes);
    state.memory_peak =
        static_cast<double>(*std::max_element(result.peak_bytes.begin(), result.peak_bytes.end())) *
        byte;
    result.measurement.timeline.run = std::move(state);
    return result;
}

}  // namespace

RunState run_state(DeviceCommunicator& communicator) {
    const kernels::bench::ClockSample clocks = kernels::bench::sample_clocks();
    std::array<std::int64_t, 8> own{static_cast<std::int64_t>(clocks.sm_mhz)};
    clocks.throttle.copy(reinterpret_cast<char*>(&own[1]), sizeof(own) - sizeof(own[0]) - 1);
    const std::vector<std::int64_t> all = communicator.all_gather_counts(own);
    RunState state{.clock_mhz = static_cast<int>(all.front())};
    for (auto rank = all.begin(); rank != all.end(); rank += own.size()) {
        state.clock_mhz = std::min(state.clock_mhz, static_cast<int>(*rank));
        if (state.throttle.empty()) state.throttle = reinterpret_cast<const char*>(&*(rank + 1));
    }
    return state;
}

DeviceMeasurement measure_on_device(DeviceContext& context, const Scenario& scenario,
                                    const Plan& plan, const DeviceMeasureOptions& options) {
    return as_failures_of_the_rank(context,
                                   [&] { return measure(context, scenario, plan, options); });
}

std::string device_name() {
    int device = 0;
    cudaDeviceProp properties{};
    HEADWAY_CUDA_CHECK(cudaGetDevice(&device));
    HEADWAY_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    return properties.name;
}

}  // namespace headway::runtime
