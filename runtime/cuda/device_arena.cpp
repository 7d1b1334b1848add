#include "runtime/cuda/device_arena.hpp"

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "kernels/check.hpp"

namespace headway::runtime {

DeviceAllocator plain_allocator() {
    return {.allocate =
                [](std::size_t bytes) {
                    void* at = nullptr;
                    return cudaMalloc(&at, bytes) == cudaSuccess ? at : nullptr;
                },
            .release = [](void* at) { cudaFree(at); }};
}

DeviceArena::DeviceArena(std::size_t capacity, DeviceAllocator allocator)
    : allocator_(allocator),
      base_(static_cast<std::byte*>(allocator.allocate(capacity))),
      capacity_(capacity) {
    if (base_ == nullptr) {
        throw OutOfDeviceMemory(fmt::format("no {:.2f} GiB of device memory: {}",
                                            static_cast<double>(capacity) / (1 << 30),
                                            cudaGetErrorString(cudaGetLastError())));
    }
}

DeviceArena::~DeviceArena() {
    allocator_.release(base_);
}

void* DeviceArena::take_bytes(std::size_t bytes) {
    const std::size_t rounded = (bytes + 255) / 256 * 256;
    if (rounded > capacity_ - used_) {
        throw OutOfDeviceMemory(fmt::format(
            "out of device memory: {:.2f} GiB more than the {:.2f} GiB in use exceed the arena of "
            "{:.2f} GiB",
            static_cast<double>(rounded) / (1 << 30), static_cast<double>(used_) / (1 << 30),
            static_cast<double>(capacity_) / (1 << 30)));
    }
    std::byte* at = base_ + used_;
    used_ += rounded;
    peak_ = std::max(peak_, used_);
    return at;
}

void DeviceArena::release(std::size_t mark) {
    assert(mark <= used_);
    used_ = mark;
}

}  // namespace headway::runtime
