// What frameworks move beyond the kernels of layers/ and dense_phases.cpp, in bytes an
// element at the rate of a stream; docs/reference/model.md, "Frameworks", says where they come
// from.
#include <optional>

#include "models/workload/phases.hpp"

namespace headway::inline workload {
namespace {

enum class Elements { rotated, rows, logits, tokens, table };

// Bytes an element.
struct PassBytes {
    double forward, backward;
    double of(Pass pass) const { return pass == Pass::forward ? forward : backward; }
};

struct Moved {
    Elements elements;
    PassBytes bytes;
};

// Plain PyTorch, operator by operator: rotary embedding in fp32 out of six of them, rows weighed
// and added by index (and so the gradients of rows that were gathered), a loss over fp32 logits.
std::optional<Moved> moved_by_torch(Phase phase) {
    switch (phase) {
        case Phase::norm:
            return Moved{Elements::tokens, {0, 8}};
        case Phase::attention_qkv:
            return Moved{Elements::rotated, {73, 68}};
        case Phase::route:
            return Moved{Elements::tokens, {6, 3}};
        case Phase::permute:
            return Moved{Elements::rows, {0, 29}};
        case Phase::regroup:
            return Moved{Elements::rows, {2, 31}};
        case Phase::ungroup:
            return Moved{Elements::rows, {0, 31}};
        case Phase::unpermute:
            return Moved{Elements::rows, {52, 43}};
        case Phase::loss:
            return Moved{Elements::logits, {22, 21}};
        default:
            return std::nullopt;
    }
}

// Megatron-LM: the loss of TransformerEngine; the table's gradient, written whole in every
// micro-batch and added to the fp32 one.
std::optional<Moved> moved_by_megatron(Phase phase) {
    if (phase == Phase::loss) return Moved{Elements::logits, {9, 7}};
    if (phase == Phase::embed) return Moved{Elements::table, {0, 12}};
    return std::nullopt;
}

// Megatron-LM d98e8a6, core/transformer/moe/experts.py, core/fusions/fused_bias_geglu.py and
// fused_bias_swiglu.py, of EP's experts; what such operators are worth on H200 is measured
// (docs/results/validation_host_experts.csv). The halves of GPT-OSS's activation are clamped and
// joined before it, and the gates' gradient is a sum over the hidden rows of a gated one, in bytes
// an element of these; a bias times its gate is added in fp32, expert by expert, behind the second
// product, in bytes an element of a row.
constexpr PassBytes kClamp{31, 63}, kGatesGradient{0, 16}, kExpertBias{47, 69};

double elements(const StepShape& s, Elements of, double rows) {
    const Attention& a = s.scenario.model.attention;
    switch (of) {
        case Elements::rotated:
            return s.group_tokens * (a.num_heads + a.num_kv_heads) / s.mesh.tp *
                   (a.latent ? a.latent->rope_width : a.head_width);
        case Elements::rows:
            return rows * s.layout.width;
        case Elements::logits:
            return s.group_tokens * static_cast<double>(s.scenario.model.vocab_size) / s.mesh.tp;
        case Elements::tokens:
            return s.tokens * s.hidden;
        case Elements::table:
            return static_cast<double>(s.scenario.model.vocab_size) * s.hidden / s.mesh.tp;
    }
    return 0.0;
}

double expert_operator_bytes(const StepShape& s, Pass pass, double rows) {
    const bool apart = s.plan.implementation == Implementation::megatron &&
                       !s.plan.is_head_parallel() && !fuses_expert_operators(s.plan);
    if (!apart) return 0.0;
    const double biased = s.scenario.model.moe.add_bias_linear ? kExpertBias.of(pass) : 0.0;
    const double gates = is_gated(s.scenario.model.moe.activation) ? kGatesGradient.of(pass) : 0.0;
    const double hidden = rows * s.layout.expert_width;
    return clamp_bytes(s, pass, hidden) + gates * hidden + biased * rows * s.layout.width;
}

}  // namespace

double clamp_bytes(const StepShape& s, Pass pass, double hidden) {
    const bool clamps = s.plan.implementation == Implementation::megatron &&
                        s.scenario.model.moe.activation == Activation::quick_geglu;
    return clamps ? kClamp.of(pass) * hidden : 0.0;
}

void add_framework_operators(const StepShape& s, const MoeRows& rows, std::span<PhaseWork> phases) {
    const Implementation framework = s.plan.implementation;
    if (!launches_eagerly(framework)) return;
    for (PhaseWork& phase : phases) {
        const std::optional<Moved> moved = framework == Implementation::torch
                                               ? moved_by_torch(phase.phase)
                                               : moved_by_megatron(phase.phase);
        auto* compute = std::get_if<ComputeWork>(&phase.work);
        if (compute == nullptr) continue;
        const Pass pass = phase.kernel_pass();
        double bytes = 0.0;
        if (moved) bytes = moved->bytes.of(pass) * elements(s, moved->elements, rows.sent);
        if (phase.phase == Phase::expert) bytes += expert_operator_bytes(s, pass, rows.expert);
        if (bytes == 0.0) continue;
        compute->add(move(Kernel::streaming, bytes));
        // A curve of headway's own phase holds none of this.
        compute->shape.reset();
    }
}

double framework_update_bytes(const StepShape& s, double held, double own) {
    if (s.plan.implementation != Implementation::megatron) return 0.0;
    const double gradient = bytes_per_element(s.plan.main_grads_dtype),
                 master = bytes_per_element(s.plan.main_params_dtype);
    const double buffer = gradient + 2.0 * gradient;  // zeroed; scaled by 1 / ranks
    // The norm reads, clipping reads and writes, masters are copied to parameters.
    const double shard = gradient + 2.0 * gradient + master + s.element;
    return buffer * held + shard * own;
}

}  // namespace headway::inline workload
