// Attention of a step: whose kernels it runs, and its parts as phases.
#pragma once

#include <optional>

#include "kernels/block/attention_half.hpp"
#include "runtime/cuda/phase_clock.hpp"

namespace headway::runtime {

inline std::unique_ptr<kernels::Attention> make_step_attention(
    DeviceContext& context, const kernels::AttentionShape& shape) {
    using kernels::AttentionImpl;
    const bool fused = kernels::attention_available(AttentionImpl::cudnn);
    return kernels::make_attention(fused ? AttentionImpl::cudnn : AttentionImpl::cublaslt,
                                   context.blas, shape);
}

constexpr Phase phase_of(kernels::AttentionPart part) {
    switch (part) {
        case kernels::AttentionPart::norm:
            return Phase::norm;
        case kernels::AttentionPart::qkv:
            return Phase::attention_qkv;
        case kernels::AttentionPart::core:
            return Phase::attention_core;
        case kernels::AttentionPart::output:
            break;
    }
    return Phase::attention_out;
}

// Opens `phase` for each part in turn; both outlive the pass.
inline kernels::AttentionHook attention_phases(DeviceContext& context, Pass pass,
                                               std::optional<DevicePhase>& phase) {
    return [&context, pass, &phase](kernels::AttentionPart part) {
        phase.reset();
        phase.emplace(context, CallSite{phase_of(part), pass});
    };
}

}  // namespace headway::runtime
