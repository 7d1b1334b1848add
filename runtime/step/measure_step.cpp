#include "runtime/step/measure_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "models/text/csv_text.hpp"
#include "models/text/human.hpp"
#include "models/vocab/error.hpp"
#include "models/workload/workload.hpp"
#include "runtime/host.hpp"
#include "runtime/step/reference_step.hpp"

namespace headway::runtime {
namespace {

// What the ranks of a run share, so that a rank that is left behind never outlives it.
struct SharedRun {
    Scenario scenario;
    StepSetup setup;
    StepRun steps;
    MeasureOptions options;
    StepRouting routing;
    std::vector<StepRecord> records;  // [rank]
};

template <class S>
void train_on_rank(SharedRun& run, Communicator& comm) {
    RankContext context{.communicator = comm};
    if (run.options.fault) {
        context.on_enter = [fault = *run.options.fault, rank = comm.rank()](CallSite site) {
            obey(fault, rank, site);
        };
    }
    ReferenceStep<S> step(context, run.setup, run.routing);
    const TokenSource source(run.setup, run.steps.data);
    const std::vector<Block> order =
        step_blocks(run.setup.model.num_layers, run.setup.num_micro_batches);
    StepRecord& record = run.records[static_cast<std::size_t>(comm.rank())];
    const int wholes = run.options.num_warmups + run.steps.num_steps;
    for (int i = 0; i < wholes + run.options.num_repeats; ++i) {
        std::vector<PhaseSample> phases;
        context.samples = i < wholes ? nullptr : &phases;
        step.start(source.of(i, comm.rank()));
        comm.barrier();
        context.origin = std::chrono::steady_clock::now();
        run_step(step, order);
        const double time = context.now();
        record.losses.push_back(step.loss());
        if (i >= wholes) record.phases.push_back(step.marks().join(phases));
        if (i >= run.options.num_warmups && i < wholes) record.step_times.push_back(time);
    }
}

void check_work(const Scenario& scenario, const Plan& plan, const StepRun& run,
                const MeasureOptions& options, double max_time) {
    const Workload work = build_workload(scenario, plan);
    const double cores = std::min(work.num_ranks, num_cores());
    const double steps = run.num_steps + options.num_warmups + options.num_repeats;
    // Forward, backward and what is computed again; 4 GFLOP/s a core, a slow one.
    const double passes = plan.recompute != Recompute{} ? 4.0 : 3.0;
    const double time = passes * steps * work.num_micro_batches * work.num_ranks *
                        work.model_flops.in(flop) / (4e9 * cores);
    if (time <= max_time) return;
    throw InputError({.where = "plan " + plan.name,
                      .found = fmt::format("too large for this CPU: about {} for {} steps on {} "
                                           "cores (--max-time {} s)",
                                           human(time * second), steps, num_cores(), max_time),
                      .hint = "fewer --steps, --repeats or tokens, or a smaller model"});
}

}  // namespace

StepMeasurement measure_steps(const Scenario& scenario, const Plan& plan, const StepRun& steps,
                              const MeasureOptions& options) {
    auto run = std::make_shared<SharedRun>();
    run->scenario = scenario;
    run->setup = step_setup(scenario, plan, steps);
    run->steps = steps;
    run->options = options;
    run->routing = step_routing(scenario, run->setup, steps.forced);
    run->records.resize(static_cast<std::size_t>(plan.group_size));
    const bool doubles = scenario.model.dtype == Dtype::fp64;
    run_on_threads(
        plan.group_size,
        [run, doubles](Communicator& comm) {
            doubles ? train_on_rank<double>(*run, comm) : train_on_rank<float>(*run, comm);
        },
        options.threads);
    // Exchanges begin when all ranks have arrived.
    return to_step_measurement(scenario, plan, cpu_name(), run->records, false);
}

std::vector<StepMeasurement> steps_on_threads(const Scenario& scenario,
                                              const std::vector<Plan>& plans, const StepRun& run,
                                              const MeasureOptions& options, double max_time) {
    for (const Plan& plan : plans) {
        if (plan.cuda_graph_scope != 0)
            throw InputError({.where = "plan " + plan.name,
                              .found = "cuda_graph_scope with --device cpu",
                              .accepted = "--device cuda, or the plan without it"});
        step_setup(scenario, plan, run);
        check_work(scenario, plan, run, options, max_time);
    }
    prepare_timed_memory();
    std::vector<StepMeasurement> measurements;
    for (const Plan& plan : plans) {
        measurements.push_back(measure_steps(scenario, plan, run, options));
        print_step_summary(measurements.back());
    }
    return measurements;
}

void print_step_summary(const StepMeasurement& m) {
    const StepTimes& step = *m.timeline.step;
    fmt::print("plan {} on {} ranks: step {} ({} to {}, {} steps), loss {:.4f} to {:.4f}\n",
               m.timeline.plan, m.timeline.size->num_ranks, human(step.time), human(step.low),
               human(step.high), step.samples, m.losses.front(), m.losses.back());
    if (const auto& run = m.timeline.run)
        fmt::print("  {}memory at the peak, fullest rank: {}; SM clock {} MHz, {}{}\n",
                   run->graph ? "replayed as one CUDA graph; " : "", human(run->memory_peak),
                   run->clock_mhz,
                   run->throttle.empty() ? "not throttled" : "throttled: ", run->throttle);
}

std::string losses_csv(const std::vector<StepMeasurement>& measurements) {
    std::string text = "plan,step,loss\n";
    for (const StepMeasurement& m : measurements) {
        for (std::size_t i = 0; i < m.losses.size(); ++i)
            text += fmt::format("{},{},{}\n", csv_field(m.timeline.plan), i + 1, m.losses[i]);
    }
    return text;
}

}  // namespace headway::runtime
