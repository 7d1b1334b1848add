#include <algorithm>
#include <cmath>
#include <numeric>
#include <variant>

#include "models/cost/fused_experts.hpp"
#include "models/cost/moe_layer.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {
namespace {

constexpr double kHalf = 2.0, kFull = 4.0;  // bytes of bf16, and of fp32 and int32
constexpr double kTileRows = 128.0;

struct LayerSize {
    double tokens, hidden, width, experts, groups, top_k, expert_width,
        rows;               // rows at the experts
    double ranks, w1_rows;  // w1_rows: hidden rows of the first matrix, 2 f when gated
};

// Parameters, their fp32 gradients, x, y, dy, dx, and the choices that are given.
double standing(const LayerSize& s, double bf16_parameters, double fp32_parameters,
                double choices) {
    return kHalf * bf16_parameters + kFull * fp32_parameters +
           kFull * (bf16_parameters + fp32_parameters) + 4.0 * kHalf * s.tokens * s.hidden +
           kFull * choices;
}

double hp_memory(const LayerSize& s, const HeadParallel& hp) {
    const double columns = double{1} * hp.num_heads * hp.head_width,
                 projection = s.hidden * columns;
    const double sub_tokens = s.tokens * hp.num_heads, rows_held = sub_tokens * s.width * kHalf;
    const double bf16 = 2.0 * projection + s.groups * (s.w1_rows + s.expert_width) * s.width;
    const double counts = s.groups * std::ceil(s.tokens * s.ranks / 256.0) * kFull;
    const double saved = 2.0 * rows_held + 5.0 * kFull * s.rows + counts;
    const bool alone = s.ranks == 1, by_source = !alone && hp.num_heads > s.ranks;
    const double backward = rows_held * (1.0 + (alone ? 0.0 : 1.0) + (by_source ? 1.0 : 0.0)) +
                            fused_expert_workspace({.rows = s.rows,
                                                    .groups = s.groups,
                                                    .w1_rows = s.w1_rows,
                                                    .expert_width = s.expert_width,
                                                    .width = s.width}) +
                            s.rows * s.width * kHalf + kFull * s.rows + kFull * sub_tokens;
    return standing(s, bf16, s.groups * s.width, s.rows) + saved + backward;
}

// Node-dedup: `nodes` of the group. Copies of the first stage are those over the NICs, of which as
// many arrive as leave, and those of the own node; a copy that is sent on is in a buffer of its own
// while backward's last exchange runs. Every copy has a record of k choices: which experts, their
// gates, and, of those that go on, where they are sent; hops of the own choices.
double node_dedup_memory(const LayerSize& s, const GroupLoad& load, double nodes) {
    const double choices = s.tokens * s.top_k, row = s.width * kHalf;
    const double inner = s.expert_width * kHalf;
    const double from_nodes =
        std::accumulate(load.copies_mean.begin(), load.copies_mean.end(), 0.0);
    const double first = from_nodes + load.copies_received / nodes;
    const double arrived = from_nodes + load.copies_received;
    const double hops = std::min(s.top_k, s.ranks / nodes + nodes - 1.0);
    const double saved = 4.0 * kFull * choices + s.tokens * hops * row +
                         3.0 * kFull * first * s.top_k + 3.0 * kFull * arrived * s.top_k +
                         s.rows * (2.0 * row + 2.0 * inner);
    const double backward = kFull * choices + kFull * arrived * s.top_k +
                            (load.copies_sent + arrived) * row + s.rows * (2.0 * row + inner) +
                            std::max(load.copies_forwarded * row, s.tokens * s.experts * kHalf);
    return saved + backward;
}

double ep_memory(const LayerSize& s, const GroupLoad& load, bool deduplicated, double nodes) {
    const double choices = s.tokens * s.top_k;
    const double bf16 = s.experts * s.hidden + 2.0 * s.groups * s.expert_width * s.width;
    const double row = s.width * kHalf, inner = s.expert_width * kHalf;
    if (load.forwarded) return standing(s, bf16, 0.0, choices) + node_dedup_memory(s, load, nodes);
    const double router = std::max(s.tokens * s.experts * kHalf, 0.0);
    double saved = 3.0 * kFull * choices + s.rows * (row + 2.0 * inner);
    double backward = kFull * choices + s.rows * (inner + row) + router;
    if (s.ranks == 1) {
        saved += s.rows * row;
        backward += s.rows * row;
    } else {
        const double most = deduplicated ? s.tokens * std::min(s.top_k, s.ranks) : choices;
        const bool regrouped = deduplicated || s.groups > 1;
        saved += most * row + kFull * load.copies_received;
        if (deduplicated) saved += s.rows * row + 3.0 * kFull * load.copies_received * s.top_k;
        backward += (load.copies_sent + load.copies_received) * row;
        if (regrouped) backward += s.rows * row;
    }
    return standing(s, bf16, 0.0, choices) + saved + backward;
}

// `s` of a whole layer. The sharers of a head run EP on its sub-tokens; four of the five blocks of
// sub-tokens are that layer's x, y, dy and dx.
double hp_ep_memory(const LayerSize& s, const GroupLoad& load, const HeadParallel& hp,
                    double sharers) {
    LayerSize head = s;
    head.tokens = s.tokens * hp.num_heads;
    head.hidden = s.width;
    head.ranks = sharers;
    const double projection = s.hidden * hp.num_heads * hp.head_width;
    return ep_memory(head, load, hp.dedup == Dedup::rank, 1.0) + head.tokens * s.width * kHalf +
           standing(s, 2.0 * projection, 0.0, 0.0);
}

}  // namespace

double fused_expert_workspace(const FusedExperts& e) {
    const double tiles = std::ceil(e.rows / kTileRows) + e.groups;
    const double images = tiles * kTileRows * (e.w1_rows + e.expert_width) * kHalf;
    const double strips = std::floor((e.w1_rows + e.expert_width + 127.0) / 128.0);
    const double wanted = std::min(2.0 * e.rows / e.groups, e.rows * strips / 264.0);
    const double split = std::ceil(std::max(1024.0, wanted) / 64.0) * 64.0;
    return images +
           (std::floor(e.rows / split) + 1.0) * (e.w1_rows + e.expert_width) * e.width * kFull;
}

Bytes moe_layer_memory(const Scenario& scenario, const Plan& plan, int layer) {
    const ExpertLayout layout = expert_layout(scenario, plan);
    const GroupLoad load = expected_load(scenario, plan, layer);
    const double f = layout.expert_width;
    const LayerSize s{.tokens = static_cast<double>(scenario.batch.tokens_per_rank()),
                      .hidden = static_cast<double>(scenario.model.hidden),
                      .width = static_cast<double>(layout.width),
                      .experts = static_cast<double>(layout.router.num_experts),
                      .groups = static_cast<double>(layout.router.num_experts) *
                                layout.routers_per_rank / layout.group_size,
                      .top_k = static_cast<double>(layout.router.top_k),
                      .expert_width = f,
                      .rows = load.rows_max,
                      .ranks = static_cast<double>(plan.group_size),
                      .w1_rows = is_gated(scenario.model.moe.activation) ? 2.0 * f : f};
    if (const auto* hp = std::get_if<HeadParallel>(&plan.layer)) {
        return (layout.group_size > 1 ? hp_ep_memory(s, load, *hp, layout.group_size)
                                      : hp_memory(s, *hp)) *
               byte;
    }
    const double nodes = s.ranks / std::min(s.ranks, double{1} * scenario.cluster.island_size());
    return ep_memory(s, load, layout.dedup != Dedup::none && layout.group_size > 1, nodes) * byte;
}

}  // namespace headway::inline cost
