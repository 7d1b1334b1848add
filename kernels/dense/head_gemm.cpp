#include "kernels/dense/head_gemm.hpp"

#include <algorithm>
#include <stdexcept>

#include "kernels/check.hpp"
#include "kernels/dense/sum_parts.hpp"

namespace headway::kernels {
namespace {

constexpr std::size_t kWorkspaceLimit = std::size_t{32} << 20;

GroupedShape one_group(const HeadShape& s, int n, int k) {
    return {.num_groups = 1, .n = n, .k = k, .capacity_rows = s.num_tokens, .num_sms = s.num_sms};
}

// Parts of the tokens that fill the multiprocessors with 128 x 256 tiles of dW.
int parts_for(const HeadShape& s) {
    int device = 0, sms = s.num_sms;
    HEADWAY_CUDA_CHECK(cudaGetDevice(&device));
    if (sms == 0)
        HEADWAY_CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
    const int a = s.columns(), b = s.model_dim;
    const int tiles =
        std::min((a + 127) / 128 * ((b + 255) / 256), (b + 127) / 128 * ((a + 255) / 256));
    return std::clamp(sms / tiles, 1, 16);
}

}  // namespace

HeadGemms::HeadGemms(HeadImpl impl, cublasLtHandle_t handle, const HeadShape& s) : shape_(s) {
    if (s.num_tokens <= 0 || s.model_dim <= 0 || s.num_heads <= 0 || s.head_dim <= 0)
        throw std::invalid_argument(
            "head GEMMs: tokens, width, heads and head width must be positive");
    if (impl == HeadImpl::hopper && s.head_dim % 64 != 0)
        throw std::invalid_argument(
            "head GEMMs: hopper needs a head width that is a multiple of 64");
    if (impl == HeadImpl::library)
        plans_.emplace(make_plans(handle, s));
    else
        wgrad_parts_ = parts_for(s);
}

HeadGemms::Plans HeadGemms::make_plans(cublasLtHandle_t handle, const HeadShape& s) {
    const std::int64_t plane = std::int64_t{s.num_tokens} * s.head_dim;  // one head of Y or O
    const std::int64_t slice = std::int64_t{s.head_dim} * s.model_dim;   // one head of Wp
    const auto plan = [&](const DenseGemmShape& shape) {
        return DenseGemm(handle, shape, kWorkspaceLimit);
    };
    const int t = s.num_tokens, d = s.model_dim, w = s.head_dim, h = s.num_heads, all = s.columns();
    return {
        .project = plan({.m = t,
                         .n = w,
                         .k = d,
                         .transpose_b = true,
                         .num_batches = h,
                         .stride_b = slice,
                         .stride_c = plane}),
        .project_dgrad = plan({.m = t, .n = d, .k = all}),
        .project_wgrad = plan({.m = w,
                               .n = d,
                               .k = t,
                               .transpose_a = true,
                               .num_batches = h,
                               .stride_a = plane,
                               .stride_c = slice,
                               .fp32_out = true}),
        .merge = plan({.m = t, .n = d, .k = all, .transpose_b = true}),
        .merge_dgrad = plan({.m = t,
                             .n = w,
                             .k = d,
                             .ldb = all,
                             .num_batches = h,
                             .stride_b = w,
                             .stride_c = plane}),
        .merge_wgrad = plan({.m = d,
                             .n = w,
                             .k = t,
                             .transpose_a = true,
                             .ldc = all,
                             .num_batches = h,
                             .stride_b = plane,
                             .stride_c = w,
                             .fp32_out = true}),
    };
}

std::size_t HeadGemms::rows_bytes() const {
    const std::size_t bytes = std::size_t(shape_.num_tokens) * shape_.columns() * sizeof(bf16);
    return (bytes + 255) / 256 * 256;
}

std::size_t HeadGemms::workspace_bytes() const {
    if (!plans_) {
        const std::size_t dw = std::size_t(shape_.columns()) * shape_.model_dim * sizeof(float);
        return wgrad_parts_ > 1 ? wgrad_parts_ * dw : 0;
    }
    const Plans& p = *plans_;
    const std::size_t gemm =
        std::max({p.project.workspace_bytes(), p.project_dgrad.workspace_bytes(),
                  p.project_wgrad.workspace_bytes(), p.merge.workspace_bytes(),
                  p.merge_dgrad.workspace_bytes(), p.merge_wgrad.workspace_bytes()});
    return rows_bytes() + gemm;
}

void* HeadGemms::gemm_workspace(void* workspace) const {
    return static_cast<char*>(workspace) + rows_bytes();
}

// [H, T, d_h] -> [T, H d_h], one strided copy per head.
const __nv_bfloat16* HeadGemms::to_rows(const bf16* heads, void* workspace,
                                        cudaStream_t stream) const {
    auto* rows = static_cast<bf16*>(workspace);
    const std::size_t line = shape_.head_dim * sizeof(bf16),
                      pitch = shape_.columns() * sizeof(bf16);
    for (int h = 0; h < shape_.num_heads; ++h)
        HEADWAY_CUDA_CHECK(
            cudaMemcpy2DAsync(rows + std::size_t(h) * shape_.head_dim, pitch,
                              heads + std::size_t(h) * shape_.num_tokens * shape_.head_dim, line,
                              line, shape_.num_tokens, cudaMemcpyDeviceToDevice, stream));
    return rows;
}

void HeadGemms::wgrad_hopper(GroupedWgrad call, float* dw, void* workspace,
                             cudaStream_t stream) const {
    call.shape.num_groups = wgrad_parts_;
    const bool accumulate = call.accumulate, split = wgrad_parts_ > 1;
    call.dw_fp32 = split ? static_cast<float*>(workspace) : dw;
    call.accumulate = accumulate && !split;
    grouped_wgrad_hopper(call, stream);
    const std::int64_t count = std::int64_t{shape_.columns()} * shape_.model_dim;
    if (split)
        sum_parts(static_cast<const float*>(workspace), wgrad_parts_, count, dw, stream,
                  accumulate);
}

void HeadGemms::project(const bf16* x, const bf16* w, bf16* y_heads, void* workspace,
                        cudaStream_t stream) const {
    if (plans_) return plans_->project.run(x, w, y_heads, gemm_workspace(workspace), stream);
    grouped_forward_hopper({.shape = one_group(shape_, shape_.columns(), shape_.model_dim),
                            .a = x,
                            .w = w,
                            .c = y_heads,
                            .c_head_width = shape_.head_dim},
                           stream);
}

void HeadGemms::project_dgrad(const bf16* dy_heads, const bf16* w, bf16* dx, void* workspace,
                              cudaStream_t stream) const {
    if (plans_)
        return plans_->project_dgrad.run(to_rows(dy_heads, workspace, stream), w, dx,
                                         gemm_workspace(workspace), stream);
    grouped_dgrad_hopper({.shape = one_group(shape_, shape_.columns(), shape_.model_dim),
                          .dc = dy_heads,
                          .w = w,
                          .da = dx,
                          .dc_head_width = shape_.head_dim},
                         stream);
}

void HeadGemms::project_wgrad(const bf16* dy_heads, const bf16* x, float* dw, void* workspace,
                              cudaStream_t stream, bool accumulate) const {
    if (plans_)
        return plans_->project_wgrad.write(dy_heads, x, dw, gemm_workspace(workspace), stream,
                                           accumulate);
    wgrad_hopper({.shape = one_group(shape_, shape_.columns(), shape_.model_dim),
                  .dc = dy_heads,
                  .a = x,
                  .accumulate = accumulate,
                  .dc_head_width = shape_.head_dim},
                 dw, workspace, stream);
}

void HeadGemms::merge(const bf16* o_heads, const bf16* w, bf16* y, void* workspace,
                      cudaStream_t stream) const {
    if (plans_)
        return plans_->merge.run(to_rows(o_heads, workspace, stream), w, y,
                                 gemm_workspace(workspace), stream);
    grouped_forward_hopper({.shape = one_group(shape_, shape_.model_dim, shape_.columns()),
                            .a = o_heads,
                            .w = w,
                            .c = y,
                            .a_head_width = shape_.head_dim},
                           stream);
}

void HeadGemms::merge_dgrad(const bf16* dy, const bf16* w, bf16* do_heads, void* workspace,
                            cudaStream_t stream) const {
    if (plans_) return plans_->merge_dgrad.run(dy, w, do_heads, gemm_workspace(workspace), stream);
    grouped_dgrad_hopper({.shape = one_group(shape_, shape_.model_dim, shape_.columns()),
                          .dc = dy,
                          .w = w,
                          .da = do_heads,
                          .da_head_width = shape_.head_dim},
                         stream);
}

void HeadGemms::merge_wgrad(const bf16* dy, const bf16* o_heads, float* dw, void* workspace,
                            cudaStream_t stream, bool accumulate) const {
    if (plans_)
        return plans_->merge_wgrad.write(dy, o_heads, dw, gemm_workspace(workspace), stream,
                                         accumulate);
    wgrad_hopper({.shape = one_group(shape_, shape_.model_dim, shape_.columns()),
                  .dc = dy,
                  .a = o_heads,
                  .accumulate = accumulate,
                  .a_head_width = shape_.head_dim},
                 dw, workspace, stream);
}

}  // namespace headway::kernels
