// Terms of phase curves at shapes where they can be counted by hand. Symbols as in
// docs/reference/model.md.
#include "models/cost/phase_terms.hpp"

#include <gtest/gtest.h>

#include <random>

namespace headway {
namespace {

double value(Term term, const PhaseShape& s, int sms = 132, Pass pass = Pass::forward) {
    return term_value(term, pass, s, sms);
}

// HP, H = 8 routers on one rank, T = 4096: S = 32768 sub-tokens of width 128; E = 48, k = 5.
PhaseShape hp_layer(Phase phase) {
    return {.layer = LayerKind::hp,
            .phase = phase,
            .own_tokens = 4096,
            .tokens = 32768,
            .hidden = 1024,
            .columns = 1024,
            .width = 128,
            .routers = 8,
            .experts = 48,
            .groups = 384,
            .top_k = 5,
            .expert_width = 256,
            .rows = 163840,
            .sent = 163840,
            .arrived = 163840};
}

// 8 x 4096 / 256 = 128 blocks on 132 multiprocessors: one wave, and one round; 48 experts are two
// chunks of 32. On 33 they are ceil(128 / 33) = 4 waves, and as two share one, 2 rounds.
TEST(PhaseTerms, RouterRoundsAndChunks) {
    const PhaseShape s = hp_layer(Phase::route);
    EXPECT_EQ(value(Term::block_waves, s), 1);
    EXPECT_EQ(value(Term::router_rounds, s), 1);
    EXPECT_EQ(value(Term::block_waves, s, 33), 4);
    EXPECT_EQ(value(Term::router_rounds, s, 33), 2);
    EXPECT_EQ(value(Term::router_round_chunks, s, 33), 2 * 2);
    EXPECT_EQ(value(Term::router_round_chunk_width, s, 33), 2 * 2 * 128);
    EXPECT_EQ(value(Term::block_chunks, s, 33), 4 * 2);
    EXPECT_EQ(value(Term::block_chunk_width, s, 33), 4 * 2 * 128);
}

// E = 48, k = 5: 104 E + 4096 k = 25 KB, so blocks of 512 tokens, 8 x 4096 / 512 = 64: one round of
// 132 multiprocessors, two of 33, each worth two of 256 tokens. At k = 17 they would need 74.6 KB:
// 128 blocks of 256 tokens, four rounds of 33. P = 32768 k choices of 20 bytes against 25 MB.
TEST(PhaseTerms, GroupingsBlocks) {
    PhaseShape s = hp_layer(Phase::permute);
    EXPECT_EQ(value(Term::scatter_experts, s), 2 * 48);
    EXPECT_EQ(value(Term::scatter_choices, s, 33), 2 * 2 * 5);
    EXPECT_EQ(value(Term::generic_choices, s), 5);
    EXPECT_EQ(value(Term::prefix_blocks, s), 8 * 2);
    EXPECT_EQ(value(Term::choices_beyond_cache, s), 0);
    EXPECT_EQ(value(Term::unaligned_width, s), 32768 * 128);  // 48 is no multiple of 32
    s.experts = 64;
    EXPECT_EQ(value(Term::unaligned_width, s), 0);
    s.experts = 48;
    s.top_k = 17;
    EXPECT_EQ(value(Term::scatter_choices, s, 33), 4 * 17);
    s.top_k = 8;
    EXPECT_EQ(value(Term::generic_choices, s), 0);
    s.tokens = 1 << 20;
    EXPECT_EQ(value(Term::choices_beyond_cache, s), 20.0 * 8 * (1 << 20) - 25e6);
}

// w / 4 + 4 L + 64 registers at most 128: at w = 128, lists of L = 8 leave room for two blocks, of
// 16 do not; at w = 256 two row tiles never do.
TEST(PhaseTerms, ListsDecideHowManyRouterBlocksShareAMultiprocessor) {
    PhaseShape s = hp_layer(Phase::route);
    s.top_k = 8;
    EXPECT_EQ(value(Term::router_rounds, s, 33), 2);
    s.top_k = 9;
    EXPECT_EQ(value(Term::router_rounds, s, 33), 4);
    s.top_k = 2;
    s.width = 256;
    EXPECT_EQ(value(Term::router_rounds, s, 33), 4);
}

// S / 8 blocks of a warp a token, b of them at once on each of N multiprocessors: 2816 tokens are
// 352 blocks; a step is 256 elements of a row, so w = 832 takes 4. Sums over k = 14 leave room for
// one block (ceil(352 / 132) = 3 rounds), over k = 6 for three, or two where gates have gradients.
TEST(PhaseTerms, RowMoversRunInRoundsOfTheirBlocks) {
    PhaseShape s{.layer = LayerKind::ep,
                 .phase = Phase::unpermute,
                 .tokens = 2816,
                 .width = 832,
                 .top_k = 14};
    EXPECT_EQ(value(Term::mover_rounds, s), 3);
    EXPECT_EQ(value(Term::mover_round_steps, s), 3 * 4);
    EXPECT_EQ(value(Term::mover_round_choices, s), 3 * 4 * 14);
    s.top_k = 6;
    EXPECT_EQ(value(Term::mover_rounds, s, 33), 4);                  // ceil(352 / 99)
    EXPECT_EQ(value(Term::mover_rounds, s, 33, Pass::backward), 6);  // ceil(352 / 66)
    s.phase = Phase::permute;
    EXPECT_EQ(value(Term::mover_rounds, s, 33), 3);  // ceil(352 / 132)
    s.width = 128;
    EXPECT_EQ(value(Term::mover_rounds, s, 33), 2);  // 176 blocks
}

// T k max(4, E / 32 up to a power of two): E = 48 -> 4, 129 -> 8, 512 -> 16.
TEST(PhaseTerms, SelectionComparesWhatItsKernelWasCompiledFor) {
    PhaseShape s{.layer = LayerKind::ep, .phase = Phase::route, .tokens = 1000, .top_k = 3};
    for (const auto& [experts, lanes] : {std::pair{48, 4}, {128, 4}, {129, 8}, {512, 16}}) {
        s.experts = experts;
        EXPECT_EQ(value(Term::selection_slots, s), 3000.0 * lanes);
    }
    s.experts = 33;
    EXPECT_EQ(value(Term::gradient_rounds, s), 3000.0 * 2);
}

// 2 w (S + copies) - 25 MB: w = 1024, S = 4096, k = 4: 41.9 MB, 16.9 beyond; routing reads S rows
// alone, 8.4 MB, which the cache holds.
TEST(PhaseTerms, BeyondCacheBeginsAtHalfTheCache) {
    PhaseShape s{.layer = LayerKind::ep,
                 .phase = Phase::unpermute,
                 .tokens = 4096,
                 .width = 1024,
                 .top_k = 4,
                 .sent = 16384};
    EXPECT_DOUBLE_EQ(value(Term::beyond_cache, s), 2.0 * 1024 * (4096 + 16384) - 25e6);
    s.phase = Phase::route;
    EXPECT_EQ(value(Term::beyond_cache, s), 0.0);
}

// 4 w (copies + S) less 1, 4 or 16 MiB: w = 128, S = 1024, 8192 copies: 4.5 MiB. Regroup reads what
// arrived and writes R rows.
TEST(PhaseTerms, MovedBeyondBeginsAtItsCache) {
    PhaseShape s{.phase = Phase::permute,
                 .tokens = 1024,
                 .width = 128,
                 .rows = 16384,
                 .sent = 8192,
                 .arrived = 24576};
    EXPECT_EQ(value(Term::moved_beyond_1m, s), 3.5 * 1048576);
    EXPECT_EQ(value(Term::moved_beyond_4m, s), 0.5 * 1048576);
    EXPECT_EQ(value(Term::moved_beyond_16m, s), 0.0);
    s.phase = Phase::regroup;
    EXPECT_EQ(value(Term::moved_beyond_16m, s), 4.0 * 1048576);
}

// A row of 640 is 2.5 steps of 256: three. Regrouping moves what arrived.
TEST(PhaseTerms, CopyStepsAreWhole) {
    PhaseShape s{.layer = LayerKind::ep,
                 .phase = Phase::permute,
                 .width = 640,
                 .top_k = 2,
                 .sent = 100,
                 .arrived = 70};
    EXPECT_EQ(value(Term::copy_steps, s), 300);
    EXPECT_EQ(value(Term::copy_choices, s), 200);
    s.phase = Phase::regroup;
    EXPECT_EQ(value(Term::copy_steps, s), 210);
}

// R / G = 1e6 rows an expert: R / G / 128 + 1/2 tiles on the mean. No rows, no tiles.
TEST(PhaseTerms, TilesOfAnExpertAreExpectedOnes) {
    PhaseShape s = hp_layer(Phase::expert);
    s.groups = 2;
    s.rows = 2e6;
    EXPECT_NEAR(value(Term::group_tiles, s), 1e6 / 128 + 0.5, 1e-9);
    s.rows = 0;
    EXPECT_EQ(value(Term::tiles, s), 0);
}

// Every term of every phase grows, or stays, with the tokens.
TEST(PhaseTerms, NeverFallWithTokens) {
    std::mt19937_64 random(1);
    for (int draw = 0; draw < 40; ++draw) {
        PhaseShape s = hp_layer(draw % 2 == 0 ? Phase::route : Phase::expert);
        s.layer = static_cast<LayerKind>(random() % 3);
        s.width = 64 << random() % 3;
        s.top_k = 1 + static_cast<int>(random() % 16);
        for (std::size_t t = 0; t < kTermNames.size(); ++t) {
            const auto term = static_cast<Term>(t);
            EXPECT_LE(value(term, s), value(term, scaled(s, 2.0)) * (1 + 1e-12)) << kTermNames[t];
        }
    }
}

}  // namespace
}  // namespace headway
