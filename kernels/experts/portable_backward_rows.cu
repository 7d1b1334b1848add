// Portable first backward kernel: recompute, dx, dgate and the spilled images of dH and gate*A, as
// the Hopper rows kernel. One shared-memory slot serves W1 and W2 in turn, so that d = 256 fits
// devices with 100 KiB a block; W1 is loaded again for dx = dH W1.
#include "kernels/experts/portable.hpp"
#include "kernels/experts/portable_device.cuh"

namespace headway::kernels::portable {
namespace {

struct RowsParams {
    RowGrouping rows;
    ExpertWeights weights;
    const __nv_bfloat16* x;
    const __nv_bfloat16* dy_token;
    __nv_bfloat16* dx_row;
    float* dgate;
    unsigned char* hidden_gradient;
    unsigned char* gated_hidden;
    int hidden;
};

template <int D>
__device__ __forceinline__ void replace_slice(uint32_t slot, const __nv_bfloat16* source) {
    __syncthreads();
    load_slice<D>(slot, source);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();
}

template <int D, Activation Act>
__global__ void __launch_bounds__(num_threads) backward_rows_kernel(const RowsParams p) {
    constexpr int slices1 = Act == Activation::swiglu ? 2 : 1;
    constexpr uint32_t tile_bytes = 128 * D;
    extern __shared__ __align__(128) unsigned char smem[];
    const uint32_t x = ptx::smem_addr(smem);
    const uint32_t dy = x + tile_bytes;
    const uint32_t slot = dy + tile_bytes;
    const int warp = threadIdx.x / 32;
    const int first_row = warp * 16;
    const int num_chunks = p.hidden / 64;

    const HalfTile tile = half_tile(p.rows);
    if (tile.num_rows <= 0) return;
    const RowTokens tokens = load_tokens(p.rows.row_token, tile.row_begin, tile.num_rows);
    gather_rows<D, num_warps>(x, p.x, tokens, warp);
    gather_rows<D, num_warps>(dy, p.dy_token, tokens, warp);
    RowPair row_pair(RowPair::load(p.rows.row_gate + tile.row_begin, first_row, tile.num_rows));
    const uint32_t offset = image_offset(first_row);
    const int64_t image = (int64_t{tile.idx} * 2 + tile.half) * num_chunks * block_bytes;
    const __nv_bfloat16* w1 = p.weights.w1 + int64_t{tile.group} * slices1 * p.hidden * D;
    const __nv_bfloat16* w2 = p.weights.w2 + int64_t{tile.group} * p.hidden * D;

    float dx[D / 2] = {};
#pragma unroll 1
    for (int c = 0; c < num_chunks; ++c) {
        float pre[slices1][32];
        float da[32];
#pragma unroll
        for (int s = 0; s < slices1; ++s) {
            replace_slice<D>(slot, w1 + (int64_t{s} * p.hidden + c * 64) * D);
            multiply_rows<D>(pre[s], x, slot);
        }
        replace_slice<D>(slot, w2 + int64_t{c} * 64 * D);
        multiply_rows<D>(da, dy, slot);
        uint32_t dh[slices1][4][4];
        uint32_t gated[4][4];
        differentiate_slice<Act>(pre, da, row_pair, dh, gated);
        store_image(p.gated_hidden + image + int64_t{c} * block_bytes, gated, offset);
#pragma unroll
        for (int s = 0; s < slices1; ++s) {
            store_image(
                p.hidden_gradient + image * slices1 + (int64_t{s} * num_chunks + c) * block_bytes,
                dh[s], offset);
            replace_slice<D>(slot, w1 + (int64_t{s} * p.hidden + c * 64) * D);
            multiply_hidden<D>(dx, dh[s], slot);
        }
    }
    store_rows<D>(dx, p.dx_row + tile.row_begin * D, first_row, tile.num_rows);
    row_pair.store(p.dgate + tile.row_begin, first_row, tile.num_rows);
}

template <int D, Activation Act>
void launch(const RowsArguments& a, const RowsParams& params, cudaStream_t stream) {
    constexpr uint32_t smem_bytes = 3 * 128 * D;
    const auto kernel = backward_rows_kernel<D, Act>;
    allow_shared_memory(kernel, smem_bytes);
    kernel<<<static_cast<unsigned>(2 * a.shape.max_tiles()), num_threads, smem_bytes, stream>>>(
        params);
    check_launch();
}

template <int D>
void launch_activation(const RowsArguments& a, const RowsParams& params, cudaStream_t stream) {
    switch (a.shape.activation) {
        case Activation::gelu_erf:
            return launch<D, Activation::gelu_erf>(a, params, stream);
        case Activation::gelu_tanh:
            return launch<D, Activation::gelu_tanh>(a, params, stream);
        case Activation::swiglu:
            return launch<D, Activation::swiglu>(a, params, stream);
    }
}

}  // namespace

void backward_rows(const RowsArguments& a, cudaStream_t stream) {
    const RowsParams params{a.rows,
                            a.weights,
                            a.x,
                            a.dy_token,
                            a.gradients.dx_row,
                            a.gradients.dgate,
                            static_cast<unsigned char*>(a.scratch.hidden_gradient),
                            static_cast<unsigned char*>(a.scratch.gated_hidden),
                            a.shape.hidden};
    if (a.shape.width == 64) launch_activation<64>(a, params, stream);
    if (a.shape.width == 128) launch_activation<128>(a, params, stream);
    if (a.shape.width == 256) launch_activation<256>(a, params, stream);
}

}  // namespace headway::kernels::portable
