#include "runtime/cuda/ep_router.hpp"

#include <algorithm>

namespace headway::runtime {
namespace {

constexpr std::size_t kWorkspaceLimit = std::size_t{32} << 20;

}  // namespace

EpRouter::EpRouter(cublasLtHandle_t blas, const RowRouting& s)
    : shape_(s),
      logits_(blas,
              {.m = static_cast<int>(s.num_rows),
               .n = s.num_experts,
               .k = s.width,
               .transpose_b = true,
               .fp32_out = true},
              kWorkspaceLimit),
      dgrad_(blas,
             {.m = static_cast<int>(s.num_rows), .n = s.width, .k = s.num_experts, .beta = 1.0f},
             kWorkspaceLimit),
      wgrad_(blas,
             {.m = s.num_experts,
              .n = s.width,
              .k = static_cast<int>(s.num_rows),
              .transpose_a = true,
              .fp32_out = true},
             kWorkspaceLimit) {}

void EpRouter::forward(const bf16* x, const bf16* weights, std::int32_t* index, float* gate,
                       DeviceArena& arena, cudaStream_t stream) const {
    const ArenaScope scope(arena);
    float* logits = arena.take<float>(shape_.num_rows * shape_.num_experts);
    logits_.run(x, weights, logits, arena.take_bytes(logits_.workspace_bytes()), stream);
    select_top_k(shape_, logits, index, gate, stream);
}

void EpRouter::backward(const bf16* x, const bf16* weights, const std::int32_t* index,
                        const float* gate, const float* dgate, bf16* dx, float* dweights,
                        DeviceArena& arena, cudaStream_t stream) const {
    const ArenaScope scope(arena);
    bf16* dlogits = arena.take<bf16>(shape_.num_rows * shape_.num_experts);
    logit_gradients(shape_, index, gate, dgate, dlogits, stream);
    void* workspace =
        arena.take_bytes(std::max(dgrad_.workspace_bytes(), wgrad_.workspace_bytes()));
    dgrad_.run(dlogits, weights, dx, workspace, stream);
    wgrad_.run(dlogits, x, dweights, workspace, stream);
}

}  // namespace headway::runtime
