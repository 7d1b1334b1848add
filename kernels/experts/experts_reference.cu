// Naive CUDA reference of the expert layer: one block a row, fp32 throughout, exact erf and tanh,
// hidden activations kept in the caller's workspace for backward. For checking at full size only.
#include "kernels/check.hpp"
#include "kernels/experts/experts_reference.hpp"

namespace headway::kernels::reference {
namespace {

constexpr int num_threads = 256;

__device__ float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

__device__ float activate(Activation act, float x) {
    if (act == Activation::gelu_erf) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    if (act == Activation::swiglu) return x * sigmoid(x);
    return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
}

__device__ float slope(Activation act, float x) {
    if (act == Activation::gelu_erf)
        return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.39894228f * expf(-0.5f * x * x);
    if (act == Activation::swiglu) {
        const float s = sigmoid(x);
        return s + x * s * (1.0f - s);
    }
    const float t = tanhf(0.79788456f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.0f + t) +
           0.5f * x * (1.0f - t * t) * 0.79788456f * (1.0f + 3.0f * 0.044715f * x * x);
}

// The last group whose offset is at most `row`, among those with rows.
__device__ int group_of(const int32_t* offset, int num_groups, int64_t row) {
    int low = 0;
    int high = num_groups;
    while (high - low > 1) {
        const int mid = (low + high) / 2;
        if (offset[mid] <= row)
            low = mid;
        else
            high = mid;
    }
    return low;
}

struct Params {
    ExpertShape shape;
    RowGrouping rows;
    ExpertWeights weights;
    const __nv_bfloat16* x;
    const __nv_bfloat16* dy_token;
    __nv_bfloat16* y;
    ExpertGradients gradients;
    float* hidden_gradient;  // [P, hidden_rows]
    float* gated_hidden;     // [P, hidden]
};

__device__ float dot(const __nv_bfloat16* a, const float* b, int n) {
    float sum = 0.0f;
    for (int i = 0; i < n; ++i) sum += __bfloat162float(a[i]) * b[i];
    return sum;
}

__global__ void __launch_bounds__(num_threads) forward_kernel(const Params p) {
    extern __shared__ float smem[];
    const int d = p.shape.width;
    const int f = p.shape.hidden;
    float* x = smem;
    float* hidden = smem + d;
    const int64_t row = blockIdx.x;
    const int64_t group = group_of(p.rows.expert_offset, p.shape.num_groups, row);
    const int64_t token = p.rows.row_token[row];
    for (int i = threadIdx.x; i < d; i += num_threads) x[i] = __bfloat162float(p.x[token * d + i]);
    __syncthreads();
    const __nv_bfloat16* w1 = p.weights.w1 + group * p.shape.hidden_rows() * d;
    for (int h = threadIdx.x; h < f; h += num_threads) {
        float value = activate(p.shape.activation, dot(w1 + int64_t{h} * d, x, d));
        if (p.shape.gated()) value *= dot(w1 + int64_t{f + h} * d, x, d);
        hidden[h] = value;
    }
    __syncthreads();
    const __nv_bfloat16* w2 = p.weights.w2 + group * f * d;
    for (int i = threadIdx.x; i < d; i += num_threads) {
        float sum = 0.0f;
        for (int h = 0; h < f; ++h) sum += hidden[h] * __bfloat162float(w2[int64_t{h} * d + i]);
        p.y[row * d + i] = __float2bfloat16(sum);
    }
}

__global__ void __launch_bounds__(num_threads) backward_rows_kernel(const Params p) {
    extern __shared__ float smem[];
    __shared__ float partial[num_threads];
    const int d = p.shape.width;
    const int f = p.shape.hidden;
    const int f1 = p.shape.hidden_rows();
    float* x = smem;
    float* dy = smem + d;
    float* dh = smem + 2 * d;
    const int64_t row = blockIdx.x;
    const int64_t group = group_of(p.rows.expert_offset, p.shape.num_groups, row);
    const int64_t token = p.rows.row_token[row];
    const float gate = p.rows.row_gate[row];
    for (int i = threadIdx.x; i < d; i += num_threads) {
        x[i] = __bfloat162float(p.x[token * d + i]);
        dy[i] = __bfloat162float(p.dy_token[token * d + i]);
    }
    __syncthreads();
    const __nv_bfloat16* w1 = p.weights.w1 + group * f1 * d;
    const __nv_bfloat16* w2 = p.weights.w2 + group * f * d;
    float dgate = 0.0f;
    for (int h = threadIdx.x; h < f; h += num_threads) {
        const float pre = dot(w1 + int64_t{h} * d, x, d);
        const float up = p.shape.gated() ? dot(w1 + int64_t{f + h} * d, x, d) : 1.0f;
        const float da = dot(w2 + int64_t{h} * d, dy, d);
        const float act = activate(p.shape.activation, pre);
        dgate += act * up * da;
        dh[h] = gate * da * up * slope(p.shape.activation, pre);
        if (p.shape.gated()) dh[f + h] = gate * da * act;
        p.gated_hidden[row * f + h] = gate * act * up;
    }
    partial[threadIdx.x] = dgate;
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (int i = 0; i < num_threads; ++i) sum += partial[i];
        p.gradients.dgate[row] = sum;
    }
    for (int h = threadIdx.x; h < f1; h += num_threads) p.hidden_gradient[row * f1 + h] = dh[h];
    for (int i = threadIdx.x; i < d; i += num_threads) {
        float sum = 0.0f;
        for (int h = 0; h < f1; ++h) sum += dh[h] * __bfloat162float(w1[int64_t{h} * d + i]);
        p.gradients.dx_row[row * d + i] = __float2bfloat16(sum);
    }
}

// out[group, h, i] = sum over the group's rows of hidden[row, h] * source[token(row), i], or added.
__global__ void __launch_bounds__(num_threads)
    backward_weights_kernel(RowGrouping rows, const float* hidden, int num_hidden,
                            const __nv_bfloat16* source, int d, bool accumulate, float* out) {
    const int64_t group = blockIdx.x;
    const int begin = rows.expert_offset[group];
    const int end = rows.expert_offset[group + 1];
    for (int n = threadIdx.x; n < num_hidden * d; n += num_threads) {
        const int h = n / d;
        const int i = n % d;
        float sum = accumulate ? out[group * num_hidden * d + n] : 0.0f;
        for (int row = begin; row < end; ++row)
            sum += hidden[int64_t{row} * num_hidden + h] *
                   __bfloat162float(source[int64_t{rows.row_token[row]} * d + i]);
        out[group * num_hidden * d + n] = sum;
    }
}

}  // namespace

void forward(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
             const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream) {
    if (shape.num_rows == 0) return;
    const Params p{shape, rows, weights, x, nullptr, y, {}, nullptr, nullptr};
    forward_kernel<<<static_cast<unsigned>(shape.num_rows), num_threads,
                     (shape.width + shape.hidden) * sizeof(float), stream>>>(p);
    check_launch();
}

std::size_t backward_workspace_bytes(const ExpertShape& shape) {
    return sizeof(float) * static_cast<std::size_t>(shape.num_rows) *
           static_cast<std::size_t>(shape.hidden_rows() + shape.hidden);
}

void backward(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
              const __nv_bfloat16* x, const __nv_bfloat16* dy_token,
              const ExpertGradients& gradients, void* workspace, cudaStream_t stream) {
    float* hidden_gradient = static_cast<float*>(workspace);
    float* gated_hidden = hidden_gradient + shape.num_rows * shape.hidden_rows();
    const Params p{shape,   rows,      weights,         x,           dy_token,
                   nullptr, gradients, hidden_gradient, gated_hidden};
    if (shape.num_rows > 0) {
        backward_rows_kernel<<<static_cast<unsigned>(shape.num_rows), num_threads,
                               (2 * shape.width + shape.hidden_rows()) * sizeof(float), stream>>>(
            p);
        check_launch();
    }
    backward_weights_kernel<<<shape.num_groups, num_threads, 0, stream>>>(
        rows, hidden_gradient, shape.hidden_rows(), x, shape.width, gradients.accumulate,
        gradients.dw1);
    check_launch();
    backward_weights_kernel<<<shape.num_groups, num_threads, 0, stream>>>(
        rows, gated_hidden, shape.hidden, dy_token, shape.width, gradients.accumulate,
        gradients.dw2);
    check_launch();
}

}  // namespace headway::kernels::reference
