#include "runtime/layers/measure.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <thread>
#include <utility>
#include <variant>

#include "models/vocab/phase.hpp"
#include "models/workload/workload.hpp"
#include "runtime/host.hpp"
#include "runtime/layers/layer_setup.hpp"
#include "runtime/phase_samples.hpp"
#include "runtime/rank_context.hpp"

namespace headway::runtime {

namespace {

using Clock = std::chrono::steady_clock;

// Everything the ranks of a run touch; they share it, so that a rank that is left behind never
// outlives it.
struct Run {
    Scenario scenario;
    LayerSetup setup;
    MeasureOptions options;
    std::vector<std::vector<std::vector<Assignment>>> routing;  // [layer][router][source]
    std::vector<std::vector<LayerSamples>> samples;             // [rank][repeat * layers]
    Clock::time_point origin = Clock::now();

    int layer(int l) const { return scenario.model.moe_layer(l); }
};

// Calls run_layer(layer) between barriers, warm-ups first, and keeps the samples of the others.
template <class RunLayer>
void repeat(Run& run, RankContext& context, RunLayer&& run_layer) {
    const int rank = context.communicator.rank();
    const int total = run.options.num_warmups + run.options.num_repeats;
    for (int i = 0; i < total; ++i) {
        for (int l = 0; l < run.options.num_layers; ++l) {
            std::vector<PhaseSample> phases;
            context.samples = &phases;
            run_layer(l);
            if (i < run.options.num_warmups) continue;
            run.samples[static_cast<std::size_t>(rank)].push_back(
                {run.layer(l), std::move(phases)});
        }
        if (rank == 0 && run.options.progress) run.options.progress(i + 1, total);
    }
}

template <class S>
void run_ep_rank(Run& run, RankContext& context) {
    Communicator& comm = context.communicator;
    const int rank = comm.rank();
    const EpShape& shape = run.setup.ep;
    const auto weights = make_ep_weights<S>(run.setup.dims, shape, comm.size(), rank, 1);
    auto gradients = zeros_like(weights);
    const auto tokens = run.scenario.batch.tokens_per_rank();
    const auto x = make_tokens<S>(tokens, run.setup.dims.hidden, rank, 1);
    const auto dout = make_tokens<S>(tokens, run.setup.dims.hidden, rank, 2);
    repeat(run, context, [&](int layer) {
        const auto& forced =
            run.routing[static_cast<std::size_t>(layer)][0][static_cast<std::size_t>(rank)].expert;
        EpState<S> state;
        comm.barrier();
        ep_forward<S>(context, shape, weights, x, state, forced);
        comm.barrier();
        if (run.options.backward)
            ep_backward<S>(context, shape, weights, x, state, dout, gradients);
    });
}

template <class S>
void run_hp_rank(Run& run, RankContext& context) {
    Communicator& comm = context.communicator;
    const int rank = comm.rank();
    const HpShape& shape = run.setup.hp;
    std::unique_ptr<Communicator> peers;
    if (shape.sharers() > 1) peers = comm.split(rank / shape.sharers());
    const auto weights = make_hp_weights<S>(run.setup.dims, shape, rank, 1);
    auto gradients = zeros_like(weights);
    const auto tokens = run.scenario.batch.tokens_per_rank();
    const auto x = make_tokens<S>(tokens, run.setup.dims.hidden, rank, 1);
    const auto dout = make_tokens<S>(tokens, run.setup.dims.hidden, rank, 2);
    repeat(run, context, [&](int layer) {
        std::vector<std::span<const std::int32_t>> forced;
        for (const HeadBlock& block : head_blocks(shape, rank)) {
            const auto head = static_cast<std::size_t>(shape.first_head(rank) + block.rows.head);
            forced.push_back(run.routing[static_cast<std::size_t>(layer)][head]
                                        [static_cast<std::size_t>(block.source)]
                                            .expert);
        }
        HpState<S> state;
        comm.barrier();
        hp_forward<S>(context, peers.get(), shape, weights, x, state, forced);
        comm.barrier();
        if (run.options.backward)
            hp_backward<S>(context, peers.get(), shape, weights, x, state, dout, gradients);
    });
}

void run_rank(Run& run, Communicator& comm) {
    RankContext context{.communicator = comm, .origin = run.origin};
    if (run.options.fault) {
        context.on_enter = [fault = *run.options.fault, rank = comm.rank()](CallSite site) {
            obey(fault, rank, site);
        };
    }
    const bool doubles = run.scenario.model.dtype == Dtype::fp64;
    if (run.setup.head_parallel) {
        doubles ? run_hp_rank<double>(run, context) : run_hp_rank<float>(run, context);
    } else {
        doubles ? run_ep_rank<double>(run, context) : run_ep_rank<float>(run, context);
    }
}

std::shared_ptr<Run> prepare(const Scenario& scenario, const Plan& plan,
                             const MeasureOptions& options) {
    auto run = std::make_shared<Run>();
    run->scenario = scenario;
    run->setup = layer_setup(scenario, plan);
    run->options = options;
    run->samples.resize(static_cast<std::size_t>(plan.group_size));
    for (int l = 0; l < options.num_layers; ++l)
        run->routing.push_back(layer_routing(scenario, run->setup, run->layer(l)));
    return run;
}

int num_passes(const MeasureOptions& options) {
    return options.num_layers * (options.num_warmups + options.num_repeats);
}

}  // namespace

void obey(const InjectedFault& fault, int rank, CallSite site) {
    using Kind = InjectedFault::Kind;
    if (rank != fault.rank || site.phase != fault.phase) return;
    if (fault.kind == Kind::throws) throw std::runtime_error("injected fault");
    // The next sign of life of a rank that is a process names this phase.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    if (fault.kind == Kind::is_killed) raise(SIGKILL);
    if (fault.kind == Kind::is_stopped) raise(SIGSTOP);
    for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
}

Measurement measure_plan(const Scenario& scenario, const Plan& plan,
                         const MeasureOptions& options) {
    const std::shared_ptr<Run> run = prepare(scenario, plan, options);
    const auto ledgers = run_on_threads(
        plan.group_size, [run](Communicator& comm) { run_rank(*run, comm); }, options.threads);
    return to_measurement(scenario, plan, cpu_name(), run->samples, ledgers, num_passes(options),
                          Timing::isolated);
}

Measurement measure_rank(const Scenario& scenario, const Plan& plan, const MeasureOptions& options,
                         Communicator& communicator) {
    const std::shared_ptr<Run> run = prepare(scenario, plan, options);
    const TrafficLedger before = communicator.traffic();
    communicator.barrier();  // begin times of all ranks count from here
    run->origin = Clock::now();
    run_rank(*run, communicator);
    const TrafficLedger after = communicator.traffic();
    const auto gather = [&](std::span<const std::int64_t> counts) {
        return communicator.all_gather_counts(counts);
    };
    const int ranks = communicator.size();
    const auto samples =
        gather_samples(gather, ranks, run->samples[static_cast<std::size_t>(communicator.rank())]);
    return to_measurement(scenario, plan, cpu_name(), samples,
                          gather_ledgers(gather, ranks, before, after), num_passes(options),
                          Timing::isolated);
}

RunEstimate estimate_run(const Scenario& scenario, const Plan& plan,
                         const MeasureOptions& options) {
    const LayerSetup setup = layer_setup(scenario, plan);  // rejects ranks that do not fit
    const double tokens = static_cast<double>(scenario.batch.tokens_per_rank());
    const double n = plan.group_size, element = scenario.model.dtype == Dtype::fp64 ? 8.0 : 4.0;
    const int layer = scenario.model.moe_layer(0);
    const LayerWork work =
        build_moe_layer(scenario, plan, expected_load(scenario, plan, layer), layer);
    double flops = 0.0;
    for (const PhaseWork& phase : work.forward) {
        const auto* compute = std::get_if<ComputeWork>(&phase.work);
        if (compute == nullptr || !is_moe_phase(phase.phase)) continue;
        for (int i = 0; i < compute->num_kernels; ++i)
            flops += n * compute->kernels[static_cast<std::size_t>(i)].flops.in(flop);
    }
    const double passes = num_passes(options);
    const double cores = std::min(n, static_cast<double>(num_cores()));
    const double backward = options.backward ? 3.0 : 1.0;
    const double width = setup.head_parallel           ? setup.hp.head_width
                         : setup.dims.latent_width > 0 ? setup.dims.latent_width
                                                       : setup.dims.hidden;
    const double matrices = matrices_per_expert(scenario.model.moe.activation);
    const double weights =
        matrices * setup.num_routers * setup.router.num_experts * width * setup.dims.expert_width;
    // Copies of rows at both ends and through the experts, and the experts' pre-activations.
    const double rows = tokens * n * setup.num_routers * setup.router.top_k;
    const double activations =
        rows * (6.0 * width + 3.0 * setup.dims.expert_width) + 8.0 * tokens * n * setup.dims.hidden;
    return {.time = passes * backward * flops / (4e9 * cores) * second,
            .memory = (2.0 * weights + activations) * element * byte};
}

}  // namespace headway::runtime
