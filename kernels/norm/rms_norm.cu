// One warp a row: a lane holds chunks of eight neighbouring elements, 256 columns a chunk, so that
// every access of a warp is 512 contiguous bytes.
#include <algorithm>
#include <stdexcept>

#include "kernels/check.hpp"
#include "kernels/norm/rms_norm.hpp"
#include "kernels/ptx/bf16x8.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256, kWarps = kThreads / 32;
// Rows that a warp loads at once in the backward.
constexpr int rows_in_flight(int chunks) {
    return chunks == 2 ? 2 : 1;
}
// Blocks of the backward, each with one partial dw: as many as an H200 holds at once.
constexpr int blocks_at_once(int chunks) {
    return chunks == 1 ? 4 : chunks <= 4 ? 2 : 1;
}
constexpr int kMultiprocessors = 132;

__device__ __forceinline__ uint4 load_raw(const bf16* in) {
    return *reinterpret_cast<const uint4*>(in);
}
__device__ __forceinline__ Eight load8(const bf16* in) {
    return unpack(load_raw(in));
}
__device__ __forceinline__ Eight load8(const float* in) {
    const float4 low = reinterpret_cast<const float4*>(in)[0],
                 high = reinterpret_cast<const float4*>(in)[1];
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}
__device__ __forceinline__ void store8(bf16* out, const Eight& x) {
    *reinterpret_cast<uint4*>(out) = pack(x);
}
__device__ __forceinline__ float sum_of_warp(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

template <int Chunks>
__global__ void __launch_bounds__(kThreads) forward_kernel(RmsNormShape s, RmsNormForward call) {
    const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
    if (row >= s.num_rows) return;
    const int first = threadIdx.x % 32 * 8;
    const std::int64_t base = row * s.width;
    Eight x[Chunks];
    float squares = 0;
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
        const int column = first + 256 * c;
        x[c] = {};
        if (column >= s.width) continue;
        x[c] = load8(call.x + base + column);
        if (call.delta != nullptr) {
            const Eight delta = load8(call.delta + base + column);
            // The sum is rounded as it is stored, so that forward and backward see one value.
#pragma unroll
            for (int i = 0; i < 8; ++i)
                x[c].v[i] = __bfloat162float(__float2bfloat16(x[c].v[i] + delta.v[i]));
        }
        if (call.sum != nullptr) store8(call.sum + base + column, x[c]);
#pragma unroll
        for (int i = 0; i < 8; ++i) squares = fmaf(x[c].v[i], x[c].v[i], squares);
    }
    const float inverse = rsqrtf(sum_of_warp(squares) / float(s.width) + s.epsilon);
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
        const int column = first + 256 * c;
        if (column >= s.width) continue;
        const Eight weight = load8(call.weight + column);
#pragma unroll
        for (int i = 0; i < 8; ++i) x[c].v[i] *= inverse * weight.v[i];
        store8(call.y + base + column, x[c]);
    }
    if (threadIdx.x % 32 == 0) call.inverse[row] = inverse;
}

/// Adds the block's warps' partial dw in order and writes them to parts[blockIdx.x].
template <int Chunks>
__device__ __forceinline__ void write_part(const RmsNormShape& s, const Eight (&dweight)[Chunks],
                                           float* parts) {
    extern __shared__ float shared[];  // [kWarps, width]
    const int first = threadIdx.x % 32 * 8;
    float* mine = shared + threadIdx.x / 32 * s.width;
#pragma unroll
    for (int c = 0; c < Chunks; ++c)
        if (first + 256 * c < s.width)
#pragma unroll
            for (int i = 0; i < 8; ++i) mine[first + 256 * c + i] = dweight[c].v[i];
    __syncthreads();
    for (int column = int(threadIdx.x); column < s.width; column += kThreads) {
        float sum = 0;
        for (int warp = 0; warp < kWarps; ++warp) sum += shared[warp * s.width + column];
        parts[std::int64_t{blockIdx.x} * s.width + column] = sum;
    }
}

/// One row's three inputs as they lie in memory, at half the registers.
template <int Chunks>
struct RawRow {
    uint4 sum[Chunks], dy[Chunks], dresidual[Chunks];
    float inverse;

    __device__ __forceinline__ void load(const RmsNormShape& s, const RmsNormBackward& call,
                                         std::int64_t row) {
        const bool live = row < s.num_rows;
        inverse = live ? call.inverse[row] : 0.0f;
#pragma unroll
        for (int c = 0; c < Chunks; ++c) {
            const int column = threadIdx.x % 32 * 8 + 256 * c;
            const std::int64_t at = row * s.width + column;
            sum[c] = dy[c] = dresidual[c] = {};
            if (!live || column >= s.width) continue;
            sum[c] = load_raw(call.sum + at);
            dy[c] = load_raw(call.dy + at);
            if (call.dresidual != nullptr) dresidual[c] = load_raw(call.dresidual + at);
        }
    }
};

/// dweight += dy u, and <w dy, u> / width of the row, u = x inverse.
template <int Chunks>
__device__ __forceinline__ float mean_product(const RmsNormShape& s, const RawRow<Chunks>& row,
                                              const float* weights, Eight (&dweight)[Chunks]) {
    float product = 0;
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
        const int column = threadIdx.x % 32 * 8 + 256 * c;
        if (column >= s.width) continue;
        const Eight x = unpack(row.sum[c]), g = unpack(row.dy[c]), weight = load8(weights + column);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float gu = g.v[i] * (x.v[i] * row.inverse);
            dweight[c].v[i] += gu;
            product = fmaf(gu, weight.v[i], product);
        }
    }
    return sum_of_warp(product) / float(s.width);
}

template <int Chunks>
__device__ __forceinline__ void store_dx(const RmsNormShape& s, const RawRow<Chunks>& row,
                                         float mean, const float* weights, bf16* dx_row) {
    const float inverse = row.inverse;
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
        const int column = threadIdx.x % 32 * 8 + 256 * c;
        if (column >= s.width) continue;
        const Eight x = unpack(row.sum[c]), g = unpack(row.dy[c]), weight = load8(weights + column);
        Eight dx = unpack(row.dresidual[c]);
#pragma unroll
        for (int i = 0; i < 8; ++i)
            dx.v[i] = fmaf(inverse, fmaf(-mean, x.v[i] * inverse, weight.v[i] * g.v[i]), dx.v[i]);
        store8(dx_row + column, dx);
    }
}

template <int Chunks>
__global__ void __launch_bounds__(kThreads, blocks_at_once(Chunks))
    backward_kernel(RmsNormShape s, RmsNormBackward call, float* parts) {
    constexpr int kRows = rows_in_flight(Chunks);
    const std::int64_t num_warps = std::int64_t{gridDim.x} * kWarps;
    Eight dweight[Chunks];
#pragma unroll
    for (int c = 0; c < Chunks; ++c) dweight[c] = {};
    for (std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; row < s.num_rows;
         row += kRows * num_warps) {
        RawRow<Chunks> rows[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) rows[r].load(s, call, row + r * num_warps);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            if (row + r * num_warps >= s.num_rows) break;
            const float mean = mean_product(s, rows[r], call.weight, dweight);
            store_dx(s, rows[r], mean, call.weight, call.dx + (row + r * num_warps) * s.width);
        }
    }
    let_next_kernel_start();
    write_part<Chunks>(s, dweight, parts);
}

constexpr int kSumWarps = 32;

__global__ void __launch_bounds__(32 * kSumWarps)
    sum_parts_kernel(int width, int num_parts, const float* parts, bool accumulate, float* out) {
    __shared__ float sums[kSumWarps][32];
    const int column = int(blockIdx.x) * 32 + int(threadIdx.x) % 32, warp = threadIdx.x / 32;
    wait_for_previous_kernel();
    float sum = 0;
    if (column < width)
#pragma unroll 8
        for (int part = warp; part < num_parts; part += kSumWarps)
            sum += parts[std::int64_t{part} * width + column];
    sums[warp][threadIdx.x % 32] = sum;
    __syncthreads();
    if (warp != 0 || column >= width) return;
    for (int other = 1; other < kSumWarps; ++other) sum += sums[other][threadIdx.x];
    out[column] = accumulate ? out[column] + sum : sum;
}

void check_shape(const RmsNormShape& s) {
    if (s.width <= 0 || s.width % 8 != 0 || s.width > 4096)
        throw std::invalid_argument("rms norm: the width is a multiple of 8, at most 4096");
}

template <typename Launch>
void with_chunks(int width, Launch launch) {
    if (width <= 256) return launch(std::integral_constant<int, 1>{});
    if (width <= 512) return launch(std::integral_constant<int, 2>{});
    if (width <= 1024) return launch(std::integral_constant<int, 4>{});
    if (width <= 2048) return launch(std::integral_constant<int, 8>{});
    launch(std::integral_constant<int, 16>{});
}

int num_parts(const RmsNormShape& s) {
    int most = 0;
    with_chunks(s.width,
                [&](auto chunks) { most = kMultiprocessors * blocks_at_once(chunks.value); });
    return int(std::clamp<std::int64_t>((s.num_rows + 4 * kWarps - 1) / (4 * kWarps), 1, most));
}

}  // namespace

void rms_norm_forward(const RmsNormShape& s, const RmsNormForward& call, cudaStream_t stream) {
    check_shape(s);
    if (s.num_rows == 0) return;
    with_chunks(s.width, [&](auto chunks) {
        forward_kernel<chunks.value>
            <<<unsigned((s.num_rows + kWarps - 1) / kWarps), kThreads, 0, stream>>>(s, call);
    });
    check_launch();
}

std::size_t rms_norm_backward_workspace_bytes(const RmsNormShape& s) {
    return std::size_t(num_parts(s)) * std::size_t(s.width) * sizeof(float);
}

void rms_norm_backward(const RmsNormShape& s, const RmsNormBackward& call, void* workspace,
                       cudaStream_t stream) {
    check_shape(s);
    auto* parts = static_cast<float*>(workspace);
    const int bytes = kWarps * s.width * int(sizeof(float));
    with_chunks(s.width, [&](auto chunks) {
        const auto kernel = backward_kernel<chunks.value>;
        if (bytes > 48 * 1024)
            HEADWAY_CUDA_CHECK(
                cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
        kernel<<<num_parts(s), kThreads, bytes, stream>>>(s, call, parts);
    });
    check_launch();
    launch_dependent(sum_parts_kernel, {unsigned(s.width + 31) / 32, 32 * kSumWarps}, stream,
                     s.width, num_parts(s), parts, call.accumulate, call.dweight);
    check_launch();
}

}  // namespace headway::kernels
