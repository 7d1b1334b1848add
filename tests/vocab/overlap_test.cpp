// Compute beside communication, solved by hand. T: its own time, s: slowdown, p: pieces, R: how
// long something communicates.
#include "models/vocab/overlap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace headway {
namespace {

// The end of compute beside which something communicates from the begin on for R.
double end_beside(double time, int pieces, double communicates, const Overlap& o) {
    OverlappedCompute compute(time, pieces);
    const double beside = compute.until_end(true, o);
    if (beside <= communicates) return beside;
    compute.advance(communicates, true, o);
    return communicates + compute.until_end(false, o);
}

// Without a loss of its own compute is s times as slow all the while, whatever its pieces:
// T + R (1 - 1/s), or s T.
TEST(Overlap, ByDefaultComputeIsSlowerAllTheWhile) {
    const double time = 10.0, s = 1.25;
    for (const int pieces : {1, 4}) {
        EXPECT_NEAR(end_beside(time, pieces, 4.0, s), time + 4.0 * (1.0 - 1.0 / s), 1e-12);
        EXPECT_NEAR(end_beside(time, pieces, 50.0, s), s * time, 1e-12);
    }
}

// A kernel of one wave whose last blocks find no multiprocessor stands still until R ends or it has
// lost (s - 1) T, the second wave: T + min(R, (s - 1) T).
TEST(Overlap, AKernelOfOneWaveStandsStill) {
    const double time = 10.0, s = 1.75;
    const Overlap o(s, 1.0);
    for (const double r : {0.0, 1.0, 5.0, 7.5, 9.0, 17.5, 40.0})
        EXPECT_NEAR(end_beside(time, 1, r, o), time + std::min(r, (s - 1.0) * time), 1e-9) << r;
}

// p kernels of T / p: while R lasts each takes s T / p, and the one in which it ends
// T / p + min(what is left of R, (s - 1) T / p).
TEST(Overlap, EachKernelOfAPhaseIsSlowedByItself) {
    const double time = 12.0, s = 1.5;
    const int p = 4;
    const Overlap o(s, 1.0);
    const double piece = time / p, most = (s - 1.0) * piece;
    for (const double r : {1.0, 4.5, 5.0, 8.0, 10.5, 17.9, 30.0}) {
        const double whole = std::min<double>(p, std::floor(r / (s * piece) + 1e-12));
        const double rest = whole < p ? std::min(r - whole * s * piece, most) : 0.0;
        EXPECT_NEAR(end_beside(time, p, r, o), time + whole * most + rest, 1e-9) << r;
    }
}

// A loss of c, 1 - 1/s < c < 1: T + min(c R, (s - 1) T).
TEST(Overlap, ALossBelowOneGoesOnInTheMeantime) {
    const double time = 10.0, s = 1.6, c = 0.6;
    const Overlap o(s, c);
    for (const double r : {2.0, 9.9, 10.1, 14.0, 100.0})
        EXPECT_NEAR(end_beside(time, 1, r, o), time + std::min(c * r, (s - 1.0) * time), 1e-9) << r;
}

// Communication that comes and goes: what a piece has lost is not forgotten before it ends.
TEST(Overlap, WhatAPieceHasLostIsKept) {
    const Overlap o(1.5, 1.0);
    OverlappedCompute compute(10.0, 1);
    EXPECT_EQ(compute.advance(3.0, true, o), 0.0);
    EXPECT_NEAR(compute.advance(2.0, false, o), 2.0, 1e-12);
    // 2 of 5 are left to lose.
    EXPECT_NEAR(compute.until_end(true, o), 8.0 + 2.0, 1e-12);
    EXPECT_NEAR(compute.advance(4.0, true, o), 2.0, 1e-12);
    EXPECT_NEAR(compute.left(), 6.0, 1e-12);
}

}  // namespace
}  // namespace headway
