#include "kernels/check.hpp"
#include "runtime/cuda/step/step_kernels.hpp"

namespace headway::runtime {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kBlock = 256, kVector = 8;  // elements of 16 bytes

struct Eight {
    float at[kVector];
};
__device__ Eight load_eight(const bf16* from) {
    const int4 bits = *reinterpret_cast<const int4*>(from);
    const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&bits);
    Eight out;
    for (int i = 0; i < kVector / 2; ++i) {
        const float2 pair = __bfloat1622float2(pairs[i]);
        out.at[2 * i] = pair.x;
        out.at[2 * i + 1] = pair.y;
    }
    return out;
}
__device__ void store_eight(const Eight& values, bf16* to) {
    int4 bits;
    auto* pairs = reinterpret_cast<__nv_bfloat162*>(&bits);
    for (int i = 0; i < kVector / 2; ++i)
        pairs[i] = __floats2bfloat162_rn(values.at[2 * i], values.at[2 * i + 1]);
    *reinterpret_cast<int4*>(to) = bits;
}

// A row a block.
__global__ void __launch_bounds__(kBlock)
    embed_kernel(RowTable s, const std::int32_t* token, const bf16* table, bf16* out) {
    const std::int64_t row = blockIdx.x, from = token[row];
    for (int i = threadIdx.x; i < s.width / kVector; i += kBlock)
        reinterpret_cast<int4*>(out + row * s.width)[i] =
            reinterpret_cast<const int4*>(table + from * s.width)[i];
}

// A run and kBlock columns a block.
__global__ void __launch_bounds__(kBlock)
    embed_gradient_kernel(RowTable s, TokenRuns runs, const std::int32_t* token, const bf16* dy,
                          float* gradient) {
    const int column = blockIdx.y * kBlock + threadIdx.x;
    if (column >= s.width) return;
    const int begin = runs.begin[blockIdx.x], end = runs.begin[blockIdx.x + 1];
    if (begin == end) return;
    float sum = 0;
#pragma unroll 8
    for (int i = begin; i < end; ++i)
        sum += __bfloat162float(dy[std::int64_t{runs.order[i]} * s.width + column]);
    gradient[std::int64_t{token[runs.order[begin]]} * s.width + column] += sum;
}

// A maximum and the sum of exponentials relative to it, of values seen so far.
struct LogSum {
    float top = -INFINITY, sum = 0;
    __device__ void add(const LogSum& other) {
        const float both = fmaxf(top, other.top);
        if (both == -INFINITY) return;
        sum = sum * __expf(top - both) + other.sum * __expf(other.top - both);
        top = both;
    }
};

__global__ void __launch_bounds__(kBlock)
    loss_kernel(LogitRows s, const bf16* logits, const std::int32_t* target, float* log_sum,
                float* loss) {
    __shared__ LogSum of_warp[kBlock / 32];
    const std::int64_t row = blockIdx.x;
    const bf16* z = logits + row * s.vocabulary;
    LogSum own;
    for (int i = threadIdx.x; i < s.vocabulary / kVector; i += kBlock) {
        const Eight eight = load_eight(z + i * kVector);
        LogSum these;
        for (const float value : eight.at) these.top = fmaxf(these.top, value);
        for (const float value : eight.at) these.sum += __expf(value - these.top);
        own.add(these);
    }
    for (int step = 16; step > 0; step /= 2) {
        LogSum other;
        other.top = __shfl_xor_sync(~0u, own.top, step);
        other.sum = __shfl_xor_sync(~0u, own.sum, step);
        own.add(other);
    }
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = own;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < kBlock / 32; ++warp) own.add(of_warp[warp]);
    log_sum[row] = own.top + logf(own.sum);
    loss[row] = s.scale * (log_sum[row] - __bfloat162float(z[target[row]]));
}

__global__ void __launch_bounds__(kBlock)
    loss_gradient_kernel(LogitRows s, bf16* logits, const std::int32_t* target,
                         const float* log_sum) {
    const std::int64_t row = blockIdx.x;
    bf16* z = logits + row * s.vocabulary;
    const float total = log_sum[row];
    const int own = target[row];
    for (int i = threadIdx.x; i < s.vocabulary / kVector; i += kBlock) {
        Eight eight = load_eight(z + i * kVector);
        for (int j = 0; j < kVector; ++j)
            eight.at[j] =
                s.scale * (__expf(eight.at[j] - total) - (i * kVector + j == own ? 1.0f : 0.0f));
        store_eight(eight, z + i * kVector);
    }
}

__global__ void __launch_bounds__(kBlock)
    sum_kernel(const float* values, std::int64_t count, float* sum) {
    __shared__ float parts[kBlock];
    float own = 0;
    for (std::int64_t i = threadIdx.x; i < count; i += kBlock) own += values[i];
    parts[threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int i = 1; i < kBlock; ++i) own += parts[i];
    *sum = own;
}

}  // namespace

void embed_rows(const RowTable& s, const std::int32_t* token, const bf16* table, bf16* out,
                cudaStream_t stream) {
    embed_kernel<<<static_cast<unsigned>(s.rows), kBlock, 0, stream>>>(s, token, table, out);
    kernels::check_launch();
}

void embed_gradient(const RowTable& s, const TokenRuns& runs, const std::int32_t* token,
                    const bf16* dy, float* gradient, cudaStream_t stream) {
    const dim3 blocks(static_cast<unsigned>(runs.most_runs),
                      static_cast<unsigned>((s.width + kBlock - 1) / kBlock));
    embed_gradient_kernel<<<blocks, kBlock, 0, stream>>>(s, runs, token, dy, gradient);
    kernels::check_launch();
}

void loss_forward(const LogitRows& s, const bf16* logits, const std::int32_t* target,
                  float* log_sum, float* loss, cudaStream_t stream) {
    loss_kernel<<<static_cast<unsigned>(s.rows), kBlock, 0, stream>>>(s, logits, target, log_sum,
                                                                      loss);
    kernels::check_launch();
}

void loss_backward(const LogitRows& s, bf16* logits, const std::int32_t* target,
                   const float* log_sum, cudaStream_t stream) {
    loss_gradient_kernel<<<static_cast<unsigned>(s.rows), kBlock, 0, stream>>>(s, logits, target,
                                                                               log_sum);
    kernels::check_launch();
}

void sum_values(const float* values, std::int64_t count, float* sum, cudaStream_t stream) {
    sum_kernel<<<1, kBlock, 0, stream>>>(values, count, sum);
    kernels::check_launch();
}

}  // namespace headway::runtime
