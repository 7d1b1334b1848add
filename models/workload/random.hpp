// Random numbers that are the same on every machine and compiler: splitmix64 to mix keys,
// xoshiro256** (Blackman and Vigna, public domain) to draw. The standard library's distributions
// are not reproducible across implementations.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "models/vocab/splitmix64.hpp"

namespace headway::inline workload {

class Random {
  public:
    // A stream of its own for every list of keys, e.g. {seed, layer, head, rank}.
    explicit Random(std::initializer_list<std::uint64_t> keys) {
        std::uint64_t mix = 0x243F6A8885A308D3ULL;
        for (std::uint64_t key : keys) {
            std::uint64_t state = mix ^ key;
            mix = splitmix64(state);
        }
        for (std::uint64_t& word : state_) word = splitmix64(mix);
    }

    std::uint64_t bits() {
        const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
        const std::uint64_t t = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= t;
        state_[3] = std::rotl(state_[3], 45);
        return result;
    }

    double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }  // [0, 1)

    std::uint64_t below(
        std::uint64_t bound) {  // Lemire's multiply-shift; bias below 2^-32 for our bounds
        return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits()) * bound) >> 64);
    }

    double exponential() { return -std::log1p(-uniform()); }

    double normal() {  // Marsaglia's polar method
        for (;;) {
            const double x = 2.0 * uniform() - 1.0, y = 2.0 * uniform() - 1.0;
            const double r = x * x + y * y;
            if (r > 0.0 && r < 1.0) return x * std::sqrt(-2.0 * std::log(r) / r);
        }
    }

    double gamma(double shape) {  // Marsaglia and Tsang 2000
        if (shape < 1.0) return gamma(shape + 1.0) * std::pow(1.0 - uniform(), 1.0 / shape);
        const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
        for (;;) {
            const double x = normal(), v = std::pow(1.0 + c * x, 3.0);
            if (v > 0.0 && std::log(1.0 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
                return d * v;
        }
    }

    // log of a gamma draw, finite where the draw itself would be zero.
    double log_gamma(double shape) {
        if (shape >= 1.0) return std::log(gamma(shape));
        const double log = std::log(gamma(shape + 1.0));
        return log + std::log(1.0 - uniform()) / shape;
    }

    template <class T>
    void shuffle(std::vector<T>& values) {
        for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
    }

  private:
    std::array<std::uint64_t, 4> state_{};
};

}  // namespace headway::inline workload
