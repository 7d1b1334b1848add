// FNV-1a, 64 bits: a name for a text, and no protection against forgery.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace headway {

class Hash {
  public:
    void add(std::string_view bytes) {
        for (const char c : bytes)
            state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    }
    // One of several texts, so that "ab", "c" and "a", "bc" differ.
    void add_item(std::string_view text) {
        add(text);
        add(std::string_view("\0", 1));
    }
    std::string hex() const {
        std::string text(16, '0');
        for (int i = 0; i < 16; ++i)
            text[static_cast<std::size_t>(15 - i)] = "0123456789abcdef"[state_ >> 4 * i & 15u];
        return text;
    }

  private:
    std::uint64_t state_ = 0xcbf29ce484222325;
};

}  // namespace headway
