// What the fast kernels share whatever the instruction set: tile layout in shared memory, the row
// gather, the activation step on accumulator fragments and the stores of accumulators.
//
// Every operand tile in shared memory is a stack of 8 KiB blocks of [64 rows][64 elements], rows of
// 128 bytes, 16-byte chunk c of row r at chunk c ^ (r & 7). Accumulators of 64 x N are held as
// mma.sync and wgmma both do: d[4j + 2h + i] is row lane/4 + 8h, column 8j + 2 (lane%4) + i.
#pragma once

#include <cuda_bf16.h>

#include "kernels/experts/activation.cuh"
#include "kernels/experts/experts.hpp"
#include "kernels/ptx/cp_async.cuh"

namespace headway::kernels {

inline constexpr uint32_t block_bytes = 8192;

__device__ __forceinline__ TileDescriptor load_tile(const TileDescriptor* tiles, int idx, int end) {
    if (idx >= end) return {-1, 0, 0};
    const int32_t* words = reinterpret_cast<const int32_t*>(tiles + idx);
    return {__ldg(words), __ldg(words + 1), __ldg(words + 2)};
}

// The sub-tokens of up to 64 consecutive pool rows, two a lane.
struct RowTokens {
    int low = 0;
    int high = 0;
    int count = 0;  // rows there are; may be negative or past 64
};
__device__ __forceinline__ RowTokens load_tokens(const int32_t* row_token, int64_t row_begin,
                                                 int num_rows) {
    const int lane = threadIdx.x % 32;
    RowTokens tokens{0, 0, num_rows};
    if (lane < num_rows) tokens.low = __ldg(row_token + row_begin + lane);
    if (lane + 32 < num_rows) tokens.high = __ldg(row_token + row_begin + lane + 32);
    return tokens;
}

// Gathers one warp's share of 64 rows of `source` (rows 64 / Warps * warp and on) into D/64 blocks;
// rows past the end become zeros, which is what keeps padding out of every product. Few
// instructions a row, four in flight: one warp's issue rate bounds a gather.
template <int D, int Warps>
__device__ __forceinline__ void gather_rows(uint32_t dst, const __nv_bfloat16* source,
                                            const RowTokens& tokens, int warp) {
    constexpr int chunks_per_row = D / 8;
    constexpr int rows_per_step = 32 / chunks_per_row;
    constexpr int num_steps = 64 / Warps / rows_per_step;
    constexpr int batch = num_steps < 4 ? num_steps : 4;
    const int lane = threadIdx.x % 32;
    const int chunk = lane % chunks_per_row;
    const int first_row = warp * (64 / Warps) + lane / chunks_per_row;
    uint32_t addr = dst + (chunk / 8) * block_bytes + first_row * 128 +
                    ((chunk ^ (lane / chunks_per_row)) & 7) * 16;
    const char* base = reinterpret_cast<const char*>(source + chunk * 8);
    asm volatile("" : "+l"(base));  // else every row's address is built anew from `source`
#pragma unroll 1
    for (int s = 0; s < num_steps; s += batch) {
        const int row = first_row + s * rows_per_step;
        const int held = row < 32 ? tokens.low : tokens.high;
        const uint32_t swizzled = addr ^ ((s * rows_per_step) & 7) * 16;
        uint32_t token[batch];
#pragma unroll
        for (int i = 0; i < batch; ++i)
            token[i] = __shfl_sync(0xffffffff, held, row + i * rows_per_step);
#pragma unroll
        for (int i = 0; i < batch; ++i)
            ptx::cp_async_16((swizzled ^ ((i * rows_per_step) & 7) * 16) + i * rows_per_step * 128,
                             base + static_cast<uint64_t>(token[i]) * (2 * D),
                             row + i * rows_per_step < tokens.count);
        addr += batch * rows_per_step * 128;
    }
}

// act(S) / activation_scale of values 4 First to 4 Last of a 64 x N slice (gate and up when gated),
// as A fragments of the second product.
template <Activation Act, bool Gated, int N, int First = 0, int Last = N / 8>
__device__ __forceinline__ void activate_slice(const float (&pre)[Gated ? 2 : 1][N / 2],
                                               uint32_t (&hidden)[(Last - First) / 2][4]) {
#pragma unroll
    for (int i = 2 * First; i < 2 * Last; ++i) {
        float low = activate_scaled<Act>(pre[0][2 * i]);
        float high = activate_scaled<Act>(pre[0][2 * i + 1]);
        if constexpr (Gated) {
            low *= pre[1][2 * i];
            high *= pre[1][2 * i + 1];
        }
        hidden[i / 4 - First / 2][i % 4] = pack_bf16(low, high);
    }
}

__device__ __forceinline__ float quad_sum(float v) {
    v += __shfl_xor_sync(0xffffffff, v, 1);
    return v + __shfl_xor_sync(0xffffffff, v, 2);
}

// The two rows of a thread: row lane/4 and lane/4 + 8 of its warp's 16. Their gates multiply every
// value as it is made, so dgate is summed times the gate and divided at the end; a gate below
// `least_gate` counts as that, which no sum of others can tell from 0.
struct RowPair {
    static constexpr float least_gate = 0x1p-100f;
    float half_gate[2];
    float gated_dgate[2] = {0.0f, 0.0f};

    struct Gates {
        float of_row[2];
    };
    // Apart, so that a tile's gates can be fetched ahead.
    __device__ __forceinline__ static Gates load(const float* row_gate, int first_row,
                                                 int num_rows) {
        Gates gates;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = first_row + threadIdx.x % 32 / 4 + 8 * half;
            gates.of_row[half] = row < num_rows ? __ldg(row_gate + row) : 1.0f;
        }
        return gates;
    }
    __device__ __forceinline__ explicit RowPair(const Gates& gates) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float gate = gates.of_row[half];
            half_gate[half] = 0.5f * (fabsf(gate) < least_gate ? least_gate : gate);
        }
    }
    __device__ __forceinline__ void store(float* dgate, int first_row, int num_rows) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float total = __fdividef(quad_sum(gated_dgate[half]), 2.0f * half_gate[half]);
            const int row = first_row + threadIdx.x % 32 / 4 + 8 * half;
            if (threadIdx.x % 4 == 0 && row < num_rows) dgate[row] = total;
        }
    }
};

// Where a thread's values of row lane/4 of its warp's 16 begin in an image.
__device__ __forceinline__ uint32_t image_offset(int first_row) {
    const int lane = threadIdx.x % 32;
    const int row = first_row + lane / 4;
    return row * 128 + ((lane % 4) ^ (row & 7)) * 16;
}

// Stores a thread's packed values of the `part`th of `Parts` parts of a 64-wide image (row halves
// interleaved as A fragments).
template <int Parts = 1>
__device__ __forceinline__ void store_image(unsigned char* image, const uint32_t (&v)[4 / Parts][4],
                                            uint32_t offset, int part = 0) {
#pragma unroll
    for (int h = 0; h < 2 / Parts; ++h) {
        unsigned char* at = image + (offset ^ ((h + part) * 64));
#pragma unroll
        for (int half = 0; half < 2; ++half)
            *reinterpret_cast<uint4*>(at + half * 1024) = make_uint4(
                v[2 * h][half], v[2 * h][2 + half], v[2 * h + 1][half], v[2 * h + 1][2 + half]);
    }
}

// One slice of 64 rows: pre = S (gate, up when gated), da = dA; fills dH fragments and gate*act(S),
// or of its pairs of values those from First to Last.
template <Activation Act, int First, int Last, int Slices1, int N>
__device__ __forceinline__ void differentiate_pairs(const float (&pre)[Slices1][N],
                                                    const float (&da)[N], RowPair& rows,
                                                    uint32_t (&dh)[Slices1][N / 8][4],
                                                    uint32_t (&gated)[N / 8][4]) {
    static_assert(Slices1 == (Act == Activation::swiglu ? 2 : 1));
#pragma unroll
    for (int i = First; i < Last; ++i) {
        const int r = i % 2;
        float value[2];
        float dfirst[2];
        float dsecond[2] = {0.0f, 0.0f};
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int n = 2 * i + e;
            const ValueSlope act = activate_with_slope<Act>(pre[0][n], rows.half_gate[r]);
            value[e] = act.value;
            dfirst[e] = da[n] * act.slope;
            if constexpr (Slices1 == 2) {
                value[e] *= pre[1][n];
                dfirst[e] *= pre[1][n];
                dsecond[e] = da[n] * act.value;
            }
            rows.gated_dgate[r] = fmaf(value[e], da[n], rows.gated_dgate[r]);
        }
        gated[i / 4][i % 4] = pack_bf16(value[0], value[1]);
        dh[0][i / 4][i % 4] = pack_bf16(dfirst[0], dfirst[1]);
        if constexpr (Slices1 == 2) dh[1][i / 4][i % 4] = pack_bf16(dsecond[0], dsecond[1]);
    }
}
template <Activation Act, int Slices1, int N>
__device__ __forceinline__ void differentiate_slice(const float (&pre)[Slices1][N],
                                                    const float (&da)[N], RowPair& rows,
                                                    uint32_t (&dh)[Slices1][N / 8][4],
                                                    uint32_t (&gated)[N / 8][4]) {
    differentiate_pairs<Act, 0, N / 2>(pre, da, rows, dh, gated);
}

// Writes this warp's 16 rows of a [64, D] accumulator as bf16, each pair of values through
// `finish`; neighbouring lanes swap halves so that a quad writes whole 32-byte sectors.
template <int D, typename Finish>
__device__ __forceinline__ void store_rows(const float (&acc)[D / 2], __nv_bfloat16* dst,
                                           int first_row, int num_rows, Finish finish) {
    const int lane = threadIdx.x % 32;
    const bool odd = lane % 2 == 1;
    const int column = odd ? 8 + 2 * (lane % 4 - 1) : 2 * (lane % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = first_row + lane / 4 + 8 * half;
        __nv_bfloat16* out = dst + static_cast<int64_t>(row) * D + column;
#pragma unroll
        for (int i = 0; i < D / 16; ++i) {
            const uint32_t even_block =
                finish(pack_bf16(acc[8 * i + 2 * half], acc[8 * i + 2 * half + 1]));
            const uint32_t odd_block =
                finish(pack_bf16(acc[8 * i + 4 + 2 * half], acc[8 * i + 5 + 2 * half]));
            const uint32_t got = __shfl_xor_sync(0xffffffff, odd ? even_block : odd_block, 1);
            const uint2 pair = odd ? make_uint2(got, odd_block) : make_uint2(even_block, got);
            if (row < num_rows) *reinterpret_cast<uint2*>(out + 16 * i) = pair;
        }
    }
}
template <int D>
__device__ __forceinline__ void store_rows(const float (&acc)[D / 2], __nv_bfloat16* dst,
                                           int first_row, int num_rows) {
    store_rows<D>(acc, dst, first_row, num_rows, [](uint32_t pair) { return pair; });
}

// Writes this warp's 16 rows of a [64, D] accumulator, divided by what the activation's result was
// multiplied by (a power of two), as bf16.
template <int D, Activation Act>
__device__ __forceinline__ void store_output(const float (&acc)[D / 2], __nv_bfloat16* dst,
                                             int first_row, int num_rows) {
    store_rows<D>(acc, dst, first_row, num_rows, [](uint32_t pair) {
        if constexpr (activation_scale<Act> == 1.0f) return pair;
        const __nv_bfloat162 scaled = __hmul2(reinterpret_cast<const __nv_bfloat162&>(pair),
                                              __float2bfloat162_rn(1.0f / activation_scale<Act>));
        return reinterpret_cast<const uint32_t&>(scaled);
    });
}

// Image position -> hidden unit, the inverse of the rows kernel's store.
__device__ __forceinline__ int hidden_unit(int position) {
    return (position & 32) + ((position / 2) % 4) * 8 + ((position / 8) % 4) * 2 + position % 2;
}

// The thread does not wait for what lies there. Only one thread adds to an element, so results
// repeat bitwise.
__device__ __forceinline__ void add_in_memory(float2* to, float2 value) {
#if __CUDA_ARCH__ >= 900
    atomicAdd(to, value);
#else
    atomicAdd(&to->x, value.x);
    atomicAdd(&to->y, value.y);
#endif
}

// `accumulate`: adds to what lies there.
template <int D, bool Permuted = true>
__device__ __forceinline__ void store_gradient(const float (&acc)[D / 2], float* block,
                                               bool accumulate) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int position = (threadIdx.x / 32 % 4) * 16 + lane / 4 + 8 * half;
        const int unit = Permuted ? hidden_unit(position) : position;
        float* row = block + unit * D + 2 * (lane % 4);
#pragma unroll
        for (int j = 0; j < D / 8; ++j) {
            const float2 pair = make_float2(acc[4 * j + 2 * half], acc[4 * j + 2 * half + 1]);
            if (accumulate) {
                add_in_memory(reinterpret_cast<float2*>(row + 8 * j), pair);
                continue;
            }
            // Streaming keeps x and dy in the L2 cache; at d = 256 it was slower (H200).
            if constexpr (D < 256)
                __stcs(reinterpret_cast<float2*>(row + 8 * j), pair);
            else
                *reinterpret_cast<float2*>(row + 8 * j) = pair;
        }
    }
}

}  // namespace headway::kernels
