#include "models/workload/exchange_bytes.hpp"

#include <algorithm>
#include <cmath>
#include <variant>

#include "models/vocab/error.hpp"
#include "models/workload/traffic.hpp"

namespace headway::inline workload {

ExchangeBytes::ExchangeBytes(const Scenario& scenario, const Plan& plan)
    : scenario_(scenario), plan_(plan), layout_(expert_layout(scenario, plan)) {}

ExchangeTask ExchangeBytes::task(const PhaseWork& phase, const std::vector<DrawnGroup>& groups,
                                 double fraction) {
    const auto& work = std::get<ExchangeWork>(phase.work);
    ExchangeTask task{.group_size = work.group_size};
    // Drawn bytes are in the model's type.
    const double wire = work.element / bytes_per_element(scenario_.model.dtype) * fraction;
    if (phase.phase == Phase::cp_exchange) {
        task.stages.push_back(equal_stage(work, fraction));
        return task;
    }
    if (phase.phase != Phase::dispatch && phase.phase != Phase::combine && !work.records) {
        task.stages.push_back(head_stage(work, wire));
        return task;
    }
    // Combine returns what dispatch brought; backward's gradients travel the other way round
    // again.
    const bool reverse = (phase.phase == Phase::combine) != (phase.kernel_pass() == Pass::backward);
    const auto add_stage = [&](auto select) {
        ExchangeStage stage{.transposed = reverse};
        for (const DrawnGroup& group : groups)
            stage.matrices.push_back(bytes_of(select(group), wire));
        task.stages.push_back(std::move(stage));
    };
    task.in_chunks = work.forwarded;  // as predicted
    if (!work.forwarded) {
        add_stage([](const DrawnGroup& g) -> const TrafficMatrix& { return g.copies; });
        return task;
    }
    add_stage([](const DrawnGroup& g) -> const TrafficMatrix& { return g.staged.over_nic; });
    add_stage([](const DrawnGroup& g) -> const TrafficMatrix& { return g.staged.inside; });
    if (reverse) std::swap(task.stages[0], task.stages[1]);
    return task;
}

ExchangeBytes::Matrix ExchangeBytes::bytes_of(const TrafficMatrix& copies, double fraction) {
    Matrix& kept = drawn_[{&copies, fraction}];
    if (kept) return kept;
    const double width = layout_.width * bytes_per_element(scenario_.model.dtype);
    TrafficMatrix bytes = copies;
    for (std::int64_t& b : bytes.bytes) b = std::llround(static_cast<double>(b) * width * fraction);
    return kept = std::make_shared<const TrafficMatrix>(std::move(bytes));
}

// Every `stride`-th rank of the group has the same bytes for each other.
ExchangeStage ExchangeBytes::equal_stage(const ExchangeWork& work, double fraction) {
    ExchangeStage stage;
    const std::int64_t bytes = std::llround(work.a_peer.in(byte)*fraction);
    if (work.stride == 1) {
        stage.uniform_bytes = bytes;
        return stage;
    }
    Matrix& kept = equals_[bytes];
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
ExchangeStage ExchangeBytes::head_stage(const ExchangeWork& work, double fraction) {
    ExchangeStage stage;
    const int heads = std::get<HeadParallel>(plan_.layer).num_heads;
    const std::int64_t tokens = rank_tokens(scenario_, plan_).own;
    const double sub_token = layout_.width * bytes_per_element(scenario_.model.dtype) * fraction;
    if (work.group_size <= heads) {
        stage.uniform_bytes =
            std::llround(static_cast<double>(tokens) * heads / work.group_size * sub_token);
        return stage;
    }
    Matrix& kept = heads_[fraction];
    if (!kept) {
        TrafficMatrix bytes = head_scatter_copies(
            std::vector<std::int64_t>(static_cast<std::size_t>(work.group_size), tokens), heads);
        for (std::int64_t& b : bytes.bytes) b = std::llround(static_cast<double>(b) * sub_token);
        kept = std::make_shared<const TrafficMatrix>(std::move(bytes));
    }
    stage.matrices.push_back(kept);
    return stage;
}

std::optional<ExchangeTask> layer_exchange(const Scenario& scenario, const Plan& plan, int layer,
                                           Phase phase, int sample) {
    if (plan.parallel.has_pipeline()) {
        throw InputError({.where = "plan " + plan.name,
                          .found = "a pipeline: a layer lies on the ranks of one stage",
                          .accepted = "plans without a pipeline"});
    }
    const ModelSpec& model = scenario.model;
    if (layer >= model.all_layers() || !model.is_moe_layer(layer)) return std::nullopt;
    const LayerWork work =
        build_moe_layer(scenario, plan, expected_load(scenario, plan, layer), layer);
    const auto found = std::ranges::find(work.forward, phase, &PhaseWork::phase);
    if (found == work.forward.end() || !std::holds_alternative<ExchangeWork>(found->work))
        return std::nullopt;
    return ExchangeBytes(scenario, plan)
        .task(*found, draw_groups(scenario, plan, layer, 0, scenario.cluster.num_ranks(), sample));
}

TrafficMatrix group_matrix(const ExchangeTask& exchange, std::size_t stage, int group) {
    const ExchangeStage& work = exchange.stages[stage];
    if (!work.matrices.empty()) {
        const std::size_t which = work.matrices.size() == 1 ? 0 : static_cast<std::size_t>(group);
        return work.transposed ? work.matrices[which]->transposed() : *work.matrices[which];
    }
    TrafficMatrix matrix(exchange.group_size);
    std::ranges::fill(matrix.bytes, work.uniform_bytes);
    return matrix;
}

TrafficMatrix world_matrix(const ExchangeTask& exchange, std::size_t stage, int num_ranks) {
    TrafficMatrix world(num_ranks);
    for (int g = 0; g < num_ranks / exchange.group_size; ++g) {
        const TrafficMatrix matrix = group_matrix(exchange, stage, g);
        const int first = g * exchange.group_size;
        for (int i = 0; i < exchange.group_size; ++i) {
            for (int j = 0; j < exchange.group_size; ++j)
                world.at(first + i, first + j) = matrix.at(i, j);
        }
    }
    return world;
}

}  // namespace headway::inline workload
