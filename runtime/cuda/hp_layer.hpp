// The HP layer of one rank on its GPU, forward and backward, from the kernels: bf16 data, fp32
// gradients of weights. Phases as models/workload names them. Heads are owned whole: N <= H ranks.
//   y = sum_h [sum over chosen e of g_he FFN_he(x P_h)] M_h
#pragma once

#include <cuda_bf16.h>

#include "kernels/dense/head_gemm.hpp"
#include "kernels/hp_layer/hp_layer.hpp"
#include "runtime/cuda/phase_clock.hpp"
#include "runtime/layers/layer_setup.hpp"

namespace headway::runtime {

class CudaHpLayer {
  public:
    using bf16 = __nv_bfloat16;
    struct Weights {
        bf16 *project = nullptr, *merge = nullptr;  // [H d_h, d], [d, H d_h]
        bf16 *w1 = nullptr, *w2 = nullptr;  // [own heads, E, f (gated: 2 f), d_h], [.., f, d_h]
        float* router = nullptr;            // [own heads, E, d_h]
    };
    struct Gradients {
        float *project = nullptr, *merge = nullptr, *w1 = nullptr, *w2 = nullptr, *router = nullptr;
    };
    struct Parameters {
        Weights weights;
        Gradients gradients;
        // A layer of the same shape whose saved tensors this one uses, as its own forward runs
        // again right before its backward; null: its own.
        const CudaHpLayer* takes_turns_with = nullptr;
    };

    // Takes what forward saves from the arena, and weights and gradients unless they are given.
    // InputError for what the kernels cannot do.
    CudaHpLayer(DeviceContext& context, const LayerSetup& setup, const Parameters* given = nullptr);

    const Weights& weights() const { return weights_; }
    const Gradients& gradients() const { return gradients_; }
    // Elements of the five tensors, in the order of Weights.
    std::vector<std::int64_t> sizes() const;

    // x, y, dy, dx are [T, d]. `forced`: chosen experts [own heads, N T, k] (tokens by source
    // rank), or null.
    // `accumulate`: gradients of weights are added to.
    void forward(const bf16* x, bf16* y, const std::int32_t* forced);
    void backward(const bf16* x, const bf16* dy, bf16* dx, bool accumulate = false);

  private:
    kernels::RowGrouping expert_rows() const;
    // Between own tokens by head [H, T, d_h] and own heads by source [H_r, N, T, d_h].
    void to_owners(CallSite site, const bf16* own, bf16* held);
    void from_owners(CallSite site, const bf16* held, bf16* own);
    std::int64_t plane_bytes() const;  // of a head's tokens from one rank
    PlaneStrides by_owner() const;     // of the planes in own tokens
    PlaneStrides by_head() const;      // and in own heads
    void route_forward(const std::int32_t* forced);

    DeviceContext& context_;
    int num_ranks_, tokens_;
    kernels::HpLayerShape shape_;
    kernels::HpLayerImpl impl_;
    kernels::HeadShape head_shape_;
    kernels::HeadGemms head_gemms_;
    Weights weights_;
    Gradients gradients_;
    bf16 *sub_tokens_ = nullptr, *gathered_ = nullptr;
    kernels::HpLayerRouting routing_;
    std::int32_t* counts_ = nullptr;
};

}  // namespace headway::runtime
