// splitmix64 (Steele, Lea and Flood; public domain): a mix of bits that is the same on every
// machine and compiler.
#pragma once

#include <cstdint>

namespace headway {

constexpr std::uint64_t splitmix64(std::uint64_t& state) {
    state += 0x9E3779B97F4A7C15ULL;
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

}  // namespace headway
