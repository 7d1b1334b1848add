#include "models/cost/run_passes.hpp"

#include <algorithm>
#include <utility>

namespace headway::inline cost {
namespace {

// A pass that follows itself `count` times; `weight`: how often the step runs it. In the last
// micro-batch the host hands over a bucket of gradients behind it where it is `of_gradients`.
struct Run {
    PassTime* pass;
    int count;
    double weight;
    bool of_gradients = false;
};

// The passes of one micro-batch in order. Equal layers are one entry, where the first of them is.
std::vector<Run> runs_of(const Workload& workload, const PassWeights& weights, StepTime& step) {
    std::vector<Run> runs{{&step.before.forward, 1, weights.before}};
    for (std::size_t i = 0; i < step.layers.size(); ++i)
        runs.push_back({&step.layers[i].forward, workload.layers[i].count, weights.layers[i]});
    runs.push_back({&step.after.forward, 1, weights.after});
    runs.push_back({&step.after.backward, 1, weights.after});
    for (std::size_t i = step.layers.size(); i-- > 0;)
        runs.push_back(
            {&step.layers[i].backward, workload.layers[i].count, weights.layers[i], true});
    runs.push_back({&step.before.backward, 1, weights.before, true});
    return runs;
}

// Runs in the mean of the micro-batches, and with which lead the last one's begin.
struct AllRuns {
    std::vector<StreamsRun> mean;
    std::vector<Seconds> lead;
    Seconds end;  // lead behind the last one
};

// What the host enqueues of a pass: all launches so many times as long, and a bucket's behind it.
struct Launching {
    double times = 1.0;
    Seconds bucket;

    std::vector<TimedTask> of(const Run& run, bool last) const {
        std::vector<TimedTask> tasks = run.pass->tasks;
        if (last && run.of_gradients && !tasks.empty()) tasks.back().launch += bucket;
        for (TimedTask& t : tasks) t.launch = times * t.launch;
        return tasks;
    }
};

// Micro-batches between the second and the last begin with the same lead.
AllRuns run_all(const std::vector<Run>& runs, const Overlap& overlap, int micro_batches,
                Seconds lead, const Launching& launching) {
    AllRuns all{.mean = std::vector<StreamsRun>(runs.size()),
                .lead = std::vector<Seconds>(runs.size())};
    const int executed = std::min(micro_batches, 3);
    for (int micro = 0; micro < executed; ++micro) {
        const double times = micro == 1 && executed == 3 ? micro_batches - 2.0 : 1.0;
        const double share = times / micro_batches;
        for (std::size_t i = 0; i < runs.size(); ++i) {
            all.lead[i] = lead;
            const StreamsRun run = run_in_row(launching.of(runs[i], micro + 1 == executed), overlap,
                                              lead, runs[i].count);
            lead = run.lead;
            all.mean[i].add(run, share);
        }
    }
    all.end = lead;
    return all;
}

// A step that begins with the lead that the one before it left. A lead that grows from step to step
// is one that nothing waits for.
AllRuns run_step(const std::vector<Run>& runs, const Overlap& overlap, const Workload& workload,
                 Seconds update, const Launching& launching) {
    constexpr int kSteps = 4;
    const int micro_batches = workload.num_micro_batches;
    AllRuns all = run_all(runs, overlap, micro_batches, {}, launching);
    for (int step = 1; workload.runs_free && step < kSteps; ++step)
        all = run_all(runs, overlap, micro_batches, all.end + update, launching);
    return all;
}

void show(const StreamsRun& run, PassTime& pass) {
    for (std::size_t k = 0; k < pass.tasks.size(); ++k) {
        PhaseTime& phase = pass.phases[static_cast<std::size_t>(pass.phase_of_task[k])];
        phase.time += run.exposed[k];
        phase.host += run.host[k];
        phase.launch += pass.tasks[k].launch;
        // Means of many runs are not exact to the last digit.
        const Seconds hidden = pass.tasks[k].time - run.exposed[k];
        if (pass.tasks[k].stream != Stream::compute && hidden > 1e-9 * pass.tasks[k].time)
            phase.hidden += hidden;
    }
    for (PhaseTime& phase : pass.phases)
        if (phase.host > 0.5 * phase.time) phase.bottleneck = Bottleneck::launch;
    pass.total = run.end;
}

// By how much the pass is off when all launches are, by a standard deviation to either side: of the
// phases that wait for them.
void add_host_sigma(double sigma, PassTime& pass) {
    Seconds waits;
    for (const PhaseTime& phase : pass.phases) waits += phase.host;
    for (PhaseTime& phase : pass.phases)
        if (waits > Seconds{}) phase.sigma += sigma * (phase.host / waits);
}

}  // namespace

void run_passes(const Workload& workload, const Overheads& overheads, const PassWeights& weights,
                const StepEnd& end, PriceBook& book, StepTime& step) {
    const std::vector<Run> runs = runs_of(workload, weights, step);
    const bool eager =
        std::ranges::any_of(runs, [](const Run& run) { return has_launches(run.pass->tasks); });
    const Overlap overlap = overheads.overlap();
    const auto with_launches = [&](double times) {
        return run_step(runs, overlap, workload, end.update, {times, end.bucket});
    };
    const AllRuns results = eager ? with_launches(1.0) : run_all(runs, overlap, 1, {}, {});
    step.lead = results.lead.front();
    for (std::size_t i = 0; i < runs.size(); ++i) {
        show(results.mean[i], *runs[i].pass);
        runs[i].pass->lead = results.lead[i];
    }
    if (!eager) return;
    const double error = std::min(1.0, overheads.host_residual);
    const AllRuns slower = with_launches(1.0 + error), quicker = with_launches(1.0 - error);
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const double sigma = 0.5 * (slower.mean[i].end - quicker.mean[i].end).in(second);
        book.add_host_sigma(runs[i].weight * sigma);
        add_host_sigma(sigma, *runs[i].pass);
    }
}

}  // namespace headway::inline cost
