// Offload: what a plan keeps in the memory of the host instead of the GPU's. Keys carry Megatron's
// names (Megatron-LM d98e8a6, core/optimizer/optimizer_config.py).
#pragma once

namespace headway {

struct Offload {
    // AdamW of `optimizer_offload_fraction` of a rank's parameters runs on the host, its states
    // there: gradients go down and parameters come up (core/optimizer/cpu_offloading).
    bool optimizer_cpu_offload = false;
    double optimizer_offload_fraction = 1.0;
    bool overlap_cpu_optimizer_d2h_h2d = false;  // copies run beside the host's optimizer
    // The host's master parameters are the only ones; else the GPU keeps its own too.
    bool use_precision_aware_optimizer = true;

    friend bool operator==(const Offload&, const Offload&) = default;

    constexpr double optimizer_share() const {
        return optimizer_cpu_offload ? optimizer_offload_fraction : 0.0;
    }
};

// Bytes of an offloaded parameter that go down (its gradient) and come up (itself): copies are
// fp32, as PyTorch casts on the GPU.
inline constexpr double kOffloadedParameterBytes = 4.0;
// Bytes of it in host memory: parameter, gradient and both moments in fp32; AdamW reads all of
// them and writes all but the gradient.
inline constexpr double kHostStateBytes = 16.0, kHostOptimizerBytes = 28.0;

}  // namespace headway
