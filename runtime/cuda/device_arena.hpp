// DeviceArena: all device memory of a rank's layers, one allocation that is handed out as a stack:
// what is released is released in reverse order. It keeps the highest fill, which is what a
// prediction of memory is compared with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace headway::runtime {

// A request that does not fit: a hot expert's rows, or a model too large for the device.
struct OutOfDeviceMemory : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Where an arena's memory comes from; `allocate` gives null when there is none.
struct DeviceAllocator {
    void* (*allocate)(std::size_t bytes);
    void (*release)(void* at);
};
DeviceAllocator plain_allocator();  // cudaMalloc

class DeviceArena {
  public:
    explicit DeviceArena(std::size_t capacity, DeviceAllocator allocator = plain_allocator());
    DeviceArena(const DeviceArena&) = delete;
    DeviceArena& operator=(const DeviceArena&) = delete;
    ~DeviceArena();

    // 256-byte aligned, not initialised.
    void* take_bytes(std::size_t bytes);
    template <class T>
    T* take(std::int64_t count) {
        return static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T)));
    }

    void* base() const { return base_; }
    std::size_t capacity() const { return capacity_; }
    std::size_t used() const { return used_; }
    std::size_t peak() const { return peak_; }
    void reset_peak() { peak_ = used_; }
    // Gives back everything taken since used() was `mark`.
    void release(std::size_t mark);

  private:
    DeviceAllocator allocator_;
    std::byte* base_ = nullptr;
    std::size_t capacity_ = 0, used_ = 0, peak_ = 0;
};

// Releases what its scope takes.
class ArenaScope {
  public:
    explicit ArenaScope(DeviceArena& arena) : arena_(arena), mark_(arena.used()) {}
    ArenaScope(const ArenaScope&) = delete;
    ArenaScope& operator=(const ArenaScope&) = delete;
    ~ArenaScope() { arena_.release(mark_); }

  private:
    DeviceArena& arena_;
    std::size_t mark_;
};

}  // namespace headway::runtime
