// Embedding, attention, dense feed-forward, head and loss.
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "models/workload/phases.hpp"

namespace headway::inline workload {
namespace {

// Mean number of keys a query sees: S/2 when causal, w (1 - w / 2S) with a window of w, and within
// chunks of w that of each chunk, w/2, and of the last one's r tokens: (S - r) w/2S + r^2/2S.
double mean_context(const Attention& attention, double sequence, int layer) {
    if (!attention.has_window(layer) || *attention.window >= sequence) return sequence / 2.0;
    const double w = *attention.window, rest = std::fmod(sequence, w);
    if (attention.window_kind == WindowKind::chunked)
        return ((sequence - rest) * w + rest * rest) / (2.0 * sequence);
    return w * (1.0 - w / (2.0 * sequence));
}

struct AttentionWidths {
    double query_key, value;  // per head
};

AttentionWidths widths(const Attention& a) {
    if (!a.latent) return {static_cast<double>(a.head_width), static_cast<double>(a.head_width)};
    return {static_cast<double>(a.latent->nope_width + a.latent->rope_width),
            static_cast<double>(a.latent->value_width)};
}

// FLOPs of scores and weighted values, one token.
double core_flops(const Scenario& scenario, int layer) {
    const Attention& a = scenario.model.attention;
    const AttentionWidths w = widths(a);
    return 2.0 * mean_context(a, scenario.batch.sequence_length, layer) * a.num_heads *
           (w.query_key + w.value);
}

double projection_parameters_in(const ModelSpec& model) {
    const Attention& a = model.attention;
    const double d = model.hidden, heads = a.num_heads;
    const double gate = a.output_gate ? heads : 0.0;
    if (!a.latent) return d * a.head_width * (heads + gate + 2.0 * a.num_kv_heads);
    const LatentAttention& l = *a.latent;
    const double query = heads * (l.nope_width + l.rope_width);
    return (l.query_rank > 0 ? l.query_rank * (d + query) : d * query) +
           d * (l.kv_rank + l.rope_width) + l.kv_rank * heads * (l.nope_width + l.value_width) +
           gate * d * l.value_width;
}

double projection_parameters_out(const ModelSpec& model) {
    return model.attention.num_heads * widths(model.attention).value * model.hidden;
}

// FlashAttention 2 over cuDNN's kernels on H200, forward and backward, eight shapes of heads of
// 128: 1.33 to 1.82 (docs/results/generated/validation_host.md).
constexpr double kFlashAttention2 = 1.5;

}  // namespace

// What tensor-parallel ranks gather before their heads: the layer's input, or, where latent
// attention projects down on every rank's own tokens, the latents and the shared rotary key
// (Megatron-LM, core/transformer/multi_latent_attention.py).
double gathered_width(const ModelSpec& model) {
    const auto& latent = model.attention.latent;
    if (!latent) return model.hidden;
    const double query = latent->query_rank > 0 ? latent->query_rank : model.hidden;
    return query + latent->kv_rank + latent->rope_width;
}

PhaseWork compute_phase(Phase phase, Pass pass, std::initializer_list<KernelWork> kernels) {
    ComputeWork work;
    for (const KernelWork& k : kernels) work.add(k);
    return {phase, pass, work};
}

KernelWork gemm(double m, double n, double k, double element, int count) {
    return {.kernel = Kernel::dense_gemm,
            .flops = 2.0 * m * n * k * count * flop,
            .bytes = (m * k + k * n + m * n) * element * count * byte,
            .parameters = count == 2 ? k * n : 0.0,
            .size = 2.0 * m * n * k,
            .width = std::min({m, n, k}),
            .launches = count};
}

KernelWork move(Kernel kernel, double bytes, int launches) {
    return {
        .kernel = kernel, .bytes = bytes * byte, .size = bytes / launches, .launches = launches};
}

double attention_flops_per_token(const Scenario& scenario, int layer) {
    const ModelSpec& model = scenario.model;
    return 2.0 * (projection_parameters_in(model) + projection_parameters_out(model)) +
           core_flops(scenario, layer);
}

void add_embedding(const StepShape& s, std::vector<PhaseWork>& phases) {
    // A rank of t finds a t-th of the group's tokens in its part of the table; the others' rows are
    // zero until the sum.
    const double row = s.group_tokens * s.hidden * s.element, found = row / s.mesh.tp;
    phases.push_back(
        compute_phase(Phase::embed, Pass::forward, {move(Kernel::gather, found + row)}));
    scatter_sum(s, Pass::forward, s.hidden, phases);
    // Backward adds rows into the fp32 gradient of the table: read the gradient, read and write the
    // rows.
    gather_rows(s, Pass::backward, s.hidden, phases);
    phases.push_back(
        compute_phase(Phase::embed, Pass::backward, {move(Kernel::gather, row + 4.0 * found)}));
}

void add_head_and_loss(const StepShape& s, std::vector<PhaseWork>& phases) {
    const double tokens = s.group_tokens,
                 vocab = static_cast<double>(s.scenario.model.vocab_size) / s.mesh.tp,
                 logits = tokens * vocab * s.element;
    const double row = s.tokens * s.hidden * s.element;
    const int predictions = 1 + s.scenario.model.mtp_num_layers;  // each with its logits
    phases.push_back(
        compute_phase(Phase::norm, Pass::forward, {move(Kernel::streaming, 2.0 * row)}));
    for (int i = 0; i < predictions; ++i) {
        gather_rows(s, Pass::forward, s.hidden, phases);
        phases.push_back(compute_phase(Phase::lm_head, Pass::forward,
                                       {gemm(tokens, vocab, s.hidden, s.element)}));
        // Loss: maximum and sum (one read), then the gradient in place (read, write).
        phases.push_back(
            compute_phase(Phase::loss, Pass::forward, {move(Kernel::streaming, logits)}));
        add_loss_sums(s, phases);
    }
    for (int i = 0; i < predictions; ++i) {
        phases.push_back(
            compute_phase(Phase::loss, Pass::backward, {move(Kernel::streaming, 2.0 * logits)}));
        gather_rows(s, Pass::backward, s.hidden, phases);  // again, for the weights' gradient
        phases.push_back(compute_phase(Phase::lm_head, Pass::backward,
                                       {gemm(tokens, vocab, s.hidden, s.element, 2)}));
        scatter_sum(s, Pass::backward, s.hidden, phases);
    }
    phases.push_back(
        compute_phase(Phase::norm, Pass::backward, {move(Kernel::streaming, 4.0 * row)}));
}

void add_attention(const StepShape& s, int layer, Pass pass, std::vector<PhaseWork>& phases) {
    const ModelSpec& model = s.scenario.model;
    const Attention& a = model.attention;
    const AttentionWidths w = widths(a);
    // Heads are shared out over the tensor-parallel ranks, each with all tokens of the group.
    const double t = s.mesh.tp, tokens = s.group_tokens;
    const double heads = a.num_heads / t, kv_heads = a.num_kv_heads / t,
                 out_width = heads * w.value;
    const double row = s.tokens * s.hidden * s.element;
    const bool forward = pass == Pass::forward;
    // Latent attention runs its projections as several GEMMs; they are priced as one of the same
    // parameter count.
    const double in_width = projection_parameters_in(model) / s.hidden / t;
    const int low_rank_gemms = a.latent ? (a.latent->query_rank > 0 ? 4 : 3) : 1;
    KernelWork in = gemm(tokens, in_width, s.hidden, s.element, forward ? 1 : 2);
    in.size /= low_rank_gemms;
    in.launches *= low_rank_gemms;
    const double rope = 2.0 * tokens * (heads + kv_heads) * w.query_key * s.element;
    const PhaseWork qkv =
        compute_phase(Phase::attention_qkv, pass, {in, move(Kernel::streaming, rope)});
    const double flops = tokens * core_flops(s.scenario, layer) / t * (forward ? 1.0 : 2.5);
    const double io =
        tokens * (heads * w.query_key + kv_heads * (w.query_key + w.value) + out_width) * s.element;
    const PhaseWork core = compute_phase(
        Phase::attention_core, pass,
        {{.kernel = Kernel::attention,
          .flops = flops * flop,
          .bytes = (forward ? 1.0 : 2.0) * io * byte,
          // That of a causal sequence whose tokens see as many keys.
          .size = 2.0 * mean_context(model.attention,
                                     static_cast<double>(s.scenario.batch.sequence_length), layer),
          .width = w.query_key,
          .launches = forward ? 1 : 2,
          .stretch = s.plan.attention_backend == AttentionBackend::flash ? kFlashAttention2 : 1.0,
          .dtype = s.plan.precision.attention ? std::optional(Dtype::fp8) : std::nullopt}});
    const PhaseWork out =
        compute_phase(Phase::attention_out, pass,
                      {gemm(tokens, s.hidden, out_width, s.element, forward ? 1 : 2)});
    // Two fused residual-add-and-norms a layer: read x and the branch, write the residual and the
    // normed row; backward reads two gradients and the saved row twice over, and writes one.
    const PhaseWork norm =
        compute_phase(Phase::norm, pass,
                      {move(Kernel::streaming, (forward ? 8.0 : 10.0) * row, forward ? 2 : 4)});
    const double kv_width = (a.latent ? heads : kv_heads) * (w.query_key + w.value);
    const CoreWidths core_widths{
        .query = heads * w.query_key, .key_value = kv_width, .out = out_width};
    const bool buffered = overlaps_tp(s);
    if (forward) {
        phases.push_back(norm);
        gather_rows(s, pass, gathered_width(model), phases, buffered);
        phases.push_back(qkv);
        exchange_into_core(s, pass, core_widths, phases);
        phases.push_back(core);
        exchange_out_of_core(s, pass, core_widths, phases);
        phases.push_back(out);
        scatter_sum(s, pass, s.hidden, phases, buffered);
        return;
    }
    gather_rows(s, pass, s.hidden, phases, buffered);
    phases.push_back(out);
    exchange_into_core(s, pass, core_widths, phases);
    phases.push_back(core);
    exchange_out_of_core(s, pass, core_widths, phases);
    // The input again: d W = x^T d y.
    gather_rows(s, pass, gathered_width(model), phases, buffered);
    phases.push_back(qkv);
    scatter_sum(s, pass, gathered_width(model), phases, buffered);
    phases.push_back(norm);
}

void add_dense_mlp(const StepShape& s, Pass pass, std::vector<PhaseWork>& phases) {
    const ModelSpec& model = s.scenario.model;
    const double tokens = s.group_tokens, width = double{1} * model.dense_width / s.mesh.tp,
                 hidden_bytes = tokens * width * s.element;
    const bool forward = pass == Pass::forward, gated = is_gated(model.dense_activation);
    const int repeat = forward ? 1 : 2;
    const double activation = (gated ? 3.0 : 2.0) * hidden_bytes * (forward ? 1.0 : 5.0 / 3.0);
    add_cut_phase(
        s, pass, s.hidden, phases,
        compute_phase(Phase::dense_mlp, pass,
                      {gemm(tokens, (gated ? 2.0 : 1.0) * width, s.hidden, s.element, repeat),
                       gemm(tokens, s.hidden, width, s.element, repeat),
                       move(Kernel::streaming, activation)}),
        overlaps_tp(s));
}

}  // namespace headway::inline workload
