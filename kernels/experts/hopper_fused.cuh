// What feeds the fused backward (hopper_backward_fused.cu): its shared memory, the walk over a
// block's tiles and the producer warps.
#pragma once

#include "kernels/experts/hopper.hpp"
#include "kernels/experts/hopper_device.cuh"

namespace headway::kernels::hopper::fused {

inline constexpr int width = 64;
inline constexpr int num_chunks = 2;  // of 64 hidden units
inline constexpr int hidden = 64 * num_chunks;
inline constexpr int num_tile_slots = 3;
inline constexpr int num_row_slots = 2 * num_tile_slots;  // halves of tiles
inline constexpr int num_weight_slots = 2;

// Dynamic shared memory: rows, weights, images.
inline constexpr uint32_t row_slot_bytes = 2 * block_bytes;                  // 64 rows of x, of dy
inline constexpr uint32_t weight_slot_bytes = 2 * num_chunks * block_bytes;  // W1, W2
inline constexpr uint32_t image_bytes =
    4 * block_bytes;  // a chunk's dH of both halves, gate*act(S)
inline constexpr uint32_t weights_at = num_row_slots * row_slot_bytes;
inline constexpr uint32_t images_at = weights_at + num_weight_slots * weight_slot_bytes;
inline constexpr uint32_t smem_bytes = images_at + num_chunks * image_bytes + 1024;
static_assert(smem_bytes + 512 <= max_smem_bytes);

struct Params {
    RowGrouping rows;
    const WorkCounts* counts;
    const WorkPart* parts;
    const __nv_bfloat16* x;
    const __nv_bfloat16* dy_token;
    ExpertGradients gradients;
    float* partials;
};

struct Barriers {
    uint64_t rows_full[num_tile_slots];
    uint64_t rows_empty[num_tile_slots];
    uint64_t weights_full[num_weight_slots];
    uint64_t weights_empty[num_weight_slots];
    uint64_t images_full[num_chunks];
    uint64_t images_empty[num_chunks];
};

__device__ __forceinline__ void init_barriers(Barriers& bars) {
    const auto init = [](auto& ring, uint32_t num_arrivals) {
        for (uint64_t& bar : ring) ptx::mbarrier_init(&bar, num_arrivals);
    };
    if (threadIdx.x == 0) {
        init(bars.rows_full, 2 * gather_arrivals);
        init(bars.weights_full, 2);
        init(bars.images_full, 8);
        init(bars.rows_empty, 8);
        init(bars.weights_empty, 8);
        init(bars.images_empty, 8);
        ptx::mbarrier_init_fence();
        ptx::fence_proxy_async();
    }
    __syncthreads();
}

__device__ __forceinline__ WorkPart load_part(const Params& p, int i, int num_parts) {
    if (i >= num_parts) return {-1, 0, 0, 0, -1};
    const int32_t* words = reinterpret_cast<const int32_t*>(p.parts + i);
    return {__ldg(words), __ldg(words + 1), __ldg(words + 2), __ldg(words + 3), __ldg(words + 4)};
}

// One tile of a block's sequence.
struct Tile {
    int row_begin = 0;
    int num_rows = 0;      // none: the sequence has ended
    int destination = 0;   // group, or ~partial
    uint32_t weights = 0;  // loads of weights before its own
    int first = 1;         // of its part
    int last = 0;
};

// The tiles of this block's parts, in order. Parts are fetched one ahead.
struct TileSequence {
    const Params& p;
    int num_parts;
    int item;
    int row = 0;
    WorkPart part;
    WorkPart ahead;

    __device__ __forceinline__ explicit TileSequence(const Params& params)
        : p(params),
          num_parts(__ldg(&params.counts->num_parts)),
          item(static_cast<int>(blockIdx.x)),
          part(load_part(params, item, num_parts)),
          ahead(load_part(params, item + static_cast<int>(gridDim.x), num_parts)) {}

    // `on_empty(group)` is called for each group without rows that comes before the tile.
    template <typename OnEmpty>
    __device__ __forceinline__ Tile first(OnEmpty on_empty) {
        return at_hand(0, on_empty);
    }
    template <typename OnEmpty>
    __device__ __forceinline__ Tile after(const Tile& now, OnEmpty on_empty) {
        row += expert_tile_rows;
        if (row < part.num_rows) return at_hand(now.weights, on_empty);
        next_part();
        return at_hand(now.weights + 1, on_empty);
    }

  private:
    __device__ __forceinline__ void next_part() {
        row = 0;
        item += static_cast<int>(gridDim.x);
        part = ahead;
        ahead = load_part(p, item + static_cast<int>(gridDim.x), num_parts);
    }
    template <typename OnEmpty>
    __device__ __forceinline__ Tile at_hand(uint32_t weights, OnEmpty on_empty) {
        while (part.num_rows == 0 && part.group >= 0) {
            on_empty(part.group);
            next_part();
        }
        return {part.row_begin + row,
                min(part.num_rows - row, expert_tile_rows),
                part.partial < 0 ? part.group : ~part.partial,
                weights,
                row == 0,
                row + expert_tile_rows >= part.num_rows};
    }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ void stream_weights(const Params& p, const CUtensorMap* map1,
                                               const CUtensorMap* map2, unsigned char* slots,
                                               Barriers& bars) {
    const int num_parts = __ldg(&p.counts->num_parts);
    uint32_t load = 0;
    for (int i = blockIdx.x; i < num_parts; i += gridDim.x) {
        const WorkPart part = load_part(p, i, num_parts);
        if (part.num_rows == 0) continue;
        const auto at = ring_position<num_weight_slots>(load++);
        ptx::mbarrier_wait(&bars.weights_empty[at.slot], at.phase ^ 1);
        unsigned char* slot = slots + at.slot * weight_slot_bytes;
        uint64_t* full = &bars.weights_full[at.slot];
        load_weight_slot<width, hidden>(slot, map1, full, part.group * hidden);
        load_weight_slot<width, hidden>(slot + num_chunks * block_bytes, map2, full,
                                        part.group * hidden);
    }
}

// Producer warp's share of the half tiles, numbered over all of the block's parts: every third one.
// Sub-tokens of its next half, which may belong to the next part, are fetched ahead.
__device__ __forceinline__ void gather_parts(const Params& p, uint32_t slots, Barriers& bars,
                                             int gather_warp) {
    constexpr int step = num_gather_warps(num_row_slots);
    const int num_parts = __ldg(&p.counts->num_parts);
    const int stride = static_cast<int>(gridDim.x);
    const auto fetch = [&](const WorkPart& part, int k) {
        return load_tokens(p.rows.row_token, int64_t{part.row_begin} + k * 64,
                           part.num_rows - k * 64);
    };
    int i = static_cast<int>(blockIdx.x);
    int k = gather_warp;  // of this part; past its last half: of a later one
    uint32_t load = gather_warp;
    WorkPart part = load_part(p, i, num_parts);
    RowTokens tokens = fetch(part, k);
    while (i < num_parts) {
        const WorkPart next_part = load_part(p, i + stride, num_parts);
        const int num_halves = (part.num_rows + 127) / 128 * 2;
        const bool any = k < num_halves;
#pragma unroll 1
        for (; k < num_halves; k += step, load += step) {
            const int ahead = k + step;
            const RowTokens next =
                ahead < num_halves ? fetch(part, ahead) : fetch(next_part, ahead - num_halves);
            const auto at = ring_position<num_row_slots>(load);
            ptx::mbarrier_wait(&bars.rows_empty[at.slot / 2], at.phase ^ 1);
            const uint32_t slot = slots + at.slot * row_slot_bytes;
            gather_rows<width, 1>(slot, p.x, tokens, 0);
            gather_rows<width, 1>(slot + block_bytes, p.dy_token, tokens, 0);
            ptx::cp_async_arrive(&bars.rows_full[at.slot / 2]);
            tokens = next;
        }
        k -= num_halves;
        part = next_part;
        i += stride;
        if (!any) tokens = fetch(part, k);
    }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace headway::kernels::hopper::fused
