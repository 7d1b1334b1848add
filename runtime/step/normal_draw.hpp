// The seeded normal numbers that parameters are drawn from: a function of (seed, index) alone, the
// same on the host and on a GPU but for the last bits of log and cos.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define HEADWAY_ON_BOTH __host__ __device__
#else
#define HEADWAY_ON_BOTH
#endif

namespace headway::runtime {

HEADWAY_ON_BOTH inline std::uint64_t mixed(std::uint64_t z) {
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// Box-Muller on a counter hash.
HEADWAY_ON_BOTH inline float normal_at(std::uint64_t seed, std::int64_t index) {
    const std::uint64_t bits = mixed(mixed(seed) ^ static_cast<std::uint64_t>(index));
    const float u = (static_cast<float>(bits >> 40) + 0.5f) * 0x1p-24f;
    const float v = static_cast<float>((bits >> 8) & 0xFFFFFFu) * 0x1p-24f;
    return sqrtf(-2.0f * logf(u)) * cosf(6.2831853f * v);
}

}  // namespace headway::runtime
