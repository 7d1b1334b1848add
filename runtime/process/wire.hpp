// Bytes of the side channel: numbers and texts one after the other, as the sender's machine has
// them. All ranks run the same build, which the rendezvous checks first.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace headway::runtime {

class Writer {
  public:
    template <class T>
    Writer& put(const T& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
        return *this;
    }
    Writer& put_text(std::string_view text) {
        put(static_cast<std::uint64_t>(text.size()));
        bytes_.append(text);
        return *this;
    }
    const std::string& bytes() const { return bytes_; }

  private:
    std::string bytes_;
};

// Throws std::runtime_error where the bytes end too early.
class Reader {
  public:
    explicit Reader(std::string_view bytes) : bytes_(bytes) {}

    template <class T>
    T get() {
        static_assert(std::is_trivially_copyable_v<T>);
        T value;
        std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
        return value;
    }
    std::string text() { return std::string(take(get<std::uint64_t>())); }
    bool empty() const { return bytes_.empty(); }

  private:
    std::string_view take(std::uint64_t count) {
        if (count > bytes_.size()) throw std::runtime_error("a message of the ranks is cut short");
        const std::string_view front = bytes_.substr(0, count);
        bytes_.remove_prefix(count);
        return front;
    }

    std::string_view bytes_;
};

}  // namespace headway::runtime
