#include "sim/level_filling.hpp"

#include <algorithm>
#include <cstring>

// NOTE: the kernels below round the same with and without AVX (no fused multiply-add), so results
// do not depend on the machine that runs them.
#if defined(__x86_64__) && defined(__gnu_linux__)
#define HEADWAY_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define HEADWAY_CLONES
#endif

namespace headway::sim {
namespace {

constexpr int kSaveEvery = 16;
constexpr int kWidth = 8;
constexpr double kNone = 1e300;  // candidate level of a link without unfrozen flows

using Doubles = double __attribute__((vector_size(8 * kWidth)));
using Longs = std::int64_t __attribute__((vector_size(8 * kWidth)));
using Ints = std::int32_t __attribute__((vector_size(4 * kWidth)));

HEADWAY_CLONES void freeze_row(const std::int32_t* row, double level, int first, int last,
                               double* residual, double* unfrozen, double* candidate) {
    const Doubles none = Doubles{} + kNone;
    for (int m = first; m < last; m += kWidth) {
        Ints counts;
        Doubles left, flows;
        std::memcpy(&counts, row + m, sizeof counts);
        std::int64_t any[kWidth / 2];
        std::memcpy(any, row + m, sizeof any);
        if ((any[0] | any[1] | any[2] | any[3]) == 0) continue;  // rows get sparse
        std::memcpy(&left, residual + m, sizeof left);
        std::memcpy(&flows, unfrozen + m, sizeof flows);
        const Doubles frozen = __builtin_convertvector(counts, Doubles);
        flows -= frozen;
        left -= level * frozen;
        const Doubles share = flows > 0.0 ? left / flows : none;
        std::memcpy(residual + m, &left, sizeof left);
        std::memcpy(unfrozen + m, &flows, sizeof flows);
        std::memcpy(candidate + m, &share, sizeof share);
    }
}

// The first index of the least value. Two accumulators hide the latency of the comparison.
HEADWAY_CLONES int argmin(const double* value, int size) {
    Doubles least[2] = {Doubles{} + 2.0 * kNone, Doubles{} + 2.0 * kNone};
    Longs where[2] = {}, index[2] = {{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12, 13, 14, 15}};
    for (int m = 0; m < size; m += 2 * kWidth) {
        for (int k = 0; k < 2; ++k) {
            Doubles v;
            std::memcpy(&v, value + m + k * kWidth, sizeof v);
            const Longs less = v < least[k];
            least[k] = less ? v : least[k];
            where[k] = less ? index[k] : where[k];
            index[k] += 2 * kWidth;
        }
    }
    double best = least[0][0];
    std::int64_t best_index = where[0][0];
    for (int k = 0; k < 2 * kWidth; ++k) {
        const double v = least[k / kWidth][k % kWidth];
        const std::int64_t i = where[k / kWidth][k % kWidth];
        const bool better = v < best || (v == best && i < best_index);
        best = better ? v : best;
        best_index = better ? i : best_index;
    }
    return static_cast<int>(best_index);
}

}  // namespace

LevelFilling::LevelFilling(std::span<const double> capacity)
    : num_links_(static_cast<int>(capacity.size())),
      stride_((num_links_ + 2 * kWidth - 1) / (2 * kWidth) * 2 * kWidth) {
    const auto links = static_cast<std::size_t>(stride_);
    rows_.assign(static_cast<std::size_t>(num_links_) * links, 0);
    first_.assign(links, stride_);
    last_.assign(links, 0);
    residual_.assign(links, 0.0);
    std::ranges::copy(capacity, residual_.begin());
    unfrozen_.assign(links, 0.0);
    candidate_.assign(links, kNone);
    save();
}

void LevelFilling::save() {
    const auto slot = static_cast<std::size_t>(round_ / kSaveEvery);
    if (saved_.size() <= slot) saved_.resize(slot + 1);
    saved_[slot].residual = residual_;
    saved_[slot].unfrozen = unfrozen_;
    saved_[slot].candidate = candidate_;
    saved_[slot].level = level_;
}

void LevelFilling::add_flow(std::span<const std::uint32_t> links) {
    const auto [low, high] = std::ranges::minmax(links);
    const int first = static_cast<int>(low) / kWidth * kWidth;
    const int last = (static_cast<int>(high) / kWidth + 1) * kWidth;
    State& start = saved_.front();
    for (const std::uint32_t l : links) {
        first_[l] = std::min(first_[l], first);
        last_[l] = std::max(last_[l], last);
        start.unfrozen[l] += 1.0;
        start.candidate[l] = start.residual[l] / start.unfrozen[l];
    }
}

void LevelFilling::remove_flow(std::span<const std::uint32_t> links, int round) {
    for (int slot = 0; slot <= round / kSaveEvery; ++slot) {
        State& state = saved_[static_cast<std::size_t>(slot)];
        for (const std::uint32_t l : links) {
            state.unfrozen[l] -= 1.0;
            state.candidate[l] =
                state.unfrozen[l] > 0.0 ? state.residual[l] / state.unfrozen[l] : kNone;
        }
    }
}

int LevelFilling::rewind(int round) {
    const int slot = round / kSaveEvery;
    const State& state = saved_[static_cast<std::size_t>(slot)];
    residual_ = state.residual;
    unfrozen_ = state.unfrozen;
    candidate_ = state.candidate;
    level_ = state.level;
    return round_ = slot * kSaveEvery;
}

int LevelFilling::next_bottleneck() {
    if (round_ % kSaveEvery == 0) save();
    const int link = argmin(candidate_.data(), stride_);
    const double level = candidate_[static_cast<std::size_t>(link)];
    if (level == kNone) return -1;
    level_ = std::max(level_, level);  // rounding must not break the order
    return link;
}

void LevelFilling::freeze(std::uint32_t link) {
    freeze_row(row(link), level_, first_[link], last_[link], residual_.data(), unfrozen_.data(),
               candidate_.data());
    ++round_;
}

}  // namespace headway::sim
