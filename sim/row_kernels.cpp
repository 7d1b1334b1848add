#include "sim/row_kernels.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

// NOTE: the kernels below round the same with and without AVX (no fused multiply-add), so results
// do not depend on the machine that runs them. Nor does the choice of a clone run under
// ThreadSanitizer, which would instrument the resolver that runs before it.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_THREAD__)
#define HEADWAY_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define HEADWAY_CLONES
#endif

namespace headway::sim {
namespace {

constexpr int kWidth = kRowWidth;

using Doubles = double __attribute__((vector_size(8 * kWidth)));
using Longs = std::int64_t __attribute__((vector_size(8 * kWidth)));
using Ints = std::int32_t __attribute__((vector_size(4 * kWidth)));
using Chars = std::int8_t __attribute__((vector_size(kWidth)));

// One byte a lane, 0xff where the condition holds, the first lane lowest: zero if it holds
// nowhere.
[[gnu::always_inline]] inline std::uint64_t lanes(const Longs& condition) {
    static_assert(std::endian::native == std::endian::little);
    const Chars bytes = __builtin_convertvector(condition, Chars);
    std::uint64_t result;
    std::memcpy(&result, &bytes, sizeof result);
    return result;
}

// Takes the first lane off the set.
[[gnu::always_inline]] inline int next_lane(std::uint64_t& set) {
    const int lane = std::countr_zero(set) / 8;
    set &= ~(std::uint64_t{0xff} << (8 * lane));
    return lane;
}

// In each lane the least value of the two and its index; of equals the lower index.
[[gnu::always_inline]] inline void keep_first(Doubles& value, Longs& index, const Doubles& other,
                                              const Longs& other_index) {
    const Longs take = (other < value) | ((other == value) & (other_index < index));
    value = take ? other : value;
    index = take ? other_index : index;
}

// Picoseconds until the next completion of kWidth bundles from column d of a row on.
// NOTE: a link without traffic has inverse 0, and a bundle without messages a next mark of
// kNoCandidate, which no clock reaches.
[[gnu::always_inline]] inline void bundle_times(const Grid& g, int row, int d, Doubles& time) {
    const std::size_t at = static_cast<std::size_t>(row) * static_cast<std::size_t>(g.stride) +
                           static_cast<std::size_t>(d);
    Doubles next, served, down;
    std::memcpy(&next, g.next + at, sizeof next);
    std::memcpy(&served, g.served + at, sizeof served);
    std::memcpy(&down, g.down + d, sizeof down);
    const Doubles up = Doubles{} + g.up[row];
    const Doubles slow = up > down ? up : down;
    const Doubles until = (next - served) * slow;
    time = next < kNoCandidate ? until : Doubles{} + kNoCandidate;
}

constexpr double kFrozen = -1e18;  // unfrozen flows of a frozen port: stays below zero

[[gnu::always_inline]] inline bool all_zero(const std::int32_t* counts) {
    std::int64_t any[kWidth / 2];
    std::memcpy(any, counts, sizeof any);
    return (any[0] | any[1] | any[2] | any[3]) == 0;
}

[[gnu::always_inline]] inline double least_lane(const Doubles& all) {
    Doubles v = all;
    Doubles other = __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
    v = other < v ? other : v;
    other = __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5);
    v = other < v ? other : v;
    return v[1] < v[0] ? v[1] : v[0];
}

// Recomputes the candidates of a side after the other side froze flows; returns the smallest.
[[gnu::always_inline]] inline double update_candidates(const PortSide& side) {
    Doubles least = Doubles{} + kNoCandidate;
    for (int m = 0; m < side.size; m += kWidth) {
        Doubles left, flows;
        std::memcpy(&left, side.residual + m, sizeof left);
        std::memcpy(&flows, side.unfrozen + m, sizeof flows);
        const Doubles share = flows > 0.0 ? left / flows : Doubles{} + kNoCandidate;
        std::memcpy(side.candidate + m, &share, sizeof share);
        least = share < least ? share : least;
    }
    return least_lane(least);
}

// The flows in `row` of a port that is full at `level` get no more at the other side either.
[[gnu::always_inline]] inline void take_off(const std::int32_t* row, double level,
                                            const PortSide& other) {
    for (int m = 0; m < other.size; m += kWidth) {
        if (all_zero(row + m)) continue;  // rows get sparse
        Ints flows;
        Doubles left, open;
        std::memcpy(&flows, row + m, sizeof flows);
        std::memcpy(&left, other.residual + m, sizeof left);
        std::memcpy(&open, other.unfrozen + m, sizeof open);
        const Doubles frozen = __builtin_convertvector(flows, Doubles);
        open -= frozen;
        left -= level * frozen;
        std::memcpy(other.residual + m, &left, sizeof left);
        std::memcpy(other.unfrozen + m, &open, sizeof open);
    }
}

// Freezes the ports of `side` with candidates up to `bound`, at their candidates but not below
// `level` (rounding must not break the order). Returns the highest of their levels; `least` becomes
// the least candidate that remains.
[[gnu::always_inline]] inline double freeze_up_to(double bound, double level, const PortSide& side,
                                                  const PortSide& other, const std::int32_t* counts,
                                                  double& least) {
    double highest = level;
    Doubles remaining = Doubles{} + kNoCandidate;
    for (int block = 0; block < side.size; block += kWidth) {
        Doubles candidates, levels, open;
        std::memcpy(&candidates, side.candidate + block, sizeof candidates);
        const Longs freezes = (candidates <= bound) & (candidates < kNoCandidate);
        const Doubles stays = freezes ? Doubles{} + kNoCandidate : candidates;
        remaining = stays < remaining ? stays : remaining;
        std::uint64_t set = lanes(freezes);
        if (set == 0) continue;
        std::memcpy(&levels, side.level + block, sizeof levels);
        std::memcpy(&open, side.unfrozen + block, sizeof open);
        const Doubles own = candidates > level ? candidates : Doubles{} + level;
        levels = freezes ? own : levels;
        open = freezes ? Doubles{} + kFrozen : open;
        std::memcpy(side.candidate + block, &stays, sizeof stays);
        std::memcpy(side.level + block, &levels, sizeof levels);
        std::memcpy(side.unfrozen + block, &open, sizeof open);
        while (set != 0) {
            const int p = block + next_lane(set);
            highest = side.level[p] > highest ? side.level[p] : highest;
            take_off(counts + static_cast<std::size_t>(p) * static_cast<std::size_t>(other.size),
                     side.level[p], other);
        }
    }
    least = least_lane(remaining);
    return highest;
}

}  // namespace

HEADWAY_CLONES void freeze_row(const std::int32_t* row, double level, int first, int last,
                               double* residual, double* unfrozen, double* candidate) {
    const Doubles none = Doubles{} + kNoCandidate;
    for (int m = first; m < last; m += kWidth) {
        if (all_zero(row + m)) continue;  // rows get sparse
        Ints counts;
        Doubles left, flows;
        std::memcpy(&counts, row + m, sizeof counts);
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

HEADWAY_CLONES void take_row(const std::int32_t* __restrict row, double rate, int first, int last,
                             double* __restrict residual) {
    for (int m = first; m < last; ++m) residual[m] -= rate * row[m];
}

HEADWAY_CLONES int first_below(const double* value, const double* whole, double share, int size) {
    for (int m = 0; m < size; m += kWidth) {
        Doubles v, w;
        std::memcpy(&v, value + m, sizeof v);
        std::memcpy(&w, whole + m, sizeof w);
        std::uint64_t set = lanes(v < share * w);
        if (set != 0) return m + next_lane(set);
    }
    return -1;
}

// The first index of the least value. Two accumulators hide the latency of the comparison.
HEADWAY_CLONES int argmin(const double* value, int size) {
    Doubles least[2] = {Doubles{} + 2.0 * kNoCandidate, Doubles{} + 2.0 * kNoCandidate};
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
    keep_first(least[0], where[0], least[1], where[1]);
    Doubles& v = least[0];
    Longs& i = where[0];
    keep_first(v, i, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3),
               __builtin_shufflevector(i, i, 4, 5, 6, 7, 0, 1, 2, 3));
    keep_first(v, i, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5),
               __builtin_shufflevector(i, i, 2, 3, 0, 1, 6, 7, 4, 5));
    keep_first(v, i, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6),
               __builtin_shufflevector(i, i, 1, 0, 3, 2, 5, 4, 7, 6));
    return static_cast<int>(i[0]);
}

HEADWAY_CLONES double fill_crossbar(const PortSide& up, const PortSide& down,
                                    const std::int32_t* by_up, const std::int32_t* by_down) {
    double level = 0.0, least_up = update_candidates(up), least_down = update_candidates(down);
    while (least_up < kNoCandidate || least_down < kNoCandidate) {
        if (least_up <= least_down) {
            level = freeze_up_to(least_down, level, up, down, by_up, least_up);
            least_down = update_candidates(down);
        } else {
            level = freeze_up_to(least_up, level, down, up, by_down, least_down);
            least_up = update_candidates(up);
        }
    }
    return level;
}

HEADWAY_CLONES double earliest(const Grid& g, double* row_least) {
    double best = kNoCandidate;
    for (int u = 0; u < g.rows; ++u) {
        Doubles least = Doubles{} + kNoCandidate;
        for (int d = 0; d < g.stride; d += kWidth) {
            Doubles time;
            bundle_times(g, u, d, time);
            least = time < least ? time : least;
        }
        row_least[u] = least_lane(least);
        best = row_least[u] < best ? row_least[u] : best;
    }
    return best;
}

HEADWAY_CLONES int due(const Grid& g, int row, double last, std::int32_t* columns) {
    int found = 0;
    for (int d = 0; d < g.stride; d += kWidth) {
        Doubles time;
        bundle_times(g, row, d, time);
        for (std::uint64_t set = lanes(time <= last); set != 0;)
            columns[found++] = d + next_lane(set);
    }
    return found;
}

HEADWAY_CLONES void serve(const Grid& g, double elapsed) {
    for (int u = 0; u < g.rows; ++u) {
        const Doubles row = Doubles{} + g.up[u];
        for (int d = 0; d < g.stride; d += kWidth) {
            const std::size_t at =
                static_cast<std::size_t>(u) * static_cast<std::size_t>(g.stride) +
                static_cast<std::size_t>(d);
            Doubles served, down;
            std::memcpy(&served, g.served + at, sizeof served);
            std::memcpy(&down, g.down + d, sizeof down);
            served += (row < down ? row : down) * elapsed;
            std::memcpy(g.served + at, &served, sizeof served);
        }
    }
}

}  // namespace headway::sim
