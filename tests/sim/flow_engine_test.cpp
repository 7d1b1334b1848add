#include "sim/flow_engine.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/sim/naive_oracle.hpp"

namespace headway::sim {
namespace {

constexpr double C = 1e9;               // bytes per second
constexpr double kBytes = 1e6;          // B
constexpr Picoseconds kT = 1000000000;  // B / C in picoseconds: 1 ms

using Links = std::vector<std::uint32_t>;

std::map<std::uint32_t, Picoseconds> run_to_end(FlowEngine& engine) {
    std::vector<Completion> done;
    while (engine.next_completion() != kNever) engine.advance(engine.next_completion(), done);
    std::map<std::uint32_t, Picoseconds> finish;
    for (const Completion& c : done) finish[c.flow] = c.time;
    EXPECT_EQ(finish.size(), done.size()) << "a flow completed twice";
    return finish;
}

TEST(FlowEngine, OneFlowTakesBytesOverBandwidth) {
    FlowEngine engine(std::vector{C, 2 * C});
    engine.start(Links{0, 1}, kBytes);
    EXPECT_EQ(run_to_end(engine)[0], kT);
}

TEST(FlowEngine, AnIdleEngineNeverCompletes) {
    FlowEngine engine(std::vector{C});
    EXPECT_EQ(engine.next_completion(), kNever);
}

// Two flows of B and 3B on one link: both at C/2 until 2B/C; the longer has 2B left, at C: 4B/C.
TEST(FlowEngine, TheSurvivorSpeedsUp) {
    FlowEngine engine(std::vector{C});
    engine.start(Links{0}, kBytes);
    engine.start(Links{0}, 3 * kBytes);
    auto finish = run_to_end(engine);
    EXPECT_EQ(finish[0], 2 * kT);
    EXPECT_EQ(finish[1], 4 * kT);
    EXPECT_EQ(engine.num_instants(), 2);
}

// A flow of 2B alone for B/C, then with a flow of B/2: shared for B/C, then alone with B/2 left.
TEST(FlowEngine, ALateFlowTakesItsShare) {
    FlowEngine engine(std::vector{C});
    std::vector<Completion> done;
    engine.start(Links{0}, 2 * kBytes);
    engine.advance(kT, done);
    engine.start(Links{0}, kBytes / 2);
    auto finish = run_to_end(engine);
    EXPECT_TRUE(done.empty());
    EXPECT_EQ(finish[1], 2 * kT);
    EXPECT_EQ(finish[0], 2 * kT + kT / 2);
}

// Links a (C) and b (C); x on a and b, y on a, z on b, sizes B, B, 2B. All run at C/2; at 2B/C x
// and y end, z has B left and the whole of b: 3B/C.
TEST(FlowEngine, ABottleneckMovesWhenItsFlowsEnd) {
    FlowEngine engine(std::vector{C, C});
    engine.start(Links{0, 1}, kBytes);
    engine.start(Links{0}, kBytes);
    engine.start(Links{1}, 2 * kBytes);
    auto finish = run_to_end(engine);
    EXPECT_EQ(finish[0], 2 * kT);
    EXPECT_EQ(finish[1], 2 * kT);
    EXPECT_EQ(finish[2], 3 * kT);
}

// Links u, v, w, x, y and d, e, f, all C. From u, v and w one flow each to d and to e, at C/3: at
// 3 B/C those of B end, and those of 3B, u to d and v to e, have 2B left, at C. Then 3B from w to
// f, at C too: d, e and w are equally full. At 3.5 B/C flows of B join them, two from w to d, two
// from w to e, x to d and y to e: w gives its five flows C/5, d and e give 3C/10 to each of their
// others.
//   x to d, y to e: B at 3C/10, until 3.5 + 10/3; u to d, v to e: 1.5B - B left, at 3C/5, 5/6 more;
//   w to d, w to e: B at C/5, until 8.5; w to f: 2.5B - B left, at C, until 10.
TEST(FlowEngine, FlowsThatJoinEquallyFullLinksFindTheirBottleneck) {
    FlowEngine engine(std::vector<double>(8, C));
    constexpr std::uint32_t u = 0, v = 1, w = 2, x = 3, y = 4, d = 5, e = 6, f = 7;
    std::vector<Completion> done;
    const std::uint32_t u_to_d = engine.start(Links{u, d}, 3 * kBytes);
    const std::uint32_t v_to_e = engine.start(Links{v, e}, 3 * kBytes);
    for (const Links& path : {Links{v, d}, Links{w, d}, Links{u, e}, Links{w, e}})
        engine.start(path, kBytes);
    engine.advance(3 * kT + 1, done);
    EXPECT_EQ(done.size(), 4U);
    const std::uint32_t w_to_f = engine.start(Links{w, f}, 3 * kBytes);
    engine.advance(3 * kT + kT / 2, done);
    const std::uint32_t w_to_d = engine.start(Links{w, d}, kBytes);
    const std::uint32_t x_to_d = engine.start(Links{x, d}, kBytes);
    for (const Links& path : {Links{w, d}, Links{w, e}, Links{w, e}, Links{y, e}})
        engine.start(path, kBytes);
    auto finish = run_to_end(engine);
    EXPECT_NEAR(static_cast<double>(finish[x_to_d]), (3.5 + 10.0 / 3) * kT, 10.0);
    EXPECT_NEAR(static_cast<double>(finish[u_to_d]), (3.5 + 25.0 / 6) * kT, 10.0);
    EXPECT_NEAR(static_cast<double>(finish[v_to_e]), (3.5 + 25.0 / 6) * kT, 10.0);
    EXPECT_NEAR(static_cast<double>(finish[w_to_d]), 8.5 * kT, 10.0);
    EXPECT_NEAR(static_cast<double>(finish[w_to_f]), 10.0 * kT, 10.0);
}

struct RandomSystem {
    std::vector<double> capacity;
    std::vector<oracle::Flow> flows;  // ascending in start
};

RandomSystem random_system(unsigned seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
    RandomSystem s;
    const std::uint32_t num_links = 1 + below(20);
    for (std::uint32_t l = 0; l < num_links; ++l) s.capacity.push_back((1 + below(8)) * C / 4);
    const std::uint32_t num_flows = 1 + below(60);
    double start = 0.0;
    for (std::uint32_t f = 0; f < num_flows; ++f) {
        oracle::Flow flow{.links = {}, .bytes = 1.0 + below(1000) * 1e3, .start = start};
        const std::uint32_t hops = 1 + below(std::min(num_links, 6U));
        while (flow.links.size() < hops) {
            const std::uint32_t l = below(num_links);
            if (std::ranges::count(flow.links, l) == 0) flow.links.push_back(l);
        }
        s.flows.push_back(flow);
        if (below(4) == 0) start += below(1000) * 1e-6;
    }
    return s;
}

std::vector<double> finish_seconds(const RandomSystem& s, double epsilon, double* bound = nullptr,
                                   std::int64_t* fillings = nullptr) {
    FlowEngine engine(s.capacity, epsilon);
    std::vector<Completion> done;
    for (const oracle::Flow& f : s.flows) {
        engine.advance(static_cast<Picoseconds>(std::llround(f.start * 1e12)), done);
        engine.start(f.links, f.bytes);
    }
    while (engine.next_completion() != kNever) engine.advance(engine.next_completion(), done);
    std::vector<double> finish(s.flows.size(), -1.0);
    for (const Completion& c : done) finish[c.flow] = static_cast<double>(c.time) * 1e-12;
    if (bound) *bound = engine.error_bound_seconds();
    if (fillings) *fillings = engine.num_fillings();
    return finish;
}

// How often the engine filled all links from scratch, beside the times.
std::int64_t expect_naive_solution(RandomSystem s, const std::string& what) {
    std::int64_t fillings = 0;
    const std::vector<double> finish = finish_seconds(s, 0.0, nullptr, &fillings);
    oracle::run(s.capacity, s.flows);
    for (std::size_t f = 0; f < s.flows.size(); ++f) {
        // 1 ps of rounding at each of a few hundred instants
        EXPECT_NEAR(finish[f], s.flows[f].finish, 1e-9 * s.flows[f].finish + 1e-10)
            << what << " flow " << f;
    }
    return fillings;
}

TEST(FlowEngine, RandomSystemsEqualTheNaiveSolution) {
    for (unsigned seed = 0; seed < 300; ++seed)
        expect_naive_solution(random_system(seed), fmt::format("seed {}", seed));
}

// Hosts on leaves with trunks of half their bandwidth, all pairs at once, a Zipf order per source:
// levels lie close together, and hundreds of flows change their bottleneck. Some sizes are equal.
RandomSystem dense_system(unsigned seed) {
    std::mt19937 random(seed);
    const std::uint32_t leaves = 1 + seed % 3, hosts = 4 * leaves, trunk = 2 * hosts;
    RandomSystem s;
    s.capacity.assign(2 * hosts, C);
    if (leaves > 1) s.capacity.insert(s.capacity.end(), 2 * leaves, 2 * C);
    for (std::uint32_t i = 0; i < hosts; ++i) {
        std::vector<std::uint32_t> order(hosts);
        for (std::uint32_t j = 0; j < hosts; ++j) order[j] = j;
        std::ranges::shuffle(order, random);
        for (std::uint32_t j = 0; j < hosts; ++j) {
            if (i == j) continue;
            oracle::Flow flow{.links = {i, hosts + j}, .bytes = kBytes / (1 + order[j])};
            if (i / 4 != j / 4) {
                flow.links.push_back(trunk + i / 4);
                flow.links.push_back(trunk + leaves + j / 4);
            }
            s.flows.push_back(flow);
        }
    }
    return s;
}

TEST(FlowEngine, DenseSystemsEqualTheNaiveSolution) {
    for (unsigned seed = 0; seed < 12; ++seed)
        expect_naive_solution(dense_system(seed), fmt::format("seed {}", seed));
}

// Two leaves of four hosts with 16 uplinks of an eighth, drawn for each pair; equal messages in
// waves, on idle links or while others are under way: links are full at equal levels, in no order,
// flows end by the dozen, and new ones join full links.
RandomSystem hashed_system(unsigned seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
    constexpr std::uint32_t kHosts = 8, kUplinks = 16;
    RandomSystem s;
    s.capacity.assign(2 * kHosts, C);
    s.capacity.insert(s.capacity.end(), 4 * kUplinks, C / 8);
    const double gap = (seed % 2 == 0 ? 0.5 : 40.0) * kBytes / C;
    for (std::uint32_t wave = 0; wave < 3; ++wave) {
        for (std::uint32_t k = 0; k < 4 + 28 * wave; ++k) {
            const std::uint32_t i = below(kHosts), j = below(kHosts), uplink = below(kUplinks);
            oracle::Flow flow{.links = {i, kHosts + j}, .bytes = kBytes, .start = wave * gap};
            if (i / 4 != j / 4) {
                flow.links.push_back(2 * kHosts + i / 4 * kUplinks + uplink);
                flow.links.push_back(2 * kHosts + (2 + j / 4) * kUplinks + uplink);
            }
            s.flows.push_back(flow);
        }
    }
    return s;
}

TEST(FlowEngine, HashedSpinesEqualTheNaiveSolution) {
    std::int64_t fillings = 0;
    for (unsigned seed = 0; seed < 60; ++seed)
        fillings += expect_naive_solution(hashed_system(seed), fmt::format("seed {}", seed));
    EXPECT_GT(fillings, 0) << "no repair of the levels was ever given up";
}

// An engine that has been idle is as good as new: nothing of what ended is left on its links.
TEST(FlowEngine, WavesOfFlowsTakeTheSameTime) {
    const RandomSystem s = dense_system(2);
    FlowEngine engine(s.capacity);
    std::vector<Picoseconds> took;
    for (int wave = 0; wave < 3; ++wave) {
        const Picoseconds begin = engine.now();
        for (const oracle::Flow& f : s.flows) engine.start(f.links, f.bytes);
        std::vector<Completion> done;
        while (engine.next_completion() != kNever) engine.advance(engine.next_completion(), done);
        took.push_back(engine.now() - begin);
    }
    EXPECT_NEAR(static_cast<double>(took[1]), static_cast<double>(took[0]), 100.0);
    EXPECT_NEAR(static_cast<double>(took[2]), static_cast<double>(took[0]), 100.0);
}

// Renaming links and reordering flows that start together must not change when a flow ends.
TEST(FlowEngine, PermutingLinksAndFlowsChangesNothing) {
    for (unsigned seed = 0; seed < 50; ++seed) {
        RandomSystem s = random_system(seed);
        for (oracle::Flow& f : s.flows) f.start = 0.0;
        const std::vector<double> finish = finish_seconds(s, 0.0);
        RandomSystem mirrored = s;
        std::ranges::reverse(mirrored.capacity);
        std::ranges::reverse(mirrored.flows);
        for (oracle::Flow& f : mirrored.flows) {
            for (std::uint32_t& l : f.links) {
                l = static_cast<std::uint32_t>(s.capacity.size()) - 1 - l;
            }
        }
        std::vector<double> mirrored_finish = finish_seconds(mirrored, 0.0);
        std::ranges::reverse(mirrored_finish);
        for (std::size_t f = 0; f < finish.size(); ++f) {
            EXPECT_NEAR(finish[f], mirrored_finish[f], 1e-9 * finish[f] + 1e-10);
        }
    }
}

// Max-min rates saturate some link of every flow and never exceed a capacity.
TEST(FlowEngine, RatesAreFeasibleAndEveryFlowHasABottleneck) {
    for (unsigned seed = 0; seed < 100; ++seed) {
        const RandomSystem s = random_system(seed);
        FlowEngine engine(s.capacity);
        for (const oracle::Flow& f : s.flows) engine.start(f.links, f.bytes);
        std::vector<double> used(s.capacity.size(), 0.0), fastest(s.capacity.size(), 0.0);
        std::vector<double> rate;
        for (std::uint32_t f = 0; f < s.flows.size(); ++f) {
            rate.push_back(engine.rate(f));
            for (const std::uint32_t l : s.flows[f].links) {
                used[l] += rate[f];
                fastest[l] = std::max(fastest[l], rate[f]);
            }
        }
        for (std::size_t f = 0; f < s.flows.size(); ++f) {
            const bool has_bottleneck = std::ranges::any_of(s.flows[f].links, [&](auto l) {
                return used[l] > s.capacity[l] * (1 - 1e-9) && fastest[l] <= rate[f] * (1 + 1e-9);
            });
            EXPECT_TRUE(has_bottleneck) << "seed " << seed << " flow " << f;
        }
        for (std::size_t l = 0; l < used.size(); ++l) {
            EXPECT_LE(used[l], s.capacity[l] * (1 + 1e-9));
        }
    }
}

// The reported bound covers the finish of the whole in batched mode.
TEST(FlowEngine, TheErrorBoundHoldsOnRandomSystems) {
    int batched = 0;
    for (unsigned seed = 0; seed < 400; ++seed) {
        const RandomSystem s = random_system(seed);
        const std::vector<double> exact = finish_seconds(s, 0.0);
        for (const double epsilon : {1e-3, 1e-2, 1e-1}) {
            double bound = 0.0;
            const std::vector<double> rough = finish_seconds(s, epsilon, &bound);
            const double error = std::abs(std::ranges::max(rough) - std::ranges::max(exact));
            EXPECT_LE(error, bound + 1e-10) << "seed " << seed << " epsilon " << epsilon;
            batched += error > 1e-9;
        }
    }
    EXPECT_GT(batched, 50) << "the systems did not exercise batching";
}

}  // namespace
}  // namespace headway::sim
