#include "runtime/nccl/direct_planes.hpp"

#include <nccl_device.h>

#include <stdexcept>

#include "kernels/check.hpp"

namespace headway::runtime {
namespace {

// 319 GB/s of NVLink need about 64 blocks; a barrier each.
constexpr int kBlocks = 96, kThreads = 512;

// In units of 16 bytes.
struct Planes {
    std::int64_t from_rank, from_plane, to_rank, to_plane, length;
    int count;
};

__global__ void __launch_bounds__(kThreads)
    store_planes_kernel(ncclDevComm comm, ncclWindow_t window, const uint4* send,
                        std::size_t receive_offset, Planes p, int rank, int num_ranks) {
    ncclLsaBarrierSession<ncclCoopCta> barrier(ncclCoopCta(), comm, ncclTeamTagLsa(), blockIdx.x);
    barrier.sync(ncclCoopCta(), cuda::memory_order_acquire);
    const std::int64_t total = p.length * p.count;
    // Every rank begins with another peer, and ends with itself.
    for (int i = 1; i <= num_ranks; ++i) {
        const int peer = (rank + i) % num_ranks;
        auto* to =
            static_cast<uint4*>(ncclGetLsaPointer(window, receive_offset, peer)) + rank * p.to_rank;
        const uint4* from = send + peer * p.from_rank;
        for (std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; at < total;
             at += std::int64_t{gridDim.x} * kThreads) {
            const std::int64_t plane = at / p.length, place = at - plane * p.length;
            to[plane * p.to_plane + place] = from[plane * p.from_plane + place];
        }
    }
    barrier.sync(ncclCoopCta(), cuda::memory_order_acq_rel);
}

}  // namespace

struct DirectPlanes::Handles {
    ncclComm_t comm;
    ncclWindow_t window;
    ncclDevComm device;
};

int DirectPlanes::ranks_reached(ncclComm_t comm) {
    return ncclTeamLsa(comm).nRanks;
}

DirectPlanes::DirectPlanes(ncclComm_t comm, void* base, std::size_t bytes, int rank, int num_ranks,
                           const Check& check)
    : handles_(std::make_unique<Handles>()),
      base_(static_cast<std::byte*>(base)),
      bytes_(bytes),
      rank_(rank),
      num_ranks_(num_ranks) {
    handles_->comm = comm;
    check(ncclCommWindowRegister(comm, base, bytes, &handles_->window, NCCL_WIN_COLL_SYMMETRIC),
          "ncclCommWindowRegister");
    ncclDevCommRequirements needs{};
    needs.lsaBarrierCount = kBlocks;
    check(ncclDevCommCreate(comm, &needs, &handles_->device), "ncclDevCommCreate");
}

DirectPlanes::~DirectPlanes() {
    if (handles_ == nullptr) return;
    ncclDevCommDestroy(handles_->comm, &handles_->device);
    ncclCommWindowDeregister(handles_->comm, handles_->window);
    ncclCommDestroy(handles_->comm);
}

void DirectPlanes::abandon() {
    ncclCommAbort(handles_->comm);
    handles_.reset();
}

void DirectPlanes::exchange(const void* send, PlaneStrides from, void* receive, PlaneStrides to,
                            int num_planes, std::int64_t plane_bytes, cudaStream_t stream) const {
    constexpr std::int64_t kUnit = sizeof(uint4);
    const auto offset = static_cast<std::size_t>(static_cast<std::byte*>(receive) - base_);
    for (const std::int64_t bytes : {from.rank, from.plane, to.rank, to.plane, plane_bytes}) {
        if (bytes % kUnit != 0) throw std::logic_error("planes of no whole number of 16 bytes");
    }
    if (offset >= bytes_) throw std::logic_error("planes that arrive outside the symmetric memory");
    const Planes planes{from.rank / kUnit, from.plane / kUnit,  to.rank / kUnit,
                        to.plane / kUnit,  plane_bytes / kUnit, num_planes};
    store_planes_kernel<<<kBlocks, kThreads, 0, stream>>>(handles_->device, handles_->window,
                                                          static_cast<const uint4*>(send), offset,
                                                          planes, rank_, num_ranks_);
    kernels::check_launch();
}

namespace {

void* allocate(std::size_t bytes) {
    void* at = nullptr;
    return ncclMemAlloc(&at, bytes) == ncclSuccess ? at : nullptr;
}

void release(void* at) {
    ncclMemFree(at);
}

}  // namespace

DeviceAllocator symmetric_allocator() {
    return {allocate, release};
}

}  // namespace headway::runtime
