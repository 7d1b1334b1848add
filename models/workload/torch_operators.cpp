// What plain PyTorch moves beyond the kernels of moe_phases.cpp and dense_phases.cpp, operator by
// operator: rotary embedding in fp32 out of six of them, rows weighed and added by index (and so
// the gradients of rows that were gathered), a loss over fp32 logits. Bytes an element at the rate
// of a stream, from times of the device in scripts/torch_step: medians of the shapes to fit by,
// which the shapes to judge by repeat within 5 % (docs/validation_host.md).
#include <optional>

#include "models/workload/phases.hpp"

namespace headway::inline workload {
namespace {

enum class Elements { rotated, rows, logits, tokens };

struct Moved {
    Elements of;
    double forward, backward;  // bytes each
};

std::optional<Moved> moved_by_torch(Phase phase) {
    switch (phase) {
        case Phase::norm:
            return Moved{Elements::tokens, 0, 8};
        case Phase::attention_qkv:
            return Moved{Elements::rotated, 73, 68};
        case Phase::route:
            return Moved{Elements::tokens, 6, 3};
        case Phase::permute:
            return Moved{Elements::rows, 0, 29};
        case Phase::regroup:
            return Moved{Elements::rows, 2, 31};
        case Phase::ungroup:
            return Moved{Elements::rows, 0, 31};
        case Phase::unpermute:
            return Moved{Elements::rows, 52, 43};
        case Phase::loss:
            return Moved{Elements::logits, 22, 21};
        default:
            return std::nullopt;
    }
}

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
    }
    return 0.0;
}

}  // namespace

void add_torch_operators(const StepShape& s, double rows, std::span<PhaseWork> phases) {
    if (s.plan.implementation != Implementation::torch) return;
    for (PhaseWork& phase : phases) {
        const std::optional<Moved> moved = moved_by_torch(phase.phase);
        auto* compute = std::get_if<ComputeWork>(&phase.work);
        if (!moved || compute == nullptr) continue;
        const double bytes =
            phase.kernel_pass() == Pass::forward ? moved->forward : moved->backward;
        if (bytes == 0.0) continue;
        compute->add(move(Kernel::streaming, bytes * elements(s, moved->of, rows)));
        // A curve of headway's own phase holds none of this.
        compute->shape.reset();
    }
}

}  // namespace headway::inline workload
