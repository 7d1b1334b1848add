#include <stdexcept>

#include "kernels/check.hpp"
#include "kernels/combine/combine.hpp"

namespace headway::kernels {

namespace {

constexpr int threads = 256;
constexpr int chunk = 8;  // bf16 elements of one 16-byte access

// Pool rows are read once: keep them out of L1, which holds the router's weights.
__device__ uint4 load_streaming(const __nv_bfloat16* from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

__device__ void add_scaled(float (&sum)[chunk], uint4 packed, float scale) {
    const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sum[2 * i] = fmaf(scale, __uint_as_float(words[i] << 16), sum[2 * i]);
        sum[2 * i + 1] = fmaf(scale, __uint_as_float(words[i] & 0xFFFF0000u), sum[2 * i + 1]);
    }
}

__device__ void store(__nv_bfloat16* to, const float (&sum)[chunk]) {
    uint4 packed;
    auto* pairs = reinterpret_cast<__nv_bfloat162*>(&packed);
#pragma unroll
    for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(sum[2 * i], sum[2 * i + 1]);
    *reinterpret_cast<uint4*>(to) = packed;
}

// sum += sum_j scale_j rows[row_j] over the k choices, `batch` independent gathers in flight.
template <int batch, bool scaled>
__device__ void gather_sum(float (&sum)[chunk], const __nv_bfloat16* rows, int width, int column,
                           const int32_t* row, const float* scale, int k) {
    for (int j = 0; j < k; j += batch) {
        uint4 values[batch];
        float scales[batch];
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            const bool live = j + b < k;
            values[b] = live ? load_streaming(rows + int64_t(row[j + b]) * width + column)
                             : uint4{0, 0, 0, 0};
            scales[b] = !live ? 0.0f : scaled ? scale[j + b] : 1.0f;
        }
#pragma unroll
        for (int b = 0; b < batch; ++b) add_scaled(sum, values[b], scales[b]);
    }
}

// One thread per 16 bytes of one sub-token.
template <int batch>
__global__ void __launch_bounds__(threads)
    forward_kernel(CombineShape shape, const __nv_bfloat16* __restrict__ y,
                   const float* __restrict__ gate, const int32_t* __restrict__ token_row,
                   __nv_bfloat16* __restrict__ y_token) {
    const int chunks = shape.width / chunk;
    const int64_t item = int64_t(blockIdx.x) * threads + threadIdx.x;
    const int64_t token = item / chunks;
    if (token >= shape.num_subtokens()) return;
    const int column = int(item % chunks) * chunk;
    float sum[chunk] = {};
    gather_sum<batch, true>(sum, y, shape.width, column, token_row + token * shape.top_k,
                            gate + token * shape.top_k, shape.top_k);
    store(y_token + token * shape.width + column, sum);
}

// sum_j dlogit_j R[e_j], `batch` choices in flight; with one batch everything is loaded before its
// first use.
template <int batch>
__device__ void add_router_term(float (&sum)[chunk], const CombineShape& shape,
                                const RouterTerm& router, int64_t token, int column,
                                const int32_t* row) {
    const int k = shape.top_k;
    const float* gate = router.gate + token * k;
    const int32_t* index = router.index + token * k;
    const float* weights =
        router.weights + token / shape.num_tokens * router.num_experts * shape.width + column;
    float mean = 0;
    for (int j = 0; j < k; ++j) mean = fmaf(gate[j], router.dgate_row[row[j]], mean);
    if (column == 0 && router.mean_dgate != nullptr) router.mean_dgate[token] = mean;
    for (int j = 0; j < k; j += batch) {
        float4 r[batch][2];
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            const int expert = j + b < k ? index[j + b] : 0;
            const auto* from =
                reinterpret_cast<const float4*>(weights + int64_t(expert) * shape.width);
            r[b][0] = __ldg(from), r[b][1] = __ldg(from + 1);
        }
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            if (j + b >= k) break;
            const float dlogit = gate[j + b] * (router.dgate_row[row[j + b]] - mean);
            const float values[chunk] = {r[b][0].x, r[b][0].y, r[b][0].z, r[b][0].w,
                                         r[b][1].x, r[b][1].y, r[b][1].z, r[b][1].w};
#pragma unroll
            for (int i = 0; i < chunk; ++i) sum[i] = fmaf(dlogit, values[i], sum[i]);
        }
    }
}

// Both parts for k known when compiling, and at most as many choices as threads of a sub-token:
// thread j of the sub-token's width / 8 holds choice j, so ids and gates are read once, and all
// gathers are in flight together.
template <int k>
__device__ void gather_with_router_term(float (&sum)[chunk], const __nv_bfloat16* dx_row,
                                        const CombineShape& shape, const RouterTerm& router,
                                        int64_t token, int column, const int32_t* token_row) {
    const int group = shape.width / chunk, lane = column / chunk;
    const float* weights =
        router.weights + token / shape.num_tokens * router.num_experts * shape.width + column;
    int32_t row = 0, expert = 0;
    float gate = 0, dgate = 0;
    if (lane < k) {
        row = token_row[token * k + lane];
        expert = router.index[token * k + lane];
        gate = router.gate[token * k + lane];
        dgate = __ldg(router.dgate_row + row);
    }
    float dlogit = 0;
    constexpr int batch = k < 4 ? k : 4;
#pragma unroll
    for (int first = 0; first < k; first += batch) {
        uint4 value[batch];
        float4 r[batch][2];
#pragma unroll
        for (int j = 0; j < batch; ++j)
            value[j] = load_streaming(
                dx_row + int64_t(__shfl_sync(~0u, row, first + j, group)) * shape.width + column);
#pragma unroll
        for (int j = 0; j < batch; ++j) {
            const auto* from = reinterpret_cast<const float4*>(
                weights + int64_t(__shfl_sync(~0u, expert, first + j, group)) * shape.width);
            r[j][0] = __ldg(from), r[j][1] = __ldg(from + 1);
        }
        if (first == 0) {  // with the first gathers already in flight
            float mean = gate * dgate;
            for (int step = group / 2; step > 0; step /= 2)
                mean += __shfl_xor_sync(~0u, mean, step, group);
            dlogit = gate * (dgate - mean);
            if (lane == 0 && router.mean_dgate != nullptr) router.mean_dgate[token] = mean;
        }
#pragma unroll
        for (int j = 0; j < batch; ++j) {
            const float scale = __shfl_sync(~0u, dlogit, first + j, group);
            const float values[chunk] = {r[j][0].x, r[j][0].y, r[j][0].z, r[j][0].w,
                                         r[j][1].x, r[j][1].y, r[j][1].z, r[j][1].w};
#pragma unroll
            for (int i = 0; i < chunk; ++i) sum[i] = fmaf(scale, values[i], sum[i]);
            add_scaled(sum, value[j], 1.0f);
        }
    }
}

// `exact`: k is `batch`, both parts are wanted, and width / 8 is a power of two in [k, 32].
template <int batch, bool exact>
__global__ void __launch_bounds__(threads)
    backward_kernel(CombineShape shape, const __nv_bfloat16* __restrict__ dx_row,
                    const int32_t* __restrict__ token_row, RouterTerm router,
                    __nv_bfloat16* __restrict__ dx_token) {
    const int chunks = shape.width / chunk;
    const int64_t item = int64_t(blockIdx.x) * threads + threadIdx.x;
    const bool live = item / chunks < shape.num_subtokens();
    if (!exact && !live) return;
    // Threads beyond the end repeat the last sub-token: every lane must reach the shuffles.
    const int64_t token = live ? item / chunks : shape.num_subtokens() - 1;
    const int column = int(item % chunks) * chunk;
    float sum[chunk] = {};
    if constexpr (exact) {
        gather_with_router_term<batch>(sum, dx_row, shape, router, token, column, token_row);
    } else {
        const int32_t* row = token_row + token * shape.top_k;
        if (dx_row != nullptr)
            gather_sum<batch, false>(sum, dx_row, shape.width, column, row, nullptr, shape.top_k);
        if (router.weights != nullptr)
            add_router_term<batch>(sum, shape, router, token, column, row);
    }
    store(dx_token + token * shape.width + column, sum);
}

int grid_size(const CombineShape& shape) {
    if (shape.width < 8 || shape.width > 256 || shape.width % chunk != 0 || shape.top_k < 1 ||
        shape.top_k > 32)
        throw std::invalid_argument(
            "combine: width must be a multiple of 8 up to 256, and 1 <= k <= 32");
    const int64_t items = shape.num_subtokens() * (shape.width / chunk);
    return int((items + threads - 1) / threads);
}

}  // namespace

void combine_forward(const CombineShape& shape, const __nv_bfloat16* y, const float* gate,
                     const int32_t* token_row, __nv_bfloat16* y_token, cudaStream_t stream) {
    const int grid = grid_size(shape);
    if (grid == 0) return;
    const auto kernel = shape.top_k == 1   ? forward_kernel<1>
                        : shape.top_k == 2 ? forward_kernel<2>
                        : shape.top_k <= 4 ? forward_kernel<4>
                                           : forward_kernel<8>;
    kernel<<<grid, threads, 0, stream>>>(shape, y, gate, token_row, y_token);
    check_launch();
}

void combine_backward(const CombineShape& shape, const __nv_bfloat16* dx_row,
                      const int32_t* token_row, const RouterTerm& router, __nv_bfloat16* dx_token,
                      cudaStream_t stream) {
    const int grid = grid_size(shape);
    if (grid == 0) return;
    const int lanes = shape.width / chunk;
    const bool exact = dx_row != nullptr && router.weights != nullptr &&
                       (lanes & (lanes - 1)) == 0 && lanes >= shape.top_k;
    const auto kernel = exact && shape.top_k == 1   ? backward_kernel<1, true>
                        : exact && shape.top_k == 2 ? backward_kernel<2, true>
                        : exact && shape.top_k == 4 ? backward_kernel<4, true>
                        : exact && shape.top_k == 8 ? backward_kernel<8, true>
                                                    : backward_kernel<4, false>;
    kernel<<<grid, threads, 0, stream>>>(shape, dx_row, token_row, router, dx_token);
    check_launch();
}

}  // namespace headway::kernels
