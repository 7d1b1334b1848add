// Naive grouped GEMM: one thread per output element, fp32 accumulation in index order, exact
// activations.
#include "kernels/check.hpp"
#include "kernels/grouped_gemm/activation.cuh"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;

__device__ int group_of_row(const int* offsets, int num_groups, std::int64_t row) {
    int low = 0, high = num_groups;  // last g with offsets[g] <= row
    while (high - low > 1) {
        const int mid = (low + high) / 2;
        if (offsets[mid] <= row)
            low = mid;
        else
            high = mid;
    }
    while (low + 1 < num_groups && offsets[low + 1] <= row) ++low;
    return low;
}

__device__ float dot_w(const bf16* a, const bf16* w, int count, std::int64_t w_stride) {
    float sum = 0.0f;
    for (int i = 0; i < count; ++i)
        sum = fmaf(__bfloat162float(a[i]), __bfloat162float(w[i * w_stride]), sum);
    return sum;
}

__device__ float activate_exact(GroupedActivation act, float x) {
    if (act == GroupedActivation::gelu_erf) return gelu_erf_exact(x);
    if (act == GroupedActivation::gelu_tanh) return gelu_tanh_exact(x);
    return x;
}

__global__ void forward_kernel(GroupedForward call) {
    const GroupedShape& s = call.shape;
    const std::int64_t row = blockIdx.x;
    if (row >= s.offsets[s.num_groups]) return;
    const int group = group_of_row(s.offsets, s.num_groups, row);
    const bf16* a = call.a + row * s.k;
    const bf16* w = call.w + static_cast<std::int64_t>(group) * s.n * s.k;
    const bool gated = call.activation == GroupedActivation::swiglu;
    const int columns = gated ? s.n / 2 : s.n;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        const int first = gated ? column / 8 * 16 + column % 8 : column;
        const float x = dot_w(a, w + static_cast<std::int64_t>(first) * s.k, s.k, 1);
        if (call.pre != nullptr) call.pre[row * s.n + first] = __float2bfloat16(x);
        float y = activate_exact(call.activation, x);
        if (gated) {
            const float up = dot_w(a, w + static_cast<std::int64_t>(first + 8) * s.k, s.k, 1);
            if (call.pre != nullptr) call.pre[row * s.n + first + 8] = __float2bfloat16(up);
            y = x * sigmoid_exact(x) * up;
        }
        call.c[row * columns + column] = __float2bfloat16(y);
    }
}

__global__ void dgrad_kernel(GroupedDgrad call) {
    const GroupedShape& s = call.shape;
    const std::int64_t row = blockIdx.x;
    if (row >= s.offsets[s.num_groups]) return;
    const int group = group_of_row(s.offsets, s.num_groups, row);
    const bf16* w = call.w + static_cast<std::int64_t>(group) * s.n * s.k;
    for (int column = threadIdx.x; column < s.k; column += blockDim.x) {
        float x = dot_w(call.dc + row * s.n, w + column, s.n, s.k);
        if (call.activation == GroupedActivation::swiglu) {
            const std::int64_t at = row * 2 * s.k + column / 8 * 16 + column % 8;
            const float gate = __bfloat162float(call.pre[at]);
            const float up = __bfloat162float(call.pre[at + 8]);
            const float sigmoid = sigmoid_exact(gate);
            call.da[at] = __float2bfloat16(x * up * sigmoid * (1.0f + gate * (1.0f - sigmoid)));
            call.da[at + 8] = __float2bfloat16(x * gate * sigmoid);
            continue;
        }
        if (call.activation != GroupedActivation::none) {
            const float pre = __bfloat162float(call.pre[row * s.k + column]);
            x *= call.activation == GroupedActivation::gelu_erf ? gelu_erf_grad_exact(pre)
                                                                : gelu_tanh_grad_exact(pre);
        }
        call.da[row * s.k + column] = __float2bfloat16(x);
    }
}

__global__ void wgrad_kernel(GroupedWgrad call) {
    const GroupedShape& s = call.shape;
    const int group = blockIdx.y, row = blockIdx.x;  // row of dW[group]
    const int begin = s.offsets[group], end = s.offsets[group + 1];
    for (int column = threadIdx.x; column < s.k; column += blockDim.x) {
        float sum = 0.0f;
        for (std::int64_t r = begin; r < end; ++r)
            sum = fmaf(__bfloat162float(call.dc[r * s.n + row]),
                       __bfloat162float(call.a[r * s.k + column]), sum);
        const std::int64_t at = (static_cast<std::int64_t>(group) * s.n + row) * s.k + column;
        if (call.dw_fp32 != nullptr)
            call.dw_fp32[at] = call.accumulate ? call.dw_fp32[at] + sum : sum;
        else
            call.dw_bf16[at] = __float2bfloat16(sum);
    }
}

constexpr int kThreads = 256;

}  // namespace

void grouped_forward_reference(const GroupedForward& call, cudaStream_t stream) {
    if (call.shape.capacity_rows == 0) return;
    forward_kernel<<<static_cast<unsigned>(call.shape.capacity_rows), kThreads, 0, stream>>>(call);
    check_launch();
}

void grouped_dgrad_reference(const GroupedDgrad& call, cudaStream_t stream) {
    if (call.shape.capacity_rows == 0) return;
    dgrad_kernel<<<static_cast<unsigned>(call.shape.capacity_rows), kThreads, 0, stream>>>(call);
    check_launch();
}

void grouped_wgrad_reference(const GroupedWgrad& call, cudaStream_t stream) {
    const dim3 grid(static_cast<unsigned>(call.shape.n),
                    static_cast<unsigned>(call.shape.num_groups));
    wgrad_kernel<<<grid, kThreads, 0, stream>>>(call);
    check_launch();
}

}  // namespace headway::kernels
