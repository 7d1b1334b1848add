#include "models/workload/saved_tensors.hpp"

#include <algorithm>
#include <variant>

#include "models/workload/layout.hpp"

namespace headway::inline workload {
namespace {

using Module = RecomputeModule;
using To = OffloadModule;

constexpr OffloadModules by(To module) {
    return offload_modules(module);
}
// What the experts keep goes module by module, or at once where their operators are fused.
constexpr OffloadModules by_experts(OffloadModules modules) {
    return modules | offload_modules(To::fused_group_mlp);
}

struct Writer {
    const ModelSpec& model;
    const Plan& plan;
    double b;           // bytes of an element
    double own, group;  // tokens outside of attention and feed-forward, and in them
    double t;           // tensor-parallel ranks, which share heads and widths out
    std::vector<SavedTensor> out{};

    void add(std::string_view name, LayerPart part, double bytes, RecomputeModules unless = 0u,
             OffloadModules by = 0u, bool by_layers = true) {
        if (bytes > 0.0) out.push_back({name, part, bytes, unless, by, by_layers});
    }
};

constexpr LayerPart kAttention = LayerPart::attention, kMoe = LayerPart::moe;

void add_latent_attention(const LatentAttention& l, double heads, Writer& w) {
    constexpr RecomputeModules up = modules(Module::mla_up_proj);
    const double rows = w.own * w.b, head_rows = w.group * w.b * heads;
    constexpr OffloadModules to_qkv = by(To::qkv_linear), to_core = by(To::core_attn);
    w.add("query latent", kAttention, l.query_rank * rows, 0u, to_qkv);
    w.add("query latent, normed", kAttention, l.query_rank * rows, 0u, to_qkv);
    w.add("key/value latent", kAttention, l.kv_rank * rows, 0u, to_qkv);
    w.add("key/value latent, normed", kAttention, l.kv_rank * rows, 0u, to_qkv);
    w.add("queries", kAttention, head_rows * (l.nope_width + l.rope_width), up, to_core);
    w.add("keys", kAttention, head_rows * (l.nope_width + l.rope_width), up, to_core);
    w.add("values", kAttention, head_rows * l.value_width, up, to_core);
}

void add_attention(Writer& w) {
    const Attention& a = w.model.attention;
    constexpr RecomputeModules norm = modules(Module::layernorm);
    const double row = w.own * w.model.hidden * w.b;
    const double heads = a.num_heads / w.t, kv_heads = std::max(1.0, a.num_kv_heads / w.t);
    const double value = a.latent ? a.latent->value_width : a.head_width;
    constexpr OffloadModules to_core = by(To::core_attn);
    w.add("layer input", kAttention, row, 0u, by(To::attn_norm));
    w.add("attention norm", kAttention, row, norm, by(To::qkv_linear));
    if (a.latent) {
        add_latent_attention(*a.latent, heads, w);
    } else {
        w.add("queries", kAttention, w.group * heads * a.head_width * w.b, 0u, to_core);
        w.add("keys", kAttention, w.group * kv_heads * a.head_width * w.b, 0u, to_core);
        w.add("values", kAttention, w.group * kv_heads * a.head_width * w.b, 0u, to_core);
    }
    w.add("attention output", kAttention, w.group * heads * value * w.b, 0u, by(To::attn_proj));
    w.add("log-sum-exp, fp32", kAttention, w.group * heads * 4.0, modules(Module::core_attn));
    w.add("residual", kAttention, row, 0u, by(To::mlp_norm));
    w.add("feed-forward norm", kAttention, row, norm);
}

// First what a recomputed layer starts from.
void add_mtp(Writer& w) {
    const double row = w.own * w.model.hidden * w.b;
    w.add("hidden row and embedding", kAttention, 2.0 * row);
    w.add("both normed", kAttention, 2.0 * row);
    w.add("output and its norm", kAttention, 2.0 * row);
}

void add_dense(Writer& w) {
    constexpr RecomputeModules mlp = modules(Module::mlp);
    const double row = w.group * w.model.dense_width / w.t * w.b;
    w.add("pre-activations", LayerPart::dense, row * (is_gated(w.model.dense_activation) ? 2 : 1),
          mlp);
    w.add("hidden rows", LayerPart::dense, row, mlp);
}

void add_shared_experts(Writer& w) {
    const Moe& moe = w.model.moe;
    const double row = w.group * moe.num_shared_experts * moe.shared_expert_width / w.t * w.b;
    w.add("shared experts, pre-activations", kMoe, row * (is_gated(moe.activation) ? 2 : 1),
          modules(Module::shared_experts, Module::moe));
    w.add("shared experts, hidden rows", kMoe, row,
          modules(Module::moe_act, Module::shared_experts, Module::moe));
}

void add_expert_parallel(const ExpertLayout& layout, const GroupLoad& load, Writer& w) {
    constexpr RecomputeModules moe = modules(Module::moe);
    const double rows = load.rows_max, f = layout.expert_width, width = layout.width * w.b;
    // Of Transformer Engine's fused permutation: probabilities in bf16, two int32 an expert.
    // Gathered tokens are those of all ranks, for the experts of one.
    const double tokens = w.own * (layout.gathers_tokens ? layout.expert_tensor : 1);
    w.add("router probabilities", kMoe, tokens * layout.router.num_experts * 2.0, moe, 0u, false);
    w.add("map of rows", kMoe, tokens * layout.router.num_experts * 8.0, moe, 0u, false);
    w.add("expert inputs", kMoe, rows * width, moe, by_experts(by(To::expert_fc1)));
    w.add("pre-activations", kMoe, rows * f * w.b * (is_gated(w.model.moe.activation) ? 2 : 1),
          modules(Module::experts, Module::moe), by_experts(by(To::moe_act)));
    if (w.plan.implementation == Implementation::megatron && !fuses_expert_operators(w.plan) &&
        w.model.moe.activation == Activation::quick_geglu)
        w.add("clamped pre-activations", kMoe, rows * f * w.b * 2,
              modules(Module::moe_act, Module::experts, Module::moe), by(To::moe_act));
    w.add("hidden rows", kMoe, rows * f * w.b,
          modules(Module::moe_act, Module::experts, Module::moe), by_experts(0u));
    // Gates applied inside the activation need no copy that came back; applied to the copies
    // themselves, as headway's own step does, they do.
    if (w.plan.implementation == Implementation::unfused ||
        w.plan.implementation == Implementation::headway)
        w.add("returned copies", kMoe, load.copies_sent * width, moe);
    if (layout.width != w.model.hidden)
        w.add("latent output", kMoe, w.own * layout.width * w.b, moe);
}

// The fused experts compute their hidden rows again.
void add_head_parallel(const HeadParallel& hp, const ExpertLayout& layout, const GroupLoad& load,
                       Writer& w) {
    constexpr RecomputeModules moe = modules(Module::moe);
    const double sub_tokens = w.own * hp.num_heads * layout.width * w.b;
    w.add("scattered sub-tokens", kMoe, sub_tokens, moe, by(To::expert_fc1));
    // Expert, gate and row of a choice; choice and gate of a row: int32 and fp32.
    w.add("choices and their rows", kMoe, 20.0 * w.own * hp.num_heads * hp.top_k, moe);
    if (layout.group_size > 1)
        w.add("copies inside heads", kMoe, load.copies_received * layout.width * w.b, moe,
              by(To::expert_fc1));
    w.add("gathered heads", kMoe, sub_tokens, moe);
}

}  // namespace

std::vector<SavedTensor> saved_tensors(const Scenario& scenario, const Plan& plan,
                                       const GroupLoad* load, bool mtp) {
    const RankTokens tokens = rank_tokens(scenario, plan);
    Writer w{.model = scenario.model,
             .plan = plan,
             .b = bytes_per_element(scenario.model.dtype),
             .own = static_cast<double>(tokens.own),
             .group = static_cast<double>(tokens.group),
             .t = static_cast<double>(plan.parallel.tensor_model_parallel_size)};
    if (mtp) add_mtp(w);
    add_attention(w);
    if (load == nullptr) {
        add_dense(w);
        return std::move(w.out);
    }
    add_shared_experts(w);
    const ExpertLayout layout = expert_layout(scenario, plan);
    if (const auto* hp = std::get_if<HeadParallel>(&plan.layer))
        add_head_parallel(*hp, layout, *load, w);
    else
        add_expert_parallel(layout, *load, w);
    return std::move(w.out);
}

bool is_offloaded(const SavedTensor& tensor, const Plan& plan, bool whole) {
    if ((tensor.unless & plan.recompute.selected()) != 0u) return false;
    return whole ? tensor.by_layers : (tensor.by & plan.offload.modules) != 0u;
}

double offloaded_by_layer(const std::vector<SavedTensor>& tensors, const ModelSpec& model,
                          const Plan& plan, bool moe) {
    const int layers = plan.offload.cpu_offloading_num_layers;
    double sum = 0.0;
    for (const SavedTensor& tensor : tensors)
        sum += is_offloaded(tensor, plan, layers > 0) ? tensor.bytes : 0.0;
    if (layers == 0) return sum;
    double moved = 0.0, all = 0.0;  // layers of the kind
    for (int layer = 0; layer < model.num_layers; ++layer) {
        if (model.is_moe_layer(layer) != moe) continue;
        moved += layer < layers ? 1.0 : 0.0;
        all += 1.0;
    }
    return sum * moved / all;
}

LayerMemory layer_memory(const std::vector<SavedTensor>& tensors, RecomputeModules selected) {
    LayerMemory sum;
    std::array<double, kRecomputeModuleNames.size()> dropped{};
    for (const SavedTensor& tensor : tensors) {
        sum.all += tensor.bytes;
        if (&tensor == &tensors.front()) sum.input = tensor.bytes;
        const RecomputeModules by = tensor.unless & selected;
        if (by == 0u) sum.kept[static_cast<std::size_t>(tensor.part)] += tensor.bytes;
        for (std::size_t m = 0; m < dropped.size(); ++m)
            dropped[m] += (by >> m & 1u) != 0u ? tensor.bytes : 0.0;
    }
    sum.again = *std::max_element(dropped.begin(), dropped.end());
    return sum;
}

LayerMemory layer_memory(const std::vector<SavedTensor>& tensors, const Plan& plan, bool whole) {
    LayerMemory sum = layer_memory(tensors, plan.recompute.selected());
    for (const SavedTensor& tensor : tensors) {
        if (!is_offloaded(tensor, plan, whole)) continue;
        sum.kept[static_cast<std::size_t>(tensor.part)] -= tensor.bytes;
        sum.offloaded += tensor.bytes;
    }
    return sum;
}

}  // namespace headway::inline workload
