// Phase curves from synthetic layers whose law is known.
#include "models/fit/phase_fit.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "models/cost/phase_terms.hpp"

namespace headway {
namespace {

constexpr int kSms = 132;

// EP on one rank: T tokens of width d, k of E experts of width f.
PhaseShape ep_shape(Phase phase, double tokens, int width, int experts, int top_k, double f) {
    return {.layer = LayerKind::ep,
            .phase = phase,
            .own_tokens = tokens,
            .tokens = tokens,
            .hidden = static_cast<double>(width),
            .width = width,
            .experts = experts,
            .groups = static_cast<double>(experts),
            .top_k = top_k,
            .expert_width = f,
            .rows = tokens * top_k,
            .sent = tokens * top_k,
            .arrived = tokens * top_k};
}

// Layers drawn from `levels[i % n]` of every value: none of one set is in the other.
std::vector<PhaseShape> layers(Phase phase, bool held_out, int count, std::uint64_t seed) {
    const std::vector<double> tokens =
        held_out ? std::vector<double>{3000, 7000, 15000}
                 : std::vector<double>{2048, 2560, 4096, 5120, 8192, 10240, 16384, 20480};
    const std::vector<int> widths =
        held_out ? std::vector<int>{768, 1536} : std::vector<int>{512, 640, 1024, 1280, 2048, 2560};
    const std::vector<int> experts =
        held_out ? std::vector<int>{48, 80} : std::vector<int>{32, 40, 64, 72, 128, 136};
    const std::vector<int> ks =
        held_out ? std::vector<int>{6, 7} : std::vector<int>{1, 2, 3, 4, 5, 8, 9, 16};
    const std::vector<double> fs =
        held_out ? std::vector<double>{384, 640} : std::vector<double>{256, 320, 512, 576, 1024};
    std::mt19937_64 random(seed);
    const auto pick = [&](const auto& from) { return from[random() % from.size()]; };
    std::vector<PhaseShape> result;
    for (int i = 0; i < count; ++i)
        result.push_back(
            ep_shape(phase, pick(tokens), pick(widths), pick(experts), pick(ks), pick(fs)));
    return result;
}

// t = 9 us + T d 0.5 fs + T E 1 ps + T k 40 ps: terms that the routing phase's curve has.
double route_law(const PhaseShape& s) {
    return 9e-6 + 5e-16 * s.tokens * s.width + 1e-12 * s.tokens * s.experts +
           4e-11 * s.tokens * s.top_k;
}

std::vector<MeasuredPhase> route_times(const std::vector<PhaseShape>& shapes, double noise,
                                       std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> error(0.0, noise > 0 ? noise : 1.0);
    std::vector<MeasuredPhase> times;
    for (const PhaseShape& s : shapes)
        times.push_back({s, Pass::forward, route_law(s) * std::exp(noise > 0 ? error(random) : 0)});
    return times;
}

const PhaseCurve* curve_of(const std::vector<PhaseCurve>& curves, const PhaseShape& s, Pass pass) {
    for (const PhaseCurve& c : curves) {
        if (c.layer == s.layer && c.phase == s.phase && c.pass == pass && c.min_top_k <= s.top_k &&
            s.top_k <= c.max_top_k)
            return &c;
    }
    return nullptr;
}

// A law of the curve's own terms without noise is found: layers none of whose values was in the fit
// are predicted to 0.5 %, and the residual says no more than its least, 2 %.
TEST(PhaseFit, FindsALawOfItsTerms) {
    const auto curves =
        fit_phases(route_times(layers(Phase::route, false, 200, 1), 0.0, 1), kSms, "test");
    ASSERT_FALSE(curves.empty());
    for (const PhaseShape& s : layers(Phase::route, true, 50, 2)) {
        const PhaseCurve* curve = curve_of(curves, s, Pass::forward);
        ASSERT_NE(curve, nullptr);
        EXPECT_NEAR(phase_seconds(*curve, s) / route_law(s), 1.0, 0.005);
        EXPECT_DOUBLE_EQ(curve->residual, 0.02);
    }
}

// With noise of 5 %, the 90 % interval of the fit holds 90 % of new measurements with the same
// noise: of 2000, binomial sigma 0.7 %, and the interval itself is estimated from 200 (sigma 2 %).
TEST(PhaseFit, IntervalHoldsNineInTenNewLayers) {
    constexpr double kNoise = 0.05, kNinetyPercent = 1.6449;
    const auto curves =
        fit_phases(route_times(layers(Phase::route, false, 200, 3), kNoise, 3), kSms, "test");
    int inside = 0, count = 0;
    for (const MeasuredPhase& t : route_times(layers(Phase::route, true, 2000, 4), kNoise, 5)) {
        const PhaseCurve* curve = curve_of(curves, t.shape, Pass::forward);
        ASSERT_NE(curve, nullptr);
        const double predicted = phase_seconds(*curve, t.shape);
        inside += std::abs(t.seconds / predicted - 1.0) <= kNinetyPercent * curve->residual;
        ++count;
    }
    EXPECT_GT(inside, 0.84 * count);
    EXPECT_LT(inside, 0.97 * count);
}

// One sample in twenty is five times too slow (another process, a page fault): the rest decides.
TEST(PhaseFit, OutliersDoNotCountByTheirSize) {
    auto times = route_times(layers(Phase::route, false, 200, 6), 0.0, 6);
    for (std::size_t i = 0; i < times.size(); i += 20) times[i].seconds *= 5.0;
    const auto curves = fit_phases(times, kSms, "test");
    for (const PhaseShape& s : layers(Phase::route, true, 50, 7))
        EXPECT_NEAR(phase_seconds(*curve_of(curves, s, Pass::forward), s) / route_law(s), 1.0,
                    0.03);
}

// Kernels are compiled for k up to 2, 4, 8 and 16: twice the time from k = 5 on is a step between
// curves, not a slope of one.
TEST(PhaseFit, RangesOfKHaveCurvesOfTheirOwn) {
    std::vector<MeasuredPhase> times;
    for (const PhaseShape& s : layers(Phase::unpermute, false, 300, 8)) {
        const double seconds = 5e-6 + 1e-15 * s.sent * s.width * (s.top_k > 4 ? 2.0 : 1.0);
        times.push_back({s, Pass::forward, seconds});
    }
    const auto curves = fit_phases(times, kSms, "test");
    const auto seconds = [&](int k) {
        const PhaseShape s = ep_shape(Phase::unpermute, 8192, 1024, 64, k, 512);
        return (phase_seconds(*curve_of(curves, s, Pass::forward), s) - 5e-6) / (s.sent * s.width);
    };
    EXPECT_NEAR(seconds(8) / seconds(4), 2.0, 0.1);
    EXPECT_NEAR(seconds(4) / seconds(2), 1.0, 0.1);
}

// Seconds of terms are never negative, so that more tokens never take less time.
TEST(PhaseFit, TimeNeverFallsWithTokens) {
    std::mt19937_64 random(9);
    std::uniform_real_distribution<double> any(1e-5, 1e-3);
    std::vector<MeasuredPhase> times;
    for (const Phase phase : {Phase::route, Phase::permute, Phase::unpermute}) {
        for (const PhaseShape& s : layers(phase, false, 60, 10))
            times.push_back({s, Pass::forward, any(random)});
    }
    for (const PhaseCurve& curve : fit_phases(times, kSms, "test")) {
        for (const double s : curve.seconds) EXPECT_GE(s, 0.0);
        const PhaseShape s = ep_shape(curve.phase, 4096, 1024, 64, curve.min_top_k, 512);
        double last = 0.0;
        for (const double fraction : {0.25, 0.5, 1.0, 2.0, 4.0}) {
            const double seconds = phase_seconds(curve, scaled(s, fraction));
            EXPECT_GE(seconds, last);
            last = seconds;
        }
    }
}

TEST(PhaseFit, TooFewSamplesGiveNoCurve) {
    EXPECT_TRUE(
        fit_phases(route_times(layers(Phase::route, false, 3, 1), 0.0, 1), kSms, "test").empty());
}

// Seconds of a row mover by its phase's own law: each pass another one.
double mover_law(const PhaseShape& s, Pass pass) {
    const double copies = s.sent * s.width, tokens = s.tokens * s.width;
    return pass == Pass::forward ? 4e-6 + 2e-10 * copies + 1e-9 * s.tokens * s.top_k
                                 : 2e-6 + 5e-11 * copies + 3e-10 * tokens;
}

// Row movers of a processor without multiprocessors: unpermute forward and backward take curves of
// their own, kinds of layers too, and layers whose T and k no sample had are met.
TEST(RowMovers, EachHasItsOwnCurve) {
    std::vector<MeasuredPhase> times;
    for (const double tokens : {256.0, 512.0, 1024.0, 2048.0}) {
        for (const int k : {2, 4, 8}) {
            for (const Pass pass : {Pass::forward, Pass::backward}) {
                const PhaseShape s = ep_shape(Phase::unpermute, tokens, 128, 16, k, 256);
                times.push_back({s, pass, mover_law(s, pass)});
                PhaseShape deduplicated = s;
                deduplicated.layer = LayerKind::ep_rank;
                times.push_back({deduplicated, pass, 2.0 * mover_law(s, pass)});
            }
            times.push_back({ep_shape(Phase::expert, tokens, 128, 16, k, 256), Pass::forward, 1.0});
        }
    }
    const std::vector<PhaseCurve> curves = fit_row_movers(times, "test");
    EXPECT_EQ(curves.size(), 4U);  // experts move no rows
    for (const Pass pass : {Pass::forward, Pass::backward}) {
        PhaseShape s = ep_shape(Phase::unpermute, 700, 128, 16, 5, 256);
        const PhaseCurve* naive = curve_of(curves, s, pass);
        ASSERT_NE(naive, nullptr);
        EXPECT_NEAR(phase_seconds(*naive, s) / mover_law(s, pass), 1.0, 0.01);
        EXPECT_LE(naive->residual, 0.05);
        s.layer = LayerKind::ep_rank;
        const PhaseCurve* deduplicated = curve_of(curves, s, pass);
        ASSERT_NE(deduplicated, nullptr);
        EXPECT_NEAR(phase_seconds(*deduplicated, s) / mover_law(s, pass), 2.0, 0.02);
    }
}

}  // namespace
}  // namespace headway
