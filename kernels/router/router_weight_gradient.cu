#include <stdexcept>

#include "kernels/check.hpp"
#include "kernels/router/router.hpp"

namespace headway::kernels {

namespace {

constexpr int threads = 256;
constexpr int chunk = 8;  // bf16 elements of one 16-byte access

// Block = one tile of at most 128 rows of one group: partial[tile] = sum dlogit x. width / 8
// threads share a row.
__global__ void __launch_bounds__(threads)
    tile_kernel(int width, RouterWeightGradient gradient, float* partial) {
    __shared__ int32_t token[expert_tile_rows];
    __shared__ float dlogit[expert_tile_rows];
    __shared__ float sums[threads][chunk + 1];
    const int tile_idx = blockIdx.x;
    if (tile_idx >= *gradient.rows.num_tiles) return;
    const TileDescriptor tile = gradient.rows.tiles[tile_idx];
    if (int(threadIdx.x) < tile.num_rows) {
        const int row = tile.row_begin + threadIdx.x;
        const int32_t source = gradient.rows.row_token[row];
        token[threadIdx.x] = source;
        dlogit[threadIdx.x] =
            gradient.rows.row_gate[row] * (gradient.dgate_row[row] - gradient.mean_dgate[source]);
    }
    __syncthreads();
    const int chunks = width / chunk, lanes = threads / chunks;
    const int column = threadIdx.x % chunks * chunk, lane = threadIdx.x / chunks;
    float sum[chunk] = {};
#pragma unroll 4
    for (int row = lane; row < tile.num_rows; row += lanes) {
        const uint4 packed = __ldg(
            reinterpret_cast<const uint4*>(gradient.x + int64_t(token[row]) * width + column));
        const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            sum[2 * i] = fmaf(dlogit[row], __uint_as_float(words[i] << 16), sum[2 * i]);
            sum[2 * i + 1] =
                fmaf(dlogit[row], __uint_as_float(words[i] & 0xFFFF0000u), sum[2 * i + 1]);
        }
    }
#pragma unroll
    for (int i = 0; i < chunk; ++i) sums[threadIdx.x][i] = sum[i];
    __syncthreads();
    for (int i = threadIdx.x; i < width; i += threads) {
        float total = 0;
        for (int l = 0; l < lanes; ++l) total += sums[l * chunks + i / chunk][i % chunk];
        partial[int64_t(tile_idx) * width + i] = total;
    }
}

// Block = one group: its tiles' partial sums in ascending order.
__global__ void reduce_kernel(int width, const int32_t* tile_offset, const float* partial,
                              bool accumulate, float* dweights) {
    const int group = blockIdx.x;
    const int begin = tile_offset[group], end = tile_offset[group + 1];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float total = 0;
#pragma unroll 8
        for (int tile = begin; tile < end; ++tile) total += partial[int64_t(tile) * width + i];
        float& out = dweights[int64_t(group) * width + i];
        out = accumulate ? out + total : total;
    }
}

}  // namespace

std::size_t router_weight_gradient_workspace_bytes(const RouterShape& shape) {
    return std::size_t(shape.grouping().max_tiles()) * shape.width * sizeof(float);
}

void router_weight_gradient(const RouterShape& shape, const RouterWeightGradient& gradient,
                            void* workspace, cudaStream_t stream) {
    const int chunks = shape.width / chunk;
    if (shape.width % chunk != 0 || chunks == 0 || threads % chunks != 0)
        throw std::invalid_argument("router gradient: d / 8 must divide 256");
    auto* partial = static_cast<float*>(workspace);
    if (shape.num_tokens > 0) {
        tile_kernel<<<int(shape.grouping().max_tiles()), threads, 0, stream>>>(shape.width,
                                                                               gradient, partial);
        check_launch();
    }
    reduce_kernel<<<shape.grouping().num_groups(), 128, 0, stream>>>(
        shape.width, gradient.rows.tile_offset, partial, gradient.accumulate, gradient.dweights);
    check_launch();
}

}  // namespace headway::kernels
