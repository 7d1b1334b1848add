// Portable fused forward: one block of four warps a half tile of 64 rows; x stays in shared memory,
// 64-hidden-unit slices of W1 and W2 follow each other through it, activations stay in registers.
// Several blocks a multiprocessor hide each other's loads.
#include "kernels/experts/portable.hpp"
#include "kernels/experts/portable_device.cuh"

namespace headway::kernels::portable {
namespace {

template <int D, Activation Act>
__global__ void __launch_bounds__(num_threads)
    forward_kernel(const RowGrouping grouping, const ExpertWeights weights, const __nv_bfloat16* x,
                   __nv_bfloat16* y, int hidden) {
    constexpr bool gated = Act == Activation::swiglu;
    constexpr int slices1 = gated ? 2 : 1;
    constexpr uint32_t tile_bytes = 128 * D;
    extern __shared__ __align__(128) unsigned char smem[];
    const uint32_t rows = ptx::smem_addr(smem);
    const uint32_t w1 = rows + tile_bytes;
    const uint32_t w2 = w1 + slices1 * tile_bytes;
    const int warp = threadIdx.x / 32;

    const HalfTile tile = half_tile(grouping);
    if (tile.num_rows <= 0) return;
    gather_rows<D, num_warps>(rows, x,
                              load_tokens(grouping.row_token, tile.row_begin, tile.num_rows), warp);

    float out[D / 2] = {};
    for (int c = 0; c < hidden / 64; ++c) {
        __syncthreads();
#pragma unroll
        for (int s = 0; s < slices1; ++s)
            load_slice<D>(w1 + s * tile_bytes,
                          weights.w1 + ((int64_t{tile.group} * slices1 + s) * hidden + c * 64) * D);
        ptx::cp_async_commit();
        load_slice<D>(w2, weights.w2 + (int64_t{tile.group} * hidden + c * 64) * D);
        ptx::cp_async_commit();
        ptx::cp_async_wait<1>();
        __syncthreads();
        float pre[slices1][32];
#pragma unroll
        for (int s = 0; s < slices1; ++s) multiply_rows<D>(pre[s], rows, w1 + s * tile_bytes);
        uint32_t fragments[4][4];
        activate_slice<Act, gated, 64>(pre, fragments);
        ptx::cp_async_wait<0>();
        __syncthreads();
        multiply_hidden<D>(out, fragments, w2);
    }
    store_output<D, Act>(out, y + tile.row_begin * D, warp * 16, tile.num_rows);
}

template <int D, Activation Act>
void launch(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
            const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream) {
    constexpr uint32_t smem_bytes = 128 * D * (Act == Activation::swiglu ? 4 : 3);
    const auto kernel = forward_kernel<D, Act>;
    allow_shared_memory(kernel, smem_bytes);
    kernel<<<static_cast<unsigned>(2 * shape.max_tiles()), num_threads, smem_bytes, stream>>>(
        rows, weights, x, y, shape.hidden);
    check_launch();
}

template <int D>
void launch_activation(const ExpertShape& shape, const RowGrouping& rows,
                       const ExpertWeights& weights, const __nv_bfloat16* x, __nv_bfloat16* y,
                       cudaStream_t stream) {
    switch (shape.activation) {
        case Activation::gelu_erf:
            return launch<D, Activation::gelu_erf>(shape, rows, weights, x, y, stream);
        case Activation::gelu_tanh:
            return launch<D, Activation::gelu_tanh>(shape, rows, weights, x, y, stream);
        case Activation::swiglu:
            return launch<D, Activation::swiglu>(shape, rows, weights, x, y, stream);
    }
}

}  // namespace

void forward(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
             const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream) {
    if (shape.width == 64) launch_activation<64>(shape, rows, weights, x, y, stream);
    if (shape.width == 128) launch_activation<128>(shape, rows, weights, x, y, stream);
    if (shape.width == 256) launch_activation<256>(shape, rows, weights, x, y, stream);
}

}  // namespace headway::kernels::portable
