#include "models/workload/recompute.hpp"

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <utility>

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

// Forward from phase `first` on runs again before backward, exchanges and chunks included; the
// counts are still known.
void repeat_from(std::size_t first, LayerWork& layer) {
    std::vector<PhaseWork> phases;
    std::vector<int> place;  // [forward phase, or their end] in `phases`
    for (std::size_t i = 0; i < layer.forward.size(); ++i) {
        place.push_back(static_cast<int>(phases.size()));
        if (i >= first && layer.forward[i].phase != Phase::count_exchange)
            phases.push_back(again(layer.forward[i]));
    }
    place.push_back(static_cast<int>(phases.size()));
    std::vector<PhaseRange> pipelines;
    for (const PhaseRange& range : layer.forward_pipelines)
        pipelines.push_back({place[static_cast<std::size_t>(range.begin)],
                             place[static_cast<std::size_t>(range.end)]});
    insert(0, std::move(phases), std::move(pipelines), layer);
}

// Where the backward of `phase` stands: behind what is repeated of it.
std::size_t backward_of(Phase phase, const LayerWork& layer) {
    const auto found =
        std::find_if(layer.backward.begin(), layer.backward.end(),
                     [&](const PhaseWork& p) { return p.phase == phase && !p.again; });
    return static_cast<std::size_t>(found - layer.backward.begin());
}

// The last of these phases, and those before it that make its input, run again before its backward.
void repeat(std::initializer_list<Phase> wanted, LayerWork& layer) {
    std::vector<PhaseWork> phases;
    for (const PhaseWork& phase : layer.forward) {
        if (std::find(wanted.begin(), wanted.end(), phase.phase) != wanted.end())
            phases.push_back(again(phase));
    }
    const std::size_t at = backward_of(*(wanted.end() - 1), layer);
    if (at < layer.backward.size()) insert(at, std::move(phases), {}, layer);
}

// One kernel that makes a part of a phase's output again.
void add_part(Phase phase, const KernelWork& work, Phase before, LayerWork& layer) {
    const std::size_t at = backward_of(before, layer);
    if (at == layer.backward.size()) return;
    insert(at, {again(compute_phase(phase, Pass::backward, {work}))}, {}, layer);
}

void add_attention_parts(const StepShape& s, LayerWork& layer) {
    const Recompute& recompute = s.plan.recompute;
    const Attention& a = s.scenario.model.attention;
    const double row = s.tokens * s.hidden * s.element;
    // A norm alone reads its input and writes the normed row.
    const KernelWork norm = move(Kernel::streaming, 2.0 * row);
    if (recompute.has(Module::layernorm)) add_part(Phase::norm, norm, Phase::attention_qkv, layer);
    if (recompute.has(Module::mla_up_proj) && a.latent) {
        const LatentAttention& l = *a.latent;
        const double qk = l.nope_width + l.rope_width, heads = a.num_heads;
        const double from = l.query_rank > 0 ? l.query_rank : s.hidden;
        const double rope = 2.0 * s.tokens * 2.0 * heads * qk * s.element;
        const PhaseWork up = again(compute_phase(
            Phase::attention_qkv, Pass::backward,
            {gemm(s.tokens, heads * qk, from, s.element),
             gemm(s.tokens, heads * (l.nope_width + l.value_width), l.kv_rank, s.element),
             move(Kernel::streaming, rope)}));
        insert(backward_of(Phase::attention_core, layer), {up}, {}, layer);
    }
    if (recompute.has(Module::core_attn))
        repeat({Phase::cp_exchange, Phase::attention_core}, layer);
    if (recompute.has(Module::layernorm))
        insert(0, {again(compute_phase(Phase::norm, Pass::backward, {norm}))}, {}, layer);
}

// The activation function: pre-activations read, hidden rows written.
KernelWork activation(const StepShape& s, double rows, double width) {
    const double moved = is_gated(s.scenario.model.moe.activation) ? 3.0 : 2.0;
    return move(Kernel::streaming, moved * rows * width * s.element);
}

void add_moe_parts(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    const Recompute& recompute = s.plan.recompute;
    const Moe& moe = s.scenario.model.moe;
    const bool activations = recompute.has(Module::moe_act);
    // The fused experts of heads compute their hidden rows again in any case.
    if (!s.plan.is_head_parallel()) {
        if (recompute.has(Module::experts))
            repeat({Phase::regroup, Phase::expert}, layer);
        else if (activations)
            add_part(Phase::expert, activation(s, load.rows_max, s.layout.expert_width),
                     Phase::expert, layer);
    }
    if (moe.num_shared_experts == 0) return;
    if (recompute.has(Module::shared_experts))
        repeat({Phase::shared_expert}, layer);
    else if (activations)
        add_part(
            Phase::shared_expert,
            activation(s, s.tokens, double{1} * moe.num_shared_experts * moe.shared_expert_width),
            Phase::shared_expert, layer);
}

}  // namespace

bool recomputes_layer(const ModelSpec& model, const Plan& plan, int layer) {
    const Recompute& recompute = plan.recompute;
    if (!recompute.is_full()) return false;
    if (recompute.method == RecomputeMethod::uniform) return true;
    for (const PipelineStage& stage : pipeline_stages(model, plan.parallel)) {
        if (layer >= stage.first_layer && layer < stage.first_layer + stage.num_layers)
            return layer - stage.first_layer < recompute.num_layers;
    }
    return false;
}

void add_recompute(const StepShape& s, const GroupLoad* load, int index, std::size_t feed_forward,
                   LayerWork& layer) {
    if (recomputes_layer(s.scenario.model, s.plan, index)) {
        repeat_from(0, layer);
        return;
    }
    const Recompute& recompute = s.plan.recompute;
    if (recompute.selected() == 0u) return;
    if (recompute.has(load != nullptr ? Module::moe : Module::mlp))
        repeat_from(feed_forward, layer);
    else if (load != nullptr)
        add_moe_parts(s, *load, layer);
    add_attention_parts(s, layer);
}

}  // namespace headway::inline workload
