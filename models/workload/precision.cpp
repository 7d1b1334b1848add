// FP8 and FP4: which kernels compute in a narrower type. The cast of a kernel's input is part of
// its rate (docs/reference/model.md, "Precision").
#include <cstddef>
#include <variant>

#include "models/workload/phases.hpp"

namespace headway::inline workload {
namespace {

bool is_linear(Phase phase) {
    switch (phase) {
        case Phase::attention_qkv:
        case Phase::attention_out:
        case Phase::dense_mlp:
        case Phase::mtp_project:
        case Phase::shared_expert:
        case Phase::expert:
        case Phase::latent_down:
        case Phase::latent_up:
        case Phase::head_project:
        case Phase::head_merge:
            return true;
        default:
            return false;
    }
}

bool is_gemm(Kernel kernel) {
    return kernel == Kernel::dense_gemm || kernel == Kernel::grouped_gemm ||
           kernel == Kernel::fused_expert;
}

// An expert's rows are padded by half the alignment in the mean.
double padding(const PhaseShape& shape, int alignment) {
    if (shape.rows <= 0.0) return 1.0;
    return 1.0 + 0.5 * (alignment - 1) * shape.groups / shape.rows;
}

}  // namespace

bool computes_narrow(const Plan& plan, Phase phase) {
    return plan.precision.recipe != Recipe::none && is_linear(phase) &&
           (phase != Phase::expert || plan.precision.experts);
}

void set_linear_types(const StepShape& s, LayerWork& layer) {
    const Precision& precision = s.plan.precision;
    if (precision.recipe == Recipe::none) return;
    const Dtype type = precision.linear(s.scenario.model.dtype);
    for (auto* phases : {&layer.forward, &layer.backward}) {
        for (PhaseWork& phase : *phases) {
            auto* compute = std::get_if<ComputeWork>(&phase.work);
            if (compute == nullptr || !computes_narrow(s.plan, phase.phase)) continue;
            for (int i = 0; i < compute->num_kernels; ++i) {
                KernelWork& kernel = compute->kernels[static_cast<std::size_t>(i)];
                if (!is_gemm(kernel.kernel)) continue;
                kernel.dtype = type;
                if (phase.phase == Phase::expert && compute->shape)
                    kernel.flops *= padding(*compute->shape, precision.row_alignment());
            }
            if (compute->shape) compute->shape->dtype = type;
        }
    }
}

}  // namespace headway::inline workload
