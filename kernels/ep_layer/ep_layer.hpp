// The EP layer of a rank that holds all experts (nothing to exchange): for every token t,
//   y[t] = sum_{j in top-k of R x_t} gate[t,j] W2[e_j] act(W1[e_j] x_t)
// forward and backward, from the router at full width, the stable sort by expert, the row movers
// and the grouped GEMMs. Nothing waits for the host, nothing is allocated, sums have a fixed order.
#pragma once

#include "kernels/grouped_gemm/ep_experts.hpp"
#include "kernels/hp_layer/hp_layer.hpp"
#include "kernels/permute/maps.hpp"
#include "kernels/permute/permute.hpp"
#include "kernels/router/dense_router.hpp"

namespace headway::kernels {

struct EpLayerShape {
    int num_tokens = 0;
    int width = 0;        // d, a multiple of 8
    int num_experts = 1;  // at most max_sort_keys
    int hidden = 0;       // f, a multiple of 8
    int top_k = 1;
    GroupedActivation activation = GroupedActivation::gelu_erf;

    [[nodiscard]] std::int64_t num_rows() const { return std::int64_t(num_tokens) * top_k; }
    [[nodiscard]] std::int64_t expert_elements() const {
        return std::int64_t(num_experts) * hidden * width;
    }
    [[nodiscard]] std::int64_t router_elements() const { return std::int64_t(num_experts) * width; }
};

/// Router [E, d], W1 [E, f, d], W2 [E, d, f].
struct EpLayerParameters {
    const __nv_bfloat16 *router = nullptr, *w1 = nullptr, *w2 = nullptr;
};
/// All written, not accumulated.
struct EpLayerGradients {
    __nv_bfloat16* dx = nullptr;  // [T, d]
    float *drouter = nullptr, *dw1 = nullptr, *dw2 = nullptr;
};

class EpLayer {
  public:
    using bf16 = __nv_bfloat16;
    EpLayer(cublasLtHandle_t handle, const EpLayerShape& shape);

    /// `saved` lives from forward to backward; `workspace` may be shared.
    [[nodiscard]] std::size_t saved_bytes() const;
    [[nodiscard]] std::size_t workspace_bytes() const;
    void forward(const EpLayerParameters& parameters, const bf16* x, bf16* y, void* saved,
                 void* workspace, cudaStream_t stream) const;
    void backward(const EpLayerParameters& parameters, const bf16* x, const bf16* dy,
                  const EpLayerGradients& gradients, const void* saved, void* workspace,
                  cudaStream_t stream) const;
    /// The choices [T, k] that forward left in `saved`.
    [[nodiscard]] const std::int32_t* choices(const void* saved) const;

  private:
    struct Saved {
        std::int32_t *index, *place, *offsets;
        float* gate;
        bf16 *rows, *pre, *act, *y_rows;
    };
    struct BackwardScratch {
        float* dgate;
        bf16 *dy_rows, *dpre, *dx_rows;
        std::byte* router;
    };
    Saved cut_saved(class Arena& arena) const;
    BackwardScratch cut_backward(class Arena& arena) const;
    [[nodiscard]] KeySortShape sort() const { return {shape_.num_rows(), shape_.num_experts}; }
    [[nodiscard]] SpreadShape copies() const {
        return {shape_.num_tokens, shape_.top_k, shape_.width};
    }
    [[nodiscard]] EpExperts experts(const EpLayerParameters& p, const Saved& saved) const;

    EpLayerShape shape_;
    DenseRouter router_;
};

/// fp64 on the host, for small shapes, with the choices given. bf16 inputs as the floats they stand
/// for.
struct HostEpLayer {
    EpLayerShape shape;
    std::vector<float> x, dy, w1, w2, router;
    std::vector<std::int32_t> index;  // [T, k]
};
[[nodiscard]] HostHpResult ep_layer_reference(const HostEpLayer& layer);

}  // namespace headway::kernels
