#include "models/workload/recompute.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>
#include <variant>

#include "models/workload/stages.hpp"

namespace headway::inline workload {
namespace {

using Module = RecomputeModule;

void insert(std::size_t at, std::vector<PhaseWork> phases, std::vector<PhaseRange> pipelines,
            LayerWork& layer) {
    const int place = static_cast<int>(at), size = static_cast<int>(phases.size());
    for (PhaseRange& range : layer.backward_pipelines) {
        if (range.begin >= place) range.begin += size;
        if (range.end > place) range.end += size;
    }
    for (PhaseRange& range : pipelines) {
        range.begin += place;
        range.end += place;
    }
    // Pipelines stand in the order of their phases.
    const auto later =
        std::find_if(layer.backward_pipelines.begin(), layer.backward_pipelines.end(),
                     [&](const PhaseRange& r) { return r.begin >= place; });
    layer.backward_pipelines.insert(later, pipelines.begin(), pipelines.end());
    layer.backward.insert(layer.backward.begin() + place, std::make_move_iterator(phases.begin()),
                          std::make_move_iterator(phases.end()));
}

PhaseWork again(PhaseWork phase) {
    phase.pass = Pass::backward;
    phase.again = true;
    return phase;
}

// Forward phases [first, end) run again before their backward, exchanges and chunks included; the
// counts are still known. What follows them, `end` to the last, begins the backward pass.
void repeat_phases(std::size_t first, std::size_t end, LayerWork& layer) {
    std::vector<PhaseWork> phases;
    std::vector<int> place;  // [forward phase, or their end] in `phases`
    for (std::size_t i = 0; i < layer.forward.size(); ++i) {
        place.push_back(static_cast<int>(phases.size()));
        const bool counts = std::holds_alternative<CountExchangeWork>(layer.forward[i].work);
        if (i >= first && i < end && !counts) phases.push_back(again(layer.forward[i]));
    }
    place.push_back(static_cast<int>(phases.size()));
    std::vector<PhaseRange> pipelines;
    for (const PhaseRange& range : layer.forward_pipelines)
        pipelines.push_back({place[static_cast<std::size_t>(range.begin)],
                             place[static_cast<std::size_t>(range.end)]});
    insert(layer.forward.size() - end, std::move(phases), std::move(pipelines), layer);
}

// What ranks that share heads, widths or a sequence exchange around a phase.
bool is_around(const PhaseWork& phase) {
    return phase.phase == Phase::tp_all_gather || phase.phase == Phase::tp_reduce_scatter ||
           phase.phase == Phase::tp_all_reduce || phase.phase == Phase::cp_exchange;
}

// Where the backward of `phase` begins, with what it exchanges first.
std::size_t backward_of(Phase phase, const LayerWork& layer) {
    const auto found =
        std::find_if(layer.backward.begin(), layer.backward.end(),
                     [&](const PhaseWork& p) { return p.phase == phase && !p.again; });
    auto at = static_cast<std::size_t>(found - layer.backward.begin());
    if (found == layer.backward.end()) return at;
    while (at > 0 && is_around(layer.backward[at - 1]) && !layer.backward[at - 1].again) --at;
    return at;
}

// Forward from `first` to `last`, and what is exchanged around them, runs again before the backward
// of `last`.
void repeat(Phase first, Phase last, LayerWork& layer) {
    const std::vector<PhaseWork>& forward = layer.forward;
    const auto is = [](Phase wanted) {
        return [wanted](const PhaseWork& p) { return p.phase == wanted; };
    };
    const auto end = std::find_if(forward.begin(), forward.end(), is(last));
    if (end == forward.end()) return;
    auto from = std::find_if(forward.begin(), end, is(first));
    auto to = end + 1;
    // Before the first: what comes into it, and not the sum that the phase before it ends with.
    while (from != forward.begin() && is_around(*(from - 1)) &&
           (from - 1)->phase != Phase::tp_reduce_scatter &&
           (from - 1)->phase != Phase::tp_all_reduce)
        --from;
    while (to != forward.end() && is_around(*to) && to->phase != Phase::tp_all_gather) ++to;
    std::vector<PhaseWork> phases;
    std::transform(from, to, std::back_inserter(phases), again);
    insert(backward_of(last, layer), std::move(phases), {}, layer);
}

// One kernel that makes a part of a phase's output again.
void add_part(Phase phase, const KernelWork& work, Phase before, LayerWork& layer) {
    const std::size_t at = backward_of(before, layer);
    if (at == layer.backward.size()) return;
    insert(at, {again(compute_phase(phase, Pass::backward, {work}))}, {}, layer);
}

// Queries, keys and values from the latents.
std::vector<PhaseWork> up_projections(const StepShape& s) {
    const Attention& a = s.scenario.model.attention;
    const LatentAttention& l = *a.latent;
    const double qk = l.nope_width + l.rope_width, heads = a.num_heads / double(s.mesh.tp);
    const double from = l.query_rank > 0 ? l.query_rank : s.hidden, tokens = s.group_tokens;
    const double rope = 2.0 * tokens * 2.0 * heads * qk * s.element;
    std::vector<PhaseWork> phases;
    gather_rows(s, Pass::forward, gathered_width(s.scenario.model), phases);
    phases.push_back(
        compute_phase(Phase::attention_qkv, Pass::backward,
                      {gemm(tokens, heads * qk, from, s.element),
                       gemm(tokens, heads * (l.nope_width + l.value_width), l.kv_rank, s.element),
                       move(Kernel::streaming, rope)}));
    std::transform(phases.begin(), phases.end(), phases.begin(), again);
    return phases;
}

void add_attention_parts(const StepShape& s, LayerWork& layer) {
    const Recompute& recompute = s.plan.recompute;
    // A norm alone reads its input and writes the normed row.
    const KernelWork norm = move(Kernel::streaming, 2.0 * s.tokens * s.hidden * s.element);
    if (recompute.has(Module::layernorm)) add_part(Phase::norm, norm, Phase::attention_qkv, layer);
    if (recompute.has(Module::mla_up_proj) && s.scenario.model.attention.latent)
        insert(backward_of(Phase::attention_core, layer), up_projections(s), {}, layer);
    if (recompute.has(Module::core_attn))
        repeat(Phase::attention_core, Phase::attention_core, layer);
    if (recompute.has(Module::layernorm))
        insert(0, {again(compute_phase(Phase::norm, Pass::backward, {norm}))}, {}, layer);
}

// The activation function: pre-activations read, hidden rows written.
KernelWork activation(const StepShape& s, double rows, double width) {
    const double moved = is_gated(s.scenario.model.moe.activation) ? 3.0 : 2.0;
    return move(Kernel::streaming,
                moved * rows * width * s.element + clamp_bytes(s, Pass::forward, rows * width));
}

void add_moe_parts(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    const Recompute& recompute = s.plan.recompute;
    const Moe& moe = s.scenario.model.moe;
    const bool activations = recompute.has(Module::moe_act);
    // The fused experts of heads compute their hidden rows again in any case.
    if (!s.plan.is_head_parallel()) {
        if (recompute.has(Module::experts))
            repeat(Phase::regroup, Phase::expert, layer);
        else if (activations)
            add_part(Phase::expert, activation(s, load.rows_max, s.layout.expert_width),
                     Phase::expert, layer);
    }
    if (moe.num_shared_experts == 0) return;
    if (recompute.has(Module::shared_experts))
        repeat(Phase::shared_expert, Phase::shared_expert, layer);
    else if (activations)
        add_part(
            Phase::shared_expert,
            activation(s, s.group_tokens,
                       double{1} * moe.num_shared_experts * moe.shared_expert_width / s.mesh.tp),
            Phase::shared_expert, layer);
}

}  // namespace

bool recomputes_layer(const ModelSpec& model, const Plan& plan, int layer) {
    const Recompute& recompute = plan.recompute;
    if (!recompute.is_full()) return false;
    if (recompute.method == RecomputeMethod::uniform) return true;
    // Of `block` Megatron leaves the layers of multi-token prediction as they are.
    if (model.is_mtp_layer(layer)) return false;
    for (const PipelineStage& stage : pipeline_stages(model, plan.parallel)) {
        if (layer >= stage.first_layer && layer < stage.first_layer + stage.num_layers)
            return layer - stage.first_layer < recompute.num_layers;
    }
    return false;
}

void add_recompute(const StepShape& s, const GroupLoad* load, int index, const ForwardParts& parts,
                   LayerWork& layer) {
    if (recomputes_layer(s.scenario.model, s.plan, index)) {
        repeat_phases(parts.input, layer.forward.size(), layer);
        return;
    }
    const Recompute& recompute = s.plan.recompute;
    if (recompute.selected() == 0u) return;
    if (recompute.has(load != nullptr ? Module::moe : Module::mlp))
        repeat_phases(parts.feed_forward, layer.forward.size() - parts.behind, layer);
    else if (load != nullptr)
        add_moe_parts(s, *load, layer);
    add_attention_parts(s, layer);
}

}  // namespace headway::inline workload
