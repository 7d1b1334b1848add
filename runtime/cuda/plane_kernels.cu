#include "kernels/check.hpp"
#include "runtime/cuda/plane_kernels.hpp"

namespace headway::runtime {
namespace {

constexpr int kThreads = 512, kUnit = 16;

// A plane is grid.y of them; blocks of a plane share it. Four loads are in flight before the first
// store.
__global__ void __launch_bounds__(kThreads)
    move_planes_kernel(const uint4* send, PlaneStrides from, uint4* receive, PlaneStrides to,
                       int num_planes, std::int64_t length) {
    const int rank = static_cast<int>(blockIdx.y) / num_planes,
              plane = static_cast<int>(blockIdx.y) % num_planes;
    const uint4* source = send + rank * from.rank + plane * from.plane;
    uint4* target = receive + rank * to.rank + plane * to.plane;
    const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
    std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
    for (; at + 3 * step < length; at += 4 * step) {
        uint4 held[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) held[i] = source[at + i * step];
#pragma unroll
        for (int i = 0; i < 4; ++i) target[at + i * step] = held[i];
    }
    for (; at < length; at += step) target[at] = source[at];
}

}  // namespace

void move_planes(const void* send, PlaneStrides from, void* receive, PlaneStrides to, int num_ranks,
                 int num_planes, std::int64_t plane_bytes, cudaStream_t stream) {
    const auto units = [](PlaneStrides s) { return PlaneStrides{s.rank / kUnit, s.plane / kUnit}; };
    const std::int64_t length = plane_bytes / kUnit;
    const int planes = num_ranks * num_planes;
    const std::int64_t wanted = (4 * 132 * 2 + planes - 1) / planes,
                       useful = (length + 4 * kThreads - 1) / (4 * kThreads);
    const dim3 grid(static_cast<unsigned>(useful < wanted ? (useful > 0 ? useful : 1) : wanted),
                    static_cast<unsigned>(planes));
    move_planes_kernel<<<grid, kThreads, 0, stream>>>(static_cast<const uint4*>(send), units(from),
                                                      static_cast<uint4*>(receive), units(to),
                                                      num_planes, length);
    kernels::check_launch();
}

}  // namespace headway::runtime
