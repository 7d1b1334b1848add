// Cuts one block of the caller's memory into arrays aligned to 256 bytes. With a null base it only
// counts, so that one function tells both the size and the places.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headway::kernels {

class Arena {
  public:
    explicit Arena(void* base) : base_(static_cast<std::byte*>(base)) {}
    template <typename T>
    T* take(std::int64_t n) {
        T* at = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
        used_ += (std::size_t(n) * sizeof(T) + 255) / 256 * 256;
        return at;
    }
    [[nodiscard]] std::size_t used() const { return used_; }

  private:
    std::byte* base_;
    std::size_t used_ = 0;
};

}  // namespace headway::kernels
