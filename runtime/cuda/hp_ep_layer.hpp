// HP x EP of one rank on its GPU, forward and backward: N > H ranks, c = N / H consecutive ranks
// share a head. Member m of each head gets the sub-tokens of the sources i with i mod c = m, and
// the members run EP among themselves on them.
//   y = sum_h EP_h(x P_h) M_h
#pragma once

#include <cuda_bf16.h>

#include "kernels/dense/head_gemm.hpp"
#include "runtime/cuda/ep_layer.hpp"
#include "runtime/cuda/group_communicator.hpp"

namespace headway::runtime {

class CudaHpEpLayer {
  public:
    using bf16 = __nv_bfloat16;
    struct Projections {
        bf16 *project = nullptr, *merge = nullptr;  // [H d_h, d], [d, H d_h]
    };
    struct Gradients {
        float *project = nullptr, *merge = nullptr;
    };

    // Takes weights, gradients and what forward saves from the arena. InputError for what the
    // kernels cannot do.
    CudaHpEpLayer(DeviceContext& context, const LayerSetup& setup);

    const Projections& projections() const { return projections_; }
    const Gradients& gradients() const { return gradients_; }
    std::int64_t projection_size() const;
    // The head's router and this rank's experts of it.
    const CudaEpLayer& head() const { return head_; }

    // x, y, dy, dx are [T, d]. `forced`: chosen experts [H, T, k] of the sources whose sub-tokens
    // come here, in rank order, or null.
    void forward(const bf16* x, bf16* y, const std::int32_t* forced);
    void backward(const bf16* x, const bf16* dy, bf16* dx);
    void release() { head_.release(); }

  private:
    // Between own tokens by head [H, T, d_h] and the sub-tokens held [H sources, T, d_h]: the same
    // bytes both ways.
    void scatter(CallSite site, const bf16* from, bf16* to);

    DeviceContext& context_;
    int num_ranks_, sharers_;
    kernels::HeadShape head_shape_;
    kernels::HeadGemms head_gemms_;
    GroupCommunicator peers_;
    Projections projections_;
    Gradients gradients_;
    bf16 *own_ = nullptr, *gathered_ = nullptr, *sub_tokens_ = nullptr, *held_ = nullptr,
         *returned_ = nullptr;
    CudaEpLayer head_;
};

}  // namespace headway::runtime
