// Portable second backward kernel: dW1 = dH^T x and dW2 = (gate A)^T dy from the spilled images. A
// work item is 64 hidden units of one matrix over one part of a group's rows; each of four warps
// owns 16 hidden units. Two stages of one image and 64 gathered rows.
#include "kernels/experts/portable.hpp"
#include "kernels/experts/portable_device.cuh"

namespace headway::kernels::portable {
namespace {

template <int D>
__device__ __forceinline__ void load_stage(uint32_t stage, const unsigned char* image,
                                           const __nv_bfloat16* source, const int32_t* row_token,
                                           int64_t row_begin, int num_rows) {
    for (int n = threadIdx.x; n < static_cast<int>(block_bytes / 16); n += num_threads)
        ptx::cp_async_16(stage + n * 16, image + n * 16, true);
    gather_rows<D, num_warps>(stage + block_bytes, source,
                              load_tokens(row_token, row_begin, num_rows), threadIdx.x / 32);
}

// acc[16 hidden units, D] += image[64 rows, 64]^T * rows[64, D].
template <int D>
__device__ __forceinline__ void multiply_stage(float (&acc)[D / 2], uint32_t stage) {
    const int lane = threadIdx.x % 32;
    const int first_chunk = (threadIdx.x / 32) * 2;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        uint32_t a[4];
        ptx::ldmatrix_x4_transposed(a, tile_chunk(stage, 16 * k + lane % 8 + (lane / 16) * 8,
                                                  first_chunk + (lane / 8) % 2));
        multiply_step<D>(acc, a, stage + block_bytes, k);
    }
}

template <int D>
__global__ void __launch_bounds__(num_threads) backward_weights_kernel(const WeightsParams p) {
    constexpr uint32_t stage_bytes = block_bytes + 128 * D;
    extern __shared__ __align__(128) unsigned char smem[];
    const uint32_t stages = ptx::smem_addr(smem);
    const int columns1 = p.hidden_rows / 64;
    const int columns = columns1 + p.hidden / 64;
    const int part_idx = blockIdx.x / columns;
    if (part_idx >= p.counts->num_parts) return;
    const WorkPart part = p.parts[part_idx];
    const bool second = static_cast<int>(blockIdx.x) % columns >= columns1;
    const int column = blockIdx.x % columns - (second ? columns1 : 0);
    const int num_columns = second ? columns - columns1 : columns1;
    const unsigned char* image = (second ? p.gated_hidden : p.hidden_gradient) +
                                 (int64_t{part.first_block} * num_columns + column) * block_bytes;
    const int64_t image_step = int64_t{num_columns} * block_bytes;
    const __nv_bfloat16* source = second ? p.dy_token : p.x;

    float acc[D / 2] = {};
    const int num_steps = (part.num_rows + 63) / 64;
    if (num_steps > 0)
        load_stage<D>(stages, image, source, p.row_token, part.row_begin, part.num_rows);
    ptx::cp_async_commit();
#pragma unroll 1
    for (int k = 0; k < num_steps; ++k) {
        if (k + 1 < num_steps)
            load_stage<D>(stages + (k + 1) % 2 * stage_bytes, image + (k + 1) * image_step, source,
                          p.row_token, int64_t{part.row_begin} + (k + 1) * 64,
                          part.num_rows - (k + 1) * 64);
        ptx::cp_async_commit();
        ptx::cp_async_wait<1>();
        __syncthreads();
        multiply_stage<D>(acc, stages + k % 2 * stage_bytes);
        __syncthreads();
    }

    float* matrix = part.partial < 0
                        ? (second ? p.dw2 : p.dw1) + int64_t{part.group} * num_columns * 64 * D
                        : p.partials + int64_t{part.partial} * (p.hidden_rows + p.hidden) * D +
                              (second ? int64_t{p.hidden_rows} * D : 0);
    store_gradient<D>(acc, matrix + int64_t{column} * 64 * D, p.accumulate && part.partial < 0);
}

template <int D>
void launch(const WeightsParams& params, int64_t num_items, cudaStream_t stream) {
    constexpr uint32_t smem_bytes = 2 * (block_bytes + 128 * D);
    const auto kernel = backward_weights_kernel<D>;
    allow_shared_memory(kernel, smem_bytes);
    kernel<<<static_cast<unsigned>(num_items), num_threads, smem_bytes, stream>>>(params);
    check_launch();
}

}  // namespace

void backward_weights(const RowsArguments& a, const SplitWorkspace& w, cudaStream_t stream) {
    plan_parts(a.shape, a.rows.expert_offset, w, stream);
    const WeightsParams params = weights_params(a, w);
    const int64_t num_items =
        make_split_plan(a.shape).max_parts * ((a.shape.hidden_rows() + a.shape.hidden) / 64);
    if (a.shape.width == 64) launch<64>(params, num_items, stream);
    if (a.shape.width == 128) launch<128>(params, num_items, stream);
    if (a.shape.width == 256) launch<256>(params, num_items, stream);
    add_partials(a.shape, w, a.gradients.dw1, a.gradients.dw2, stream);
}

}  // namespace headway::kernels::portable
