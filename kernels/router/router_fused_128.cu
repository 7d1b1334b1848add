#include "kernels/router/router_fused.cuh"

namespace headway::kernels::router {

void launch_fused_128(const RouterShape& shape, const RouterInput& input, const RouterOutput& out,
                      const uint4* pieces, cudaStream_t stream) {
    launch_fused_width<128>(shape, input, out, pieces, stream);
}

}  // namespace headway::kernels::router
