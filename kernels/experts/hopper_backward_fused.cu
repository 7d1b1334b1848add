// Whole backward on Hopper in one kernel, where a block's registers hold the gradients of a group:
// d = 64, f = 128, no gate matrix. Per 128-row tile of one group
//   S = x W1^T, dA = dy W2^T, dgate = <act(S), dA>, dH = gate dA act'(S), dx = dH W1,
//   dW1 += dH^T x, dW2 += (gate act(S))^T dy,
// so nothing is spilled: dH and gate*act(S) pass through shared memory from the warpgroup that has
// their rows (64 of the tile) to the one that has their matrix (0 sums dW1, 1 sums dW2).
//
// The two chunks of 64 hidden units of all tiles of a block are one sequence of steps. A step waits
// for its S and dA; dx and the gradient of the chunk before run beside its arithmetic. Work items
// are the parts of split_plan.hpp, as in the weights kernel; every sum has a fixed order.
#include "kernels/experts/hopper_fused.cuh"

namespace headway::kernels::hopper {
namespace {

using namespace fused;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Pairs of values a thread differentiates before it starts the gradient of the chunk before, whose
// other half the other warpgroup may still be storing.
constexpr int pairs_before_gradient = 8;

template <Activation Act>
struct Consumer {
    const Params& p;
    Barriers& bars;
    uint32_t smem;
    int warpgroup;
    TileSequence tiles;

    float acc[num_chunks][32];  // dW1 or dW2
    float pre[1][32];
    float da[32];
    float dx[32];
    uint32_t dh[num_chunks][1][4][4] = {};
    Tile before{};  // the tile before `now`
    Tile now{};
    Tile next{};
    uint32_t index = 0;  // of `now`
    RowPair::Gates gates;

    __device__ __forceinline__ Consumer(const Params& params, Barriers& barriers, uint32_t base,
                                        int which)
        : p(params), bars(barriers), smem(base), warpgroup(which), tiles(params) {}

    __device__ __forceinline__ float* gradient(int destination) const {
        constexpr int64_t elements = int64_t{hidden} * width;
        if (destination < 0) return p.partials + (2 * int64_t{~destination} + warpgroup) * elements;
        return (warpgroup == 0 ? p.gradients.dw1 : p.gradients.dw2) + destination * elements;
    }
    // A group without rows has gradients of zero.
    __device__ __forceinline__ void zero_gradient(int group) const {
        if (p.gradients.accumulate) return;
        float4* out = reinterpret_cast<float4*>(gradient(group));
        for (int i = threadIdx.x % 128; i < hidden * width / 4; i += 128)
            out[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    __device__ __forceinline__ int first_row() const {
        return warpgroup * 64 + (threadIdx.x / 32 % 4) * 16;
    }
    __device__ __forceinline__ uint32_t rows(uint32_t tile) const {
        return smem + ring_position<num_tile_slots>(tile).slot * 2 * row_slot_bytes;
    }
    __device__ __forceinline__ uint32_t weights(const Tile& tile) const {
        return smem + weights_at + tile.weights % num_weight_slots * weight_slot_bytes;
    }
    __device__ __forceinline__ uint32_t image(int chunk, int matrix) const {
        return smem + images_at + chunk * image_bytes + matrix * 2 * block_bytes;
    }
    __device__ __forceinline__ RowPair::Gates load_gates(const Tile& tile) const {
        return RowPair::load(p.rows.row_gate + tile.row_begin, first_row(), tile.num_rows);
    }
    __device__ __forceinline__ static void arrive(uint64_t* bar) {
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(bar);
    }

    __device__ __forceinline__ void wait_operands() const {
        const auto at = ring_position<num_tile_slots>(index);
        const auto slot = ring_position<num_weight_slots>(now.weights);
        ptx::mbarrier_wait(&bars.weights_full[slot.slot], slot.phase);
        ptx::mbarrier_wait(&bars.rows_full[at.slot], at.phase);
        ptx::fence_proxy_async();
    }
    // Starts S and dA of a chunk of this tile.
    __device__ __forceinline__ void start_hidden(int chunk) {
        uint32_t x = rows(index) + warpgroup * row_slot_bytes;
        uint32_t w1 = weights(now) + chunk * block_bytes;
        keep_in_loop(x);
        keep_in_loop(w1);
        ptx::wgmma_fence();
        multiply_rows<width>(pre[0], x, w1);
        multiply_rows<width>(da, x + block_bytes, w1 + num_chunks * block_bytes);
        ptx::wgmma_commit();
    }
    // Starts dx (+)= dH W1 of a chunk.
    __device__ __forceinline__ void start_dx(const Tile& tile, int chunk) {
        uint32_t w1 = weights(tile) + chunk * block_bytes;
        keep_in_loop(w1);
        ptx::wgmma_fence();
        multiply_hidden<width>(dx, dh[chunk][0], w1, chunk > 0);
        ptx::wgmma_commit();
    }
    // Starts this warpgroup's gradient of a chunk: images by the tile's x or dy, at `of_tile`.
    __device__ __forceinline__ void start_gradient(const Tile& tile, uint32_t of_tile, int chunk) {
        const uint32_t left = ptx::wgmma_operand(image(chunk, warpgroup), block_bytes);
        const uint32_t right = ptx::wgmma_operand(of_tile + warpgroup * block_bytes, block_bytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 8; ++k)
            ptx::WgmmaSs<width, true, true>::mma(
                acc[chunk], ptx::wgmma_at(left, k * 2048),
                ptx::wgmma_at(right, k / 4 * row_slot_bytes + k % 4 * 2048), k > 0 || !tile.first);
        ptx::wgmma_commit();
    }
    __device__ __forceinline__ void store_images(int chunk, const uint32_t (&gated)[4][4]) const {
        const int lane = threadIdx.x % 32;
        const uint32_t at = warpgroup * block_bytes +
                            ((threadIdx.x / 32 % 4) * 16 + lane % 16) * 128 +
                            ((lane / 16) ^ (lane % 8)) * 16;
        store_fragments(image(chunk, 0) + at, dh[chunk][0]);
        store_fragments(image(chunk, 1) + at, gated);
        ptx::fence_proxy_async();
        __syncwarp();
        arrive(&bars.images_full[chunk]);
    }
    __device__ __forceinline__ void store_dx(const Tile& tile) const {
        store_rows<width>(dx, p.gradients.dx_row + int64_t{tile.row_begin} * width, first_row(),
                          tile.num_rows);
    }
    __device__ __forceinline__ void store_weights(const Tile& tile, int chunk) const {
        store_gradient<width, false>(acc[chunk], gradient(tile.destination) + chunk * 64 * width,
                                     p.gradients.accumulate && tile.destination >= 0);
    }

    template <int Chunk>
    __device__ __forceinline__ void step(RowPair& pair) {
        constexpr int other = 1 - Chunk;  // of the step before, in this tile or in the one before
        constexpr bool new_tile = Chunk == 0;
        const Tile& done = new_tile ? before : now;
        const uint32_t tile = index - new_tile;  // of `done`
        const bool any = !new_tile || index > 0;

        start_hidden(Chunk);
        start_dx(done, other);
        ptx::wgmma_wait<1>();
        uint32_t gated[4][4];
        differentiate_pairs<Act, 0, pairs_before_gradient>(pre, da, pair, dh[Chunk], gated);
        if (any) ptx::mbarrier_wait(&bars.images_full[other], tile & 1);
        // Before the first tile: zeros by zeros.
        start_gradient(done, any ? rows(tile) : smem + images_at, other);
        if constexpr (!new_tile) {
            next = tiles.after(now, [this](int group) { zero_gradient(group); });
            gates = load_gates(next);
        }
        differentiate_pairs<Act, pairs_before_gradient, 16>(pre, da, pair, dh[Chunk], gated);
        if (any) ptx::mbarrier_wait(&bars.images_empty[Chunk], tile & 1);
        store_images(Chunk, gated);

        ptx::wgmma_wait<0>();
        arrive(&bars.images_empty[other]);
        if (new_tile && any) {
            arrive(&bars.rows_empty[ring_position<num_tile_slots>(tile).slot]);
            if (before.last) arrive(&bars.weights_empty[before.weights % num_weight_slots]);
            store_dx(before);
        }
        if (done.last) store_weights(done, other);
    }

    __device__ __forceinline__ void run() {
        now = tiles.first([this](int group) { zero_gradient(group); });
        if (now.num_rows <= 0) return;
        before.weights = now.weights;
        gates = load_gates(now);
#pragma unroll 1
        for (; now.num_rows > 0; ++index) {
            RowPair pair(gates);
            wait_operands();
            step<0>(pair);
            step<1>(pair);
            pair.store(p.gradients.dgate + now.row_begin, first_row(), now.num_rows);
            before = now;
            now = next;
        }
        start_dx(before, 1);
        ptx::mbarrier_wait(&bars.images_full[1], (index - 1) & 1);
        start_gradient(before, rows(index - 1), 1);
        ptx::wgmma_wait<0>();
        store_dx(before);
        store_weights(before, 1);
    }
};

// What the gradients of the step before the first one run over.
__device__ __forceinline__ void zero_images(uint32_t smem) {
    for (uint32_t i = threadIdx.x - 128; i < num_chunks * image_bytes / 16; i += 256)
        asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(smem + images_at + i * 16),
                     "r"(0)
                     : "memory");
    ptx::fence_proxy_async();
    ptx::named_barrier_sync(1, 256);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <Activation Act>
__global__ void __launch_bounds__(num_threads, 1)
    backward_fused_kernel(const __grid_constant__ CUtensorMap map1,
                          const __grid_constant__ CUtensorMap map2, const Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ unsigned char raw_smem[];
    __shared__ Barriers bars;
    unsigned char* smem = raw_smem + (1024 - ptx::smem_addr(raw_smem) % 1024) % 1024;
    init_barriers(bars);

    const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    if (warpgroup == 0) {
        ptx::lower_registers<56>();
        const int warp = threadIdx.x / 32;
        if (warp > 0)
            gather_parts(p, ptx::smem_addr(smem), bars, warp - 1);
        else if (threadIdx.x == 0)
            stream_weights(p, &map1, &map2, smem + weights_at, bars);
    } else {
        ptx::raise_registers<224>();
        zero_images(ptx::smem_addr(smem));
        Consumer<Act>(p, bars, ptx::smem_addr(smem), warpgroup - 1).run();
    }
#endif
}

template <Activation Act>
void launch(const RowsArguments& a, const Params& params, cudaStream_t stream) {
    const auto kernel = backward_fused_kernel<Act>;
    HEADWAY_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem_bytes));
    const int64_t rows = int64_t{a.shape.num_groups} * hidden;
    const CUtensorMap map1 = weight_map(a.weights.w1, rows, width, hidden);
    const CUtensorMap map2 = weight_map(a.weights.w2, rows, width, hidden);
    kernel<<<num_multiprocessors(), num_threads, smem_bytes, stream>>>(map1, map2, params);
    check_launch();
}

}  // namespace

bool backward_fits_one_kernel(const ExpertShape& shape) {
    return shape.width == width && shape.hidden == hidden && !shape.gated();
}

void backward_fused(const RowsArguments& a, const SplitWorkspace& w, cudaStream_t stream) {
    plan_parts(a.shape, a.rows.expert_offset, w, stream);
    const Params params{a.rows, w.counts, w.parts, a.x, a.dy_token, a.gradients, w.partials};
    if (a.shape.activation == Activation::gelu_tanh)
        launch<Activation::gelu_tanh>(a, params, stream);
    else
        launch<Activation::gelu_erf>(a, params, stream);
    add_partials(a.shape, w, a.gradients.dw1, a.gradients.dw2, stream);
}

}  // namespace headway::kernels::hopper
