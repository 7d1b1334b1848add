// The EP layer of one rank on its GPU, forward and backward, from the kernels: bf16 data, fp32
// gradients of weights. Phases as models/workload names them: routing and the experts are here, the
// ways of the rows in expert_exchange.hpp.
#pragma once

#include <cuda_bf16.h>

#include <memory>

#include "kernels/grouped_gemm/ep_experts.hpp"
#include "kernels/router/dense_router.hpp"
#include "runtime/cuda/expert_exchange.hpp"
#include "runtime/layers/layer_setup.hpp"

namespace headway::runtime {

class CudaEpLayer {
  public:
    using bf16 = __nv_bfloat16;
    struct Weights {
        bf16* router = nullptr;             // [E, d]
        bf16 *w1 = nullptr, *w2 = nullptr;  // [own experts, f, d], [own experts, d, f]
    };
    struct Gradients {
        float *router = nullptr, *w1 = nullptr, *w2 = nullptr;
    };
    struct Parameters {
        Weights weights;
        Gradients gradients;
    };

    // Takes routing from the arena, and weights and gradients unless they are given. InputError for
    // what the kernels cannot do. `peers`: the ranks that share the experts, null for all of the
    // context's.
    CudaEpLayer(DeviceContext& context, const LayerSetup& setup, std::int64_t tokens,
                DeviceCommunicator* peers = nullptr, const Parameters* given = nullptr);
    CudaEpLayer(const CudaEpLayer&) = delete;
    CudaEpLayer& operator=(const CudaEpLayer&) = delete;

    const Weights& weights() const { return weights_; }
    const Gradients& gradients() const { return gradients_; }
    // Elements of the three tensors, in the order of Weights.
    std::vector<std::int64_t> sizes() const;

    // x, y, dy, dx are [T, d]. `forced`: chosen experts [T, k], or null. Forward takes what
    // backward needs from the arena; backward, or release(), gives it back.
    // `accumulate`: gradients of weights are added to.
    void forward(const bf16* x, bf16* y, const std::int32_t* forced);
    void backward(const bf16* x, const bf16* dy, bf16* dx, bool accumulate = false);
    void release();

  private:
    kernels::EpExperts experts() const;
    void route_forward(const bf16* x, const std::int32_t* forced);
    void take_outputs();
    bf16* output_rows();  // kept for backward, or of the present scope
    void run_experts(bf16* y_rows);
    void experts_again();

    DeviceContext& context_;
    ExchangeShape shape_;
    int hidden_;
    kernels::GroupedActivation activation_;
    kernels::DenseRouter router_;
    std::unique_ptr<ExpertExchange> exchange_;
    Weights weights_;
    Gradients gradients_;
    std::int32_t* index_ = nullptr;  // [T, k]
    float* gate_ = nullptr;
    // What one forward keeps for its backward.
    std::size_t mark_ = 0;
    bf16 *pre_ = nullptr, *act_ = nullptr, *y_rows_ = nullptr;
};

}  // namespace headway::runtime
