#include "models/cost/phase_terms.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace headway::inline cost {
namespace {

constexpr double kTile = 128.0, kWideTile = 256.0;
constexpr double kRouterBlock = 256.0;  // tokens
constexpr double kSortBlock = 2048.0;   // choices
constexpr double kRouterChunk = 32.0;   // experts that the fused router takes at once
constexpr double kWarp = 32.0;
constexpr double kWarpRow = 256.0;  // elements that a warp of a row mover takes at once
constexpr double kElement = 2.0;    // bytes
// Bytes that are still warm in the L2 from the phase before: one of its two halves of 25 MB.
constexpr double kCache = 25e6;

double normal_cdf(double x) {
    return 0.5 * std::erfc(-x * M_SQRT1_2);
}

// E[ceil(X / tile)] of a Poisson X, by the normal distribution.
double expected_tiles(double mean, double tile) {
    if (mean <= 0.0) return 0.0;
    const double sigma = std::sqrt(mean);
    if (mean > 64.0 * tile) return mean / tile + 0.5;
    double sum = 1.0;
    for (double j = 1.0; tile * j < mean + 6.0 * sigma; j += 1.0)
        sum += normal_cdf((mean - tile * j) / sigma);
    return sum;
}

// Tiles of an m x n result; a tile's longer side lies where fewer tiles are needed.
double tiles_of(double m, double n) {
    return std::min(std::ceil(m / kTile) * std::ceil(n / kWideTile),
                    std::ceil(m / kWideTile) * std::ceil(n / kTile));
}

double waves(double blocks, int sms) {
    return std::max(1.0, std::ceil(std::round(blocks) / sms));
}

struct Gemm {
    double m, n, depth;
};

// The product of the phase whose result is tokens or sub-tokens by a width.
Gemm token_gemm(Pass pass, const PhaseShape& s) {
    const bool to_columns = (s.phase == Phase::head_project) == (pass == Pass::forward);
    if (s.layer != LayerKind::hp) return {s.own_tokens, s.hidden, double{1} * s.experts};
    return to_columns ? Gemm{s.own_tokens, s.columns, s.hidden}
                      : Gemm{s.own_tokens, s.hidden, s.columns};
}

// Grouped: rows of every expert by n columns; the tile that wastes fewer columns.
double grouped_tiles(const PhaseShape& s, double n) {
    const double rows = s.rows / s.groups;
    const bool wide = std::ceil(n / kWideTile) * kWideTile <= std::ceil(n / kTile) * kTile;
    return wide ? s.groups * expected_tiles(rows, kTile) * std::ceil(n / kWideTile)
                : s.groups * expected_tiles(rows, kWideTile) * std::ceil(n / kTile);
}

double gemm_waves(Pass pass, const PhaseShape& s, int sms) {
    if (s.phase == Phase::expert) return waves(grouped_tiles(s, s.expert_width), sms);
    const Gemm g = token_gemm(pass, s);
    return waves(tiles_of(g.m, g.n), sms);
}

double second_gemm_waves(const PhaseShape& s, int sms) {
    return waves(grouped_tiles(s, s.width), sms);
}

double gemm_wave_depth(Pass pass, const PhaseShape& s, int sms) {
    if (s.phase == Phase::expert)
        return gemm_waves(pass, s, sms) * s.width + second_gemm_waves(s, sms) * s.expert_width;
    return gemm_waves(pass, s, sms) * token_gemm(pass, s).depth;
}

// A weight gradient with fewer tiles than multiprocessors is cut along the tokens.
double wgrad_parts(const PhaseShape& s, int sms) {
    return std::clamp(std::floor(sms / tiles_of(s.columns, s.hidden)), 1.0, 16.0);
}

double wgrad_waves(const PhaseShape& s, int sms) {
    if (s.phase == Phase::expert) return waves(s.groups * tiles_of(s.expert_width, s.width), sms);
    return waves(wgrad_parts(s, sms) * tiles_of(s.columns, s.hidden), sms);
}

double wgrad_wave_rows(const PhaseShape& s, int sms) {
    const double rows =
        s.phase == Phase::expert ? s.rows / s.groups : s.own_tokens / wgrad_parts(s, sms);
    return wgrad_waves(s, sms) * rows;
}

double wgrad_sums(const PhaseShape& s, int sms) {
    const double parts = wgrad_parts(s, sms);
    return parts > 1.0 ? (parts + 1.0) * s.columns * s.hidden : 0.0;
}

double expert_tiles(const PhaseShape& s) {
    return s.groups * expected_tiles(s.rows / s.groups, kTile);
}

// Lists of the k best are kept at a power of two.
double list_length(const PhaseShape& s) {
    return std::max(2.0, std::exp2(std::ceil(std::log2(s.top_k))));
}

// Router blocks of one router, and rounds of the multiprocessors over all of them.
double blocks_per_router(const PhaseShape& s) {
    return std::ceil(s.tokens / s.routers / kRouterBlock);
}
double router_blocks(const PhaseShape& s) {
    return s.routers * blocks_per_router(s);
}
double block_waves(const PhaseShape& s, int sms) {
    return waves(router_blocks(s), sms);
}

double chunks(const PhaseShape& s) {
    return std::ceil(s.experts / kRouterChunk);
}

// Two blocks of the fused router share a multiprocessor when the registers of a thread, for its
// rows' inputs and lists, are at most 128; 32 rows a warp at a width of 256 and short lists.
double router_rounds(const PhaseShape& s, int sms) {
    const double list = list_length(s), row_tiles = s.width == 256 && list <= 4.0 ? 2.0 : 1.0;
    const bool two = row_tiles * (s.width / 4.0 + 4.0 * list) + 64.0 <= 128.0;
    return waves(router_blocks(s), two ? 2 * sms : sms);
}

// EP's selection compares as many scores a lane as its kernel was compiled for.
double scores_per_lane(const PhaseShape& s) {
    return std::max(4.0, std::exp2(std::ceil(std::log2(s.experts / kWarp))));
}

double copies(const PhaseShape& s) {
    return s.phase == Phase::regroup || s.phase == Phase::ungroup ? s.arrived : s.sent;
}

double beyond_cache(const PhaseShape& s) {
    const double rows = s.phase == Phase::route ? s.tokens : s.tokens + s.sent;
    return std::max(0.0, kElement * rows * s.width - kCache);
}

// Tokens that a block of HP's grouping sorts: 512 where three of such blocks share a
// multiprocessor's memory, else 256.
double scatter_block(const PhaseShape& s) {
    constexpr double kLong = 512.0, kShort = 256.0, kShared = 73728.0;  // bytes a block
    const double bytes = (kLong / 32.0 * 6.0 + 8.0) * s.experts + kLong * 8.0 * s.top_k;
    return bytes <= kShared ? kLong : kShort;
}

// Rounds of the multiprocessors over those blocks, in blocks of 256 tokens.
double scatter_rounds(const PhaseShape& s, int sms) {
    const double tokens = scatter_block(s);
    return waves(s.routers * std::ceil(s.tokens / s.routers / tokens), sms) * tokens / 256.0;
}

// The grouping knows k when it is compiled for these.
bool generic_top_k(const PhaseShape& s) {
    return s.top_k != 1 && s.top_k != 2 && s.top_k != 4 && s.top_k != 8;
}

double mover_steps(const PhaseShape& s) {
    return std::ceil(s.width / kWarpRow);
}

// Blocks of EP's row movers that the registers of their threads (sm_90a, CUDA 13.0) let share a
// multiprocessor: spreading keeps no rows, sums keep one of each of k copies, in bounds of k.
double movers_at_once(Pass pass, const PhaseShape& s) {
    if (s.phase == Phase::permute && pass == Pass::forward) return 4.0;
    const bool with_gates = s.phase == Phase::unpermute && pass == Pass::backward;
    if (s.top_k <= 1) return 6.0;
    if (s.top_k <= 2) return 5.0;
    if (s.top_k <= 4) return with_gates ? 3.0 : 5.0;
    if (s.top_k <= 8) return with_gates ? 2.0 : 3.0;
    return 1.0;
}

// Rounds of the multiprocessors over their blocks: eight warps, a token each, two or four at a
// narrow width.
double mover_rounds(Pass pass, const PhaseShape& s, int sms) {
    const double tokens = s.width <= 64 ? 32.0 : s.width <= 128 ? 16.0 : 8.0;
    return waves(std::ceil(s.tokens / tokens), sms * static_cast<int>(movers_at_once(pass, s)));
}

// What a row mover reads and writes on a processor that computes in fp32, beyond the first `mib`.
double moved_beyond(const PhaseShape& s, double mib) {
    constexpr double kFloat = 4.0, kMiB = 1048576.0;
    const bool at_experts = s.phase == Phase::regroup || s.phase == Phase::ungroup;
    const double rows = copies(s) + (at_experts ? s.rows : s.tokens);
    return std::max(0.0, kFloat * rows * s.width - mib * kMiB);
}

}  // namespace

double term_value(Term term, Pass pass, const PhaseShape& s, int sms) {
    const double choices = s.tokens * s.top_k;
    switch (term) {
        case Term::fixed:
            return 1.0;
        case Term::gemm_waves:
            return gemm_waves(pass, s, sms);
        case Term::gemm_wave_depth:
            return gemm_wave_depth(pass, s, sms);
        case Term::second_gemm_waves:
            return second_gemm_waves(s, sms);
        case Term::wgrad_waves:
            return wgrad_waves(s, sms);
        case Term::wgrad_wave_rows:
            return wgrad_wave_rows(s, sms);
        case Term::wgrad_sums:
            return wgrad_sums(s, sms);
        case Term::tokens:
            return s.tokens;
        case Term::token_width:
            return s.tokens * s.width;
        case Term::choices:
            return choices;
        case Term::copy_width:
            return copies(s) * s.width;
        case Term::row_width:
            return s.rows * s.width;
        case Term::row_hidden:
            return s.rows * s.expert_width;
        case Term::logits:
            return s.tokens * s.experts;
        case Term::logit_products:
            return s.tokens * s.experts * s.width;
        case Term::list_updates:
            return s.tokens * list_length(s) * std::log1p(s.experts / list_length(s));
        case Term::selection_rounds:
            return choices * s.experts;
        case Term::tile_waves:
            return waves(expert_tiles(s), sms);
        case Term::tile_wave_hidden:
            return waves(expert_tiles(s), sms) * s.expert_width;
        case Term::block_waves:
            return block_waves(s, sms);
        case Term::block_choices:
            return block_waves(s, sms) * s.top_k;
        case Term::block_experts:
            return block_waves(s, sms) * s.experts;
        case Term::count_blocks:
            return blocks_per_router(s) * s.experts;
        case Term::sort_blocks:
            return std::ceil(choices / kSortBlock) * s.experts;
        case Term::tiles:
            return expert_tiles(s);
        case Term::groups:
            return s.groups;
        case Term::group_width:
            return s.groups * s.width;
        case Term::group_hidden:
            return s.groups * s.expert_width;
        case Term::group_weights:
            return s.groups * s.expert_width * s.width;
        case Term::selection_slots:
            return choices * scores_per_lane(s);
        case Term::gradient_rounds:
            return choices * std::ceil(s.experts / kWarp);
        case Term::router_weights:
            return double{1} * s.experts * s.width;
        case Term::router_rounds:
            return router_rounds(s, sms);
        case Term::router_round_chunks:
            return router_rounds(s, sms) * chunks(s);
        case Term::router_round_chunk_width:
            return router_rounds(s, sms) * chunks(s) * s.width;
        case Term::block_chunks:
            return block_waves(s, sms) * chunks(s);
        case Term::block_chunk_width:
            return block_waves(s, sms) * chunks(s) * s.width;
        case Term::group_tiles:
            return expert_tiles(s) / s.groups;
        case Term::beyond_cache:
            return beyond_cache(s);
        case Term::copy_choices:
            return s.sent * s.top_k;
        case Term::copy_steps:
            return copies(s) * mover_steps(s);
        case Term::scatter_experts:
            return scatter_rounds(s, sms) * s.experts;
        case Term::scatter_choices:
            return scatter_rounds(s, sms) * s.top_k;
        case Term::generic_choices:
            return generic_top_k(s) ? s.top_k : 0.0;
        case Term::choices_beyond_cache:
            // Index, gate, row's token and gate, token's row: 4 bytes each.
            return std::max(0.0, 20.0 * choices - kCache);
        case Term::prefix_blocks:
            return s.routers * std::ceil(s.experts / kWarp);
        case Term::unaligned_width:
            return s.experts % static_cast<int>(kWarp) == 0 ? 0.0 : s.tokens * s.width;
        case Term::mover_rounds:
            return mover_rounds(pass, s, sms);
        case Term::mover_round_steps:
            return mover_rounds(pass, s, sms) * mover_steps(s);
        case Term::mover_round_choices:
            return mover_rounds(pass, s, sms) * mover_steps(s) * s.top_k;
        case Term::moved_beyond_1m:
            return moved_beyond(s, 1.0);
        case Term::moved_beyond_4m:
            return moved_beyond(s, 4.0);
        case Term::moved_beyond_16m:
            return moved_beyond(s, 16.0);
    }
    return 0.0;
}

const PhaseCurve* find_curve(const Profile& profile, const PhaseShape& shape, Pass pass) {
    const auto find = [&](LayerKind layer) {
        return profile.find(layer, shape.phase, pass, shape.dtype, shape.width, shape.top_k);
    };
    const PhaseCurve* own = find(shape.layer);
    // Rank-dedup changes what travels: router and experts are the kernels of any EP.
    const bool same = shape.phase == Phase::route || shape.phase == Phase::expert;
    return own == nullptr && same && shape.layer == LayerKind::ep_rank ? find(LayerKind::ep) : own;
}

std::optional<Asked> outside(const PhaseCurve& curve, const PhaseShape& shape) {
    if (!curve.measured) return std::nullopt;
    const ShapeRange& m = *curve.measured;
    const bool projection = curve.phase == Phase::head_project || curve.phase == Phase::head_merge;
    std::vector<Asked> all{{"tokens", shape.own_tokens, m.own_tokens}};
    if (projection || curve.phase == Phase::route)
        all.push_back({"hidden", shape.hidden, m.hidden});
    if (!projection) {
        all.push_back({"experts", double{1} * shape.experts, m.experts});
        all.push_back({"k", double{1} * shape.top_k, m.top_k});
        all.push_back({"width", double{1} * shape.width, m.width});
    }
    if (curve.phase == Phase::expert)
        all.push_back({"expert width", shape.expert_width, m.expert_width});
    const auto found = std::find_if(all.begin(), all.end(),
                                    [](const Asked& a) { return !a.measured.holds(a.value); });
    return found == all.end() ? std::nullopt : std::optional(*found);
}

double phase_seconds(const PhaseCurve& curve, const PhaseShape& shape) {
    double seconds = 0.0;
    for (std::size_t i = 0; i < curve.terms.size(); ++i) {
        seconds += curve.seconds[i] *
                   term_value(curve.terms[i], curve.pass, shape, curve.num_multiprocessors);
    }
    return seconds;
}

PhaseShape scaled(const PhaseShape& shape, double fraction) {
    PhaseShape s = shape;
    for (double* v : {&s.own_tokens, &s.tokens, &s.rows, &s.sent, &s.arrived}) *v *= fraction;
    return s;
}

}  // namespace headway::inline cost
