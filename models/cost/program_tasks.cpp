#include "models/cost/program_tasks.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <variant>

#include "models/cost/fitted_tasks.hpp"
#include "models/workload/traffic.hpp"

namespace headway::inline cost {
namespace {

PathBytes scaled(PathBytes bytes, double factor) {
    for (Bytes& b : bytes) b *= factor;
    return bytes;
}

Cluster without_overrides(Cluster cluster) {
    cluster.link_overrides.clear();
    cluster.rank_overrides.clear();
    return cluster;
}

}  // namespace

TaskPricer::TaskPricer(const Scenario& scenario, const Plan& plan, const Profile& profile,
                       const Workload& workload)
    : scenario_(scenario),
      plan_(plan),
      workload_(workload),
      layout_(expert_layout(scenario, plan)),
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
                                       const std::vector<DrawnGroup>* groups, double fraction) {
    const auto& work = std::get<ExchangeWork>(phase.work);
    ExchangeTask task{.group_size = work.group_size};
    if (const std::optional<Seconds> time = book_.records_time(work)) {
        task.stages.push_back({.uniform_bytes = 0, .latency = *time});
        return task;
    }
    const bool routed =
        phase.phase == Phase::dispatch || phase.phase == Phase::combine || work.records.has_value();
    // Drawn bytes and the means of dispatch are in the model's type.
    const double wire = work.element / bytes_per_element(scenario_.model.dtype);
    const auto scale = [&](const PathBytes& bytes) { return scaled(bytes, wire * fraction); };
    if (!routed) {
        const bool of_sequence = phase.phase == Phase::cp_exchange;
        ExchangeStage stage =
            of_sequence ? equal_stage(work, fraction) : head_stage(work, wire * fraction);
        fit_stage(stage, scaled(work.mean, fraction), work.group_size, work.stride);
        stage.latency += book_.planes_time(work, fraction);
        task.stages.push_back(std::move(stage));
        return task;
    }
    // Combine returns what dispatch brought; backward's gradients travel the other way round
    // again.
    const bool reverse = (phase.phase == Phase::combine) != (phase.kernel_pass() == Pass::backward);
    const auto add_stage = [&](auto select, const PathBytes& mean) {
        ExchangeStage stage{.transposed = reverse};
        for (const DrawnGroup& group : *groups)
            stage.matrices.push_back(bytes_of(select(group), wire * fraction));
        fit_stage(stage, scale(mean), work.group_size);
        task.stages.push_back(std::move(stage));
    };
    const auto nic = [](const DrawnGroup& g) -> const TrafficMatrix& { return g.staged.over_nic; };
    const auto inside = [](const DrawnGroup& g) -> const TrafficMatrix& { return g.staged.inside; };
    task.in_chunks = work.forwarded;  // as predicted
    if (!work.forwarded) {
        add_stage([](const DrawnGroup& g) -> const TrafficMatrix& { return g.copies; },
                  mean_bytes(false));
    } else if (reverse) {
        add_stage(inside, mean_bytes(true));
        add_stage(nic, mean_bytes(false));
    } else {
        add_stage(nic, mean_bytes(false));
        add_stage(inside, mean_bytes(true));
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

std::shared_ptr<const TrafficMatrix> TaskPricer::bytes_of(const TrafficMatrix& copies,
                                                          double fraction) {
    std::shared_ptr<const TrafficMatrix>& kept = bytes_[{&copies, fraction}];
    if (kept) return kept;
    const double width = layout_.width * bytes_per_element(scenario_.model.dtype);
    TrafficMatrix bytes = copies;
    for (std::int64_t& b : bytes.bytes) b = std::llround(static_cast<double>(b) * width * fraction);
    return kept = std::make_shared<const TrafficMatrix>(std::move(bytes));
}

// Every `stride`-th rank of the group has the same bytes for each other.
ExchangeStage TaskPricer::equal_stage(const ExchangeWork& work, double fraction) {
    ExchangeStage stage;
    const std::int64_t bytes = std::llround(work.a_peer.in(byte)*fraction);
    if (work.stride == 1) {
        stage.uniform_bytes = bytes;
        return stage;
    }
    std::shared_ptr<const TrafficMatrix>& kept = equal_bytes_[bytes];
    if (!kept) {
        TrafficMatrix matrix(work.group_size);
        for (int from = 0; from < work.group_size; ++from)
            for (int to = from % work.stride; to < work.group_size; to += work.stride)
                matrix.at(from, to) = bytes;
        kept = std::make_shared<const TrafficMatrix>(std::move(matrix));
    }
    stage.matrices.push_back(kept);
    return stage;
}

// HP's equal split: the same bytes to every peer it serves.
ExchangeStage TaskPricer::head_stage(const ExchangeWork& work, double fraction) {
    ExchangeStage stage;
    const int heads = std::get<HeadParallel>(plan_.layer).num_heads;
    const std::int64_t tokens = rank_tokens(scenario_, plan_).own;
    const double sub_token = layout_.width * bytes_per_element(scenario_.model.dtype) * fraction;
    if (work.group_size <= heads) {
        stage.uniform_bytes =
            std::llround(static_cast<double>(tokens) * heads / work.group_size * sub_token);
        return stage;
    }
    std::shared_ptr<const TrafficMatrix>& kept = head_bytes_[fraction];
    if (kept) {
        stage.matrices.push_back(kept);
        return stage;
    }
    TrafficMatrix bytes = head_scatter_copies(
        std::vector<std::int64_t>(static_cast<std::size_t>(work.group_size), tokens), heads);
    for (std::int64_t& b : bytes.bytes) b = std::llround(static_cast<double>(b) * sub_token);
    kept = std::make_shared<const TrafficMatrix>(std::move(bytes));
    stage.matrices.push_back(kept);
    return stage;
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

}  // namespace headway::inline cost
