#include "models/scenario/derived_axis.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace headway::inline scenario {
namespace {

// value * factor when that is a whole number of at least 1.
std::optional<int> whole_product(int value, double factor) {
    const double product = value * factor, whole = std::round(product);
    if (whole < 1.0 || whole > 1e9 || std::abs(product - whole) > 1e-9 * whole) return std::nullopt;
    return static_cast<int>(whole);
}

std::optional<InputProblem> scale_experts(double g, const std::string& where, int& experts,
                                          int& top_k, int& width) {
    const auto e = whole_product(experts, g), k = whole_product(top_k, g),
               f = whole_product(width, 1.0 / g);
    if (!e || !k || !f) {
        return InputProblem{where,
                            fmt::format("granularity {} does not scale E = {}, k = {}, f = {}", g,
                                        experts, top_k, width),
                            "one that makes E g, k g and f / g whole numbers", ""};
    }
    experts = *e;
    top_k = *k;
    width = *f;
    return std::nullopt;
}

std::optional<InputProblem> set_granularity(double g, Scenario& scenario) {
    Moe& moe = scenario.model.moe;
    auto problem = scale_experts(g, "model.moe", moe.num_experts, moe.top_k, moe.expert_width);
    for (Plan& plan : scenario.plans) {
        auto* hp = std::get_if<HeadParallel>(&plan.layer);
        // A twin follows the model by itself.
        if (problem || !hp || hp->num_experts == 0 || hp->top_k == 0 || hp->expert_width == 0) {
            continue;
        }
        problem =
            scale_experts(g, "plans." + plan.name, hp->num_experts, hp->top_k, hp->expert_width);
    }
    return problem;
}

void set_gpus_of_one_node(int gpus, Cluster& cluster) {
    if (cluster.fabric) {
        const int cards = cluster.fabric->nics_per_node * gpus / cluster.gpus_per_node;
        cluster.fabric->nics_per_node = std::max(1, cards);
    }
    if (cluster.nvlink && cluster.nvlink->domain == cluster.gpus_per_node) {
        cluster.nvlink->domain = 0;  // still the whole node
    }
    cluster.gpus_per_node = gpus;
    cluster.num_nodes = 1;
}

std::optional<InputProblem> set_ranks(std::int64_t ranks, Scenario& scenario) {
    Cluster& cluster = scenario.cluster;
    Batch& batch = scenario.batch;
    const std::int64_t before = std::int64_t{cluster.num_nodes} * cluster.gpus_per_node;
    const std::int64_t sequences = before * batch.sequences_per_rank * batch.num_micro_batches;
    const bool is_given = batch.global_batch_size.has_value();  // and then sets the micro-batches
    if (ranks > cluster.gpus_per_node && ranks % cluster.gpus_per_node != 0) {
        return InputProblem{
            "cluster.nodes",
            fmt::format("{} ranks are no whole nodes of {} GPUs", ranks, cluster.gpus_per_node), "",
            ""};
    }
    if (!is_given && sequences % ranks != 0) {
        return InputProblem{"batch",
                            fmt::format("a global batch of {} sequences does not spread over {} "
                                        "ranks",
                                        sequences, ranks),
                            "", ""};
    }
    if (!is_given) {
        const std::int64_t of_rank = sequences / ranks;
        std::int64_t at_once = std::min<std::int64_t>(batch.sequences_per_rank, of_rank);
        while (of_rank % at_once != 0) --at_once;
        batch.sequences_per_rank = static_cast<int>(at_once);
        batch.num_micro_batches = static_cast<int>(of_rank / at_once);
    }
    for (Plan& plan : scenario.plans) {
        if (plan.group_size == before) plan.group_size = static_cast<int>(ranks);
    }
    if (ranks < cluster.gpus_per_node) {
        set_gpus_of_one_node(static_cast<int>(ranks), cluster);
    } else {
        cluster.num_nodes = static_cast<int>(ranks / cluster.gpus_per_node);
    }
    return std::nullopt;
}

void set_skew(double exponent, Routing& routing) {
    routing.skew = exponent > 0.0 ? Skew::zipf : Skew::none;
    routing.parameter = exponent;
    routing.weights.clear();
}

}  // namespace

std::optional<DerivedAxis> derived_axis(std::string_view name) {
    const auto found = std::find(kDerivedAxisNames.begin(), kDerivedAxisNames.end(), name);
    if (found == kDerivedAxisNames.end()) return std::nullopt;
    return static_cast<DerivedAxis>(found - kDerivedAxisNames.begin());
}

Rule rule_of(DerivedAxis axis) {
    switch (axis) {
        case DerivedAxis::granularity:
            return {.kind = Rule::Kind::number,
                    .range = {.low = 0, .high = 1024, .above_low = true}};
        case DerivedAxis::skew:
            return {.kind = Rule::Kind::number, .range = {.low = 0, .high = 100}};
        default:
            return {.kind = Rule::Kind::integer, .range = {.low = 1, .high = 1 << 20}};
    }
}

std::optional<InputProblem> apply(DerivedAxis axis, const ScalarValue& value, Scenario& scenario) {
    switch (axis) {
        case DerivedAxis::granularity:
            return set_granularity(std::get<double>(value), scenario);
        case DerivedAxis::nodes:
            return set_ranks(std::get<std::int64_t>(value) * scenario.cluster.gpus_per_node,
                             scenario);
        case DerivedAxis::ranks:
            return set_ranks(std::get<std::int64_t>(value), scenario);
        default:
            set_skew(std::get<double>(value), scenario.routing);
            return std::nullopt;
    }
}

}  // namespace headway::inline scenario
