#include "models/cost/program_tasks.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <variant>

#include "models/cost/fitted_tasks.hpp"

namespace headway::inline cost {
namespace {

PathBytes scaled(PathBytes bytes, double factor) {
    for (Bytes& b : bytes) b *= factor;
    return bytes;
}

}  // namespace

TaskPricer::TaskPricer(const Scenario& scenario, const Plan& plan, const Profile& profile,
                       const Workload& workload)
    : scenario_(scenario),
      workload_(workload),
      bytes_(scenario, plan),
      cluster_(without_overrides(scenario.cluster)),
      book_(profile, cluster_, scenario.model.dtype) {}

ExchangeTask TaskPricer::count_exchange_task(const CountExchangeWork& counts) const {
    // Every rank waits for every other, then for its host.
    ExchangeTask task{.group_size = counts.group_size};
    task.stages.push_back({.uniform_bytes = 0, .latency = book_.count_exchange_time(counts)});
    return task;
}

Seconds TaskPricer::compute_time(const ComputeWork& work, Pass pass, double fraction) const {
    return book_.compute_time(work, pass, fraction);
}

// A compute phase whose work may differ by rank; phase `index` of every entry of `ranks`.
ComputeTask scaled(ComputeTask task, double share) {
    for (Seconds& time : task.per_rank) time *= share;
    task.flops *= share;
    task.bytes *= share;
    return task;
}

ComputeTask TaskPricer::compute_task(const std::vector<const PhaseWork*>& ranks,
                                     double fraction) const {
    ComputeTask task{.pieces = std::get<ComputeWork>(ranks.front()->work).num_launches()};
    for (const PhaseWork* phase : ranks) {
        const auto& work = std::get<ComputeWork>(phase->work);
        task.per_rank.push_back(compute_time(work, phase->kernel_pass(), fraction));
        Flops flops;
        Bytes bytes;
        for (int i = 0; i < work.num_kernels; ++i) {
            flops += work.kernels[static_cast<std::size_t>(i)].flops;
            bytes += work.kernels[static_cast<std::size_t>(i)].bytes;
        }
        task.flops = max(task.flops, fraction * flops);
        task.bytes = max(task.bytes, fraction * bytes);
    }
    const bool equal = std::all_of(task.per_rank.begin(), task.per_rank.end(),
                                   [&](Seconds t) { return t == task.per_rank[0]; });
    if (equal) task.per_rank.resize(1);
    return task;
}

void TaskPricer::fit_stage(ExchangeStage& stage, const PathBytes& mean, int group_size, int stride,
                           Collective collective) const {
    cost::fit_stage(stage, mean, group_size, collective, book_, scenario_.cluster, stride);
}

ExchangeTask TaskPricer::exchange_task(const PhaseWork& phase,
                                       const std::vector<DrawnGroup>& groups, double fraction) {
    const auto& work = std::get<ExchangeWork>(phase.work);
    if (const std::optional<Seconds> time = book_.records_time(work)) {
        ExchangeTask task{.group_size = work.group_size};
        task.stages.push_back({.uniform_bytes = 0, .latency = *time});
        return task;
    }
    ExchangeTask task = bytes_.task(phase, groups, fraction);
    const bool routed =
        phase.phase == Phase::dispatch || phase.phase == Phase::combine || work.records.has_value();
    // The means of dispatch are in the model's type.
    const double wire = work.element / bytes_per_element(scenario_.model.dtype) * fraction;
    for (std::size_t i = 0; i < task.stages.size(); ++i) {
        ExchangeStage& stage = task.stages[i];
        if (!routed) {
            fit_stage(stage, scaled(work.mean, fraction), work.group_size, work.stride);
            stage.latency += book_.planes_time(work, fraction);
            continue;
        }
        // The way back begins inside nodes.
        const bool inside = work.forwarded && (i == 0) == stage.transposed;
        fit_stage(stage, scaled(mean_bytes(inside), wire), work.group_size, work.stride);
    }
    return task;
}

// Mean bytes by path class of the expected load: the message size at which the curves are read.
PathBytes TaskPricer::mean_bytes(bool second_stage) const {
    for (const PhaseWork& phase : moe_layer_of_workload().forward) {
        const auto* exchange = std::get_if<ExchangeWork>(&phase.work);
        if (exchange == nullptr || phase.phase != Phase::dispatch) continue;
        return scaled(second_stage ? exchange->forward_mean : exchange->mean,
                      bytes_per_element(scenario_.model.dtype) / exchange->element);
    }
    return {};
}

const LayerWork& TaskPricer::moe_layer_of_workload() const {
    return *std::find_if(workload_.layers.begin(), workload_.layers.end(),
                         [](const LayerWork& l) { return l.is_moe; });
}

// As a stage of two ranks on each path class in between.
SendTask TaskPricer::send_task(Bytes bytes, int from_block, int to_block,
                               int ranks_of_block) const {
    SendTask task{.to_role = to_block, .bytes = std::llround(bytes.in(byte))};
    std::array<bool, static_cast<std::size_t>(kNumPathClasses)> used{};
    for (int i = 0; i < ranks_of_block; ++i)
        used[static_cast<std::size_t>(path_class(cluster_, from_block * ranks_of_block + i,
                                                 to_block * ranks_of_block + i))] = true;
    for (std::size_t c = 0; c < used.size(); ++c) {
        if (!used[c]) continue;
        ExchangeStage stage;
        PathBytes sent{};
        sent[c] = bytes;
        fit_stage(stage, sent, 2, 1, Collective::send_recv);
        task.latency = max(task.latency, stage.latency);
        task.efficiency[c] = stage.efficiency[c];
    }
    return task;
}

ReduceTask TaskPricer::reduce_task(const ReduceWork& work, double share) {
    ReduceWork part = work;
    part.bytes *= share;
    return fitted_reduction(part, book_);
}

HostTask TaskPricer::host_task(const std::vector<const PhaseWork*>& ranks, double share) const {
    HostTask task;
    for (const PhaseWork* phase : ranks) {
        const auto& work = std::get<HostWork>(phase->work);
        task.per_rank.push_back(share * work.bytes / book_.host_rate(work.part));
        task.bytes = max(task.bytes, share * work.bytes);
    }
    if (std::ranges::count(task.per_rank, task.per_rank[0]) == std::ssize(task.per_rank))
        task.per_rank.resize(1);
    return task;
}

}  // namespace headway::inline cost
