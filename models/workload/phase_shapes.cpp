// What the phases of an MoE layer work on, for profiles that know whole phases.
#include <algorithm>
#include <numeric>
#include <variant>

#include "models/workload/moe_layer.hpp"

namespace headway::inline workload {
namespace {

// Node-dedup sends records before both stages. Each stage is priced as half of a rank-dedup
// exchange that sends the same number of copies off the rank: the curves are of rank-dedup, which
// sends (N-1)/N of its copies off the rank.
void set_record_shape(const StepShape& s, const GroupLoad& load, PhaseShape& shape) {
    if (!load.forwarded) return;
    const auto sum = [](const auto& copies) {
        return std::accumulate(copies.begin(), copies.end(), 0.0);
    };
    const double n = s.layout.ranks(), island = s.scenario.cluster.island_size();
    const double of_rank_dedup = load.copies_forwarded / (1.0 - island / n);
    const double as_many = (sum(load.copies_mean) + sum(load.forward_mean)) * n / (n - 1.0);
    if (of_rank_dedup <= 0.0) return;
    shape.sent = 0.5 * as_many;
    shape.tokens *= 0.5 * as_many / of_rank_dedup;
}

// HP x EP: what a head's sharers do between its scatter and gather is a layer of EP on sub-tokens.
PhaseShape inside_a_head(PhaseShape shape, Dedup dedup) {
    shape.layer = dedup == Dedup::rank ? LayerKind::ep_rank : LayerKind::ep;
    shape.own_tokens = shape.tokens;
    shape.hidden = shape.width;
    shape.columns = 0.0;
    return shape;
}

}  // namespace

void set_phase_shapes(const StepShape& s, const GroupLoad& load, std::vector<PhaseWork>& phases) {
    const MoeRows rows = moe_rows(s, load);
    PhaseShape shape{.dtype = s.scenario.model.dtype,
                     .own_tokens = s.tokens,
                     .tokens = s.tokens,
                     .hidden = s.hidden,
                     .width = s.layout.width,
                     .routers = s.layout.routers_per_rank,
                     .experts = s.layout.router.num_experts,
                     .groups = experts_on_rank(s),
                     .top_k = s.layout.router.top_k,
                     .expert_width = static_cast<double>(s.layout.expert_width),
                     .rows = rows.expert,
                     .sent = rows.sent,
                     .arrived = rows.arrived,
                     .spread = load.spread};
    moe_layer_kind(s.plan).set_shape(s, shape);
    const PhaseShape of_layer = shape;
    const bool shares_heads = shape.layer == LayerKind::hp && s.layout.group_size > 1;
    for (PhaseWork& phase : phases) {
        // Curves are of rows made from, and summed into, a rank's own tokens.
        if (s.layout.gathers_tokens &&
            (phase.phase == Phase::permute || phase.phase == Phase::unpermute))
            continue;
        const bool head = phase.phase == Phase::head_project || phase.phase == Phase::head_merge;
        shape = shares_heads && !head ? inside_a_head(of_layer, s.layout.dedup) : of_layer;
        shape.phase = phase.phase;
        if (auto* counts = std::get_if<CountExchangeWork>(&phase.work); counts && !counts->hidden) {
            counts->shape = shape;
            set_record_shape(s, load, *counts->shape);
        }
        if (auto* exchange = std::get_if<ExchangeWork>(&phase.work);
            exchange && exchange->records) {
            exchange->records->shape = shape;
            set_record_shape(s, load, exchange->records->shape);
        }
        if (auto* compute = std::get_if<ComputeWork>(&phase.work)) compute->shape = shape;
    }
}

}  // namespace headway::inline workload
