#include "kernels/router/router.hpp"

#include <stdexcept>

#include "kernels/check.hpp"
#include "kernels/router/router_fused.hpp"
#include "kernels/router/select.cuh"

namespace headway::kernels {

namespace {

constexpr int threads = 256;
constexpr int reference_threads = 128;
constexpr int reference_max_experts = 1024;

// R = hi + mid + lo exactly, in the order the fused kernel's B fragments are read:
// [head][8 experts][piece][32 columns][lane][8], lane = 4 * expert + column / 8.
__global__ void __launch_bounds__(threads)
    split_kernel(RouterShape shape, int num_padded, const float* weights, __nv_bfloat16* pieces) {
    const int blocks = shape.width / 32;
    const int64_t item = int64_t(blockIdx.x) * threads + threadIdx.x;
    const int64_t per_head = int64_t(num_padded) / 8 * blocks * 32;
    if (item >= per_head * shape.num_heads) return;
    const int head = int(item / per_head), lane = int(item % 32);
    const int block = int(item / 32 % blocks), tile = int(item % per_head / 32 / blocks);
    const int expert = tile * 8 + lane / 4;
    const float* from = weights + (int64_t(head) * shape.num_experts + expert) * shape.width +
                        block * 32 + lane % 4 * 8;
    __align__(16) __nv_bfloat16 out[3][8];
    for (int i = 0; i < 8; ++i) {
        float rest = expert < shape.num_experts ? from[i] : 0.0f;
        for (auto& piece : out) {
            piece[i] = __float2bfloat16_rn(rest);
            rest -= __bfloat162float(piece[i]);
        }
    }
    auto* to = reinterpret_cast<uint4*>(pieces) + head * per_head * 3 +
               (int64_t(tile) * 3 * blocks + block) * 32 + lane;
    for (int piece = 0; piece < 3; ++piece)
        to[piece * blocks * 32] = *reinterpret_cast<const uint4*>(out[piece]);
}

void launch_fused(const RouterShape& shape, const RouterInput& input, const RouterOutput& output,
                  void* workspace, cudaStream_t stream) {
    const int padded = router::padded_experts(shape);
    const int64_t items = int64_t(shape.num_heads) * padded * (shape.width / 8);
    auto* pieces = static_cast<__nv_bfloat16*>(workspace);
    split_kernel<<<int((items + threads - 1) / threads), threads, 0, stream>>>(
        shape, padded, input.weights, pieces);
    check_launch();
    const auto launch = shape.width == 64    ? router::launch_fused_64
                        : shape.width == 128 ? router::launch_fused_128
                                             : router::launch_fused_256;
    launch(shape, input, output, reinterpret_cast<const uint4*>(pieces), stream);
}

// One block per sub-token: the plain definition.
__global__ void __launch_bounds__(reference_threads)
    reference_kernel(RouterShape shape, RouterInput input, RouterOutput out) {
    __shared__ float logits[reference_max_experts];
    const int64_t token = blockIdx.x;
    const int64_t first = token / shape.num_tokens * shape.num_experts;
    for (int e = threadIdx.x; e < shape.num_experts; e += reference_threads) {
        float sum = 0;
        for (int i = 0; i < shape.width; ++i)
            sum = fmaf(__bfloat162float(input.x[token * shape.width + i]),
                       input.weights[(first + e) * shape.width + i], sum);
        logits[e] = sum;
    }
    __syncthreads();
    if (threadIdx.x < 32)
        router::select_top_k<reference_max_experts / 32>(
            token, shape.num_experts, shape.top_k, logits,
            input.bias == nullptr ? nullptr : input.bias + first, out);
}

}  // namespace

bool router_supported(RouterImpl impl, const RouterShape& shape) {
    const bool common = shape.num_heads >= 1 && shape.num_heads <= 65535 && shape.num_tokens >= 0 &&
                        shape.width >= 1 && shape.top_k >= 1 && shape.top_k <= 32 &&
                        shape.top_k <= shape.num_experts &&
                        shape.num_subtokens() < (int64_t(1) << 31);
    if (impl == RouterImpl::reference) return common && shape.num_experts <= reference_max_experts;
    return common && shape.num_experts <= 2048 &&
           (shape.width == 64 || shape.width == 128 || shape.width == 256);
}

std::size_t router_workspace_bytes(RouterImpl impl, const RouterShape& shape) {
    if (impl == RouterImpl::reference) return 0;
    return std::size_t(shape.num_heads) * router::padded_experts(shape) * shape.width * 3 *
           sizeof(__nv_bfloat16);
}

void router_forward(RouterImpl impl, const RouterShape& shape, const RouterInput& input,
                    const RouterOutput& output, void* workspace, cudaStream_t stream) {
    if (!router_supported(impl, shape))
        throw std::invalid_argument(
            "router: needs 1 <= k <= min(E, 32), fewer than 2^31 sub-tokens; the fused kernel d of "
            "64, "
            "128 or 256 and E <= 2048, the reference E <= 1024");
    if (shape.num_tokens == 0) return;
    if (impl == RouterImpl::fused) return launch_fused(shape, input, output, workspace, stream);
    reference_kernel<<<int(shape.num_subtokens()), reference_threads, 0, stream>>>(shape, input,
                                                                                   output);
    check_launch();
    if (output.counts != nullptr)
        count_choices(shape.grouping(), output.index, output.counts, stream);
}

}  // namespace headway::kernels
