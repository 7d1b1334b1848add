// The two dense products around HP's scatter and gather, on head-major rows [H, T, d_h], so that no
// transpose exists on either side:
//   head_project  Y[h,t,:] = Wp[h] x[t]          Wp [H d_h, d], x [T, d]
//   head_merge    y[t] = Wm concat_h O[h,t,:]     Wm [d, H d_h]
// and their gradients. 2 T d H d_h FLOPs each. Implementations: `library`, cuBLASLt (strided
// batches write head-major rows directly; reading them needs a copy to row-major first, so two of
// the six calls take a workspace), and `hopper`, the wgmma kernel of grouped_gemm through
// three-dimensional tensor maps (no copy, d_h a multiple of 64). A weight gradient with fewer tiles
// than multiprocessors splits the tokens and sums the parts in order.
#pragma once

#include <optional>

#include "kernels/dense/dense_gemm.hpp"
#include "kernels/grouped_gemm/grouped_gemm.hpp"

namespace headway::kernels {

enum class HeadImpl { library, hopper };

struct HeadShape {
    int num_tokens = 0;  // T, on this rank
    int model_dim = 0;   // d
    int num_heads = 0;   // H
    int head_dim = 0;    // d_h
    int num_sms = 0;     // hopper: multiprocessors to use, 0: all
    [[nodiscard]] int columns() const { return num_heads * head_dim; }
};

class HeadGemms {
  public:
    /// `handle` may be null for hopper.
    HeadGemms(HeadImpl impl, cublasLtHandle_t handle, const HeadShape& shape);

    using bf16 = __nv_bfloat16;
    void project(const bf16* x, const bf16* w, bf16* y_heads, void* workspace, cudaStream_t) const;
    void project_dgrad(const bf16* dy_heads, const bf16* w, bf16* dx, void* workspace,
                       cudaStream_t) const;
    /// `accumulate`, here and below: dw is added to.
    void project_wgrad(const bf16* dy_heads, const bf16* x, float* dw, void* workspace,
                       cudaStream_t, bool accumulate = false) const;
    void merge(const bf16* o_heads, const bf16* w, bf16* y, void* workspace, cudaStream_t) const;
    void merge_dgrad(const bf16* dy, const bf16* w, bf16* do_heads, void* workspace,
                     cudaStream_t) const;
    void merge_wgrad(const bf16* dy, const bf16* o_heads, float* dw, void* workspace, cudaStream_t,
                     bool accumulate = false) const;
    [[nodiscard]] std::size_t workspace_bytes() const;

  private:
    struct Plans {
        DenseGemm project, project_dgrad, project_wgrad, merge, merge_dgrad, merge_wgrad;
    };
    static Plans make_plans(cublasLtHandle_t handle, const HeadShape& s);
    [[nodiscard]] std::size_t rows_bytes() const;
    void wgrad_hopper(GroupedWgrad call, float* dw, void* workspace, cudaStream_t stream) const;
    const bf16* to_rows(const bf16* heads, void* workspace, cudaStream_t stream) const;
    [[nodiscard]] void* gemm_workspace(void* workspace) const;

    HeadShape shape_;
    std::optional<Plans> plans_;  // library only
    int wgrad_parts_ = 1;         // hopper only
};

}  // namespace headway::kernels
