#include "sim/crossbar_engine.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "sim/all_to_all.hpp"
#include "sim/operation.hpp"
#include "sim/row_kernels.hpp"
#include "tests/sim/naive_oracle.hpp"
#include "tests/sim/table_cases.hpp"

namespace headway::sim {
namespace {

constexpr double kPort = 50e9;   // bytes per second of every port
constexpr double kExact = 1e-9;  // a window of less than the picosecond that all ties have

// Ports u0 .. u(n-1), d0 .. d(n-1) of capacity kPort.
struct Switch {
    int n;
    CrossbarEngine engine;

    Switch(int ports, double epsilon) : n(ports), engine(capacities(), sides(), epsilon) {}
    std::vector<double> capacities() const {
        return std::vector<double>(2 * static_cast<std::size_t>(n), kPort);
    }
    std::vector<bool> sides() const {
        std::vector<bool> up(2 * static_cast<std::size_t>(n), false);
        std::fill(up.begin(), up.begin() + n, true);
        return up;
    }
    std::uint32_t start(int up, int down, double bytes) {
        const std::uint32_t links[] = {static_cast<std::uint32_t>(up),
                                       static_cast<std::uint32_t>(n + down)};
        return engine.start(links, bytes);
    }
    std::vector<double> run(std::size_t flows) {  // seconds
        std::vector<Completion> done;
        while (engine.next_completion() != kNever) engine.advance(engine.next_completion(), done);
        std::vector<double> times(flows, -1.0);
        for (const Completion& c : done) times[c.flow] = static_cast<double>(c.time) * 1e-12;
        return times;
    }
};

// One flow of b bytes: b / kPort.
TEST(CrossbarEngine, OneFlowHasItsPortsToItself) {
    Switch s(2, kExact);
    s.start(0, 1, 1e6);
    EXPECT_NEAR(s.run(1)[0], 1e6 / kPort, 1e-12);
}

// Flows a: u0 -> d0, b: u0 -> d1, c: u1 -> d1 of b, b, 2b bytes. All have kPort/2 until 2b/kPort,
// when a and b end; c then has b left and C: 3b/kPort.
TEST(CrossbarEngine, RatesRiseWhenFlowsEnd) {
    Switch s(2, kExact);
    const double b = 1e6;
    s.start(0, 0, b);
    s.start(0, 1, b);
    s.start(1, 1, 2 * b);
    const std::vector<double> t = s.run(3);
    EXPECT_NEAR(t[0], 2 * b / kPort, 1e-12);
    EXPECT_NEAR(t[1], 2 * b / kPort, 1e-12);
    EXPECT_NEAR(t[2], 3 * b / kPort, 1e-12);
}

// A flow that joins at t1: until then kPort, after it kPort/2 each.
TEST(CrossbarEngine, AFlowThatJoinsLater) {
    Switch s(1, kExact);
    const double b = 1e6, t1 = 0.25 * b / kPort;
    s.start(0, 0, b);
    (void)s.engine.next_completion();
    s.engine.skip_to(std::llround(t1 * 1e12));
    s.start(0, 0, b);
    const std::vector<double> t = s.run(2);
    EXPECT_NEAR(t[0], t1 + (b - kPort * t1) / (kPort / 2), 2e-12);
    EXPECT_NEAR(t[1], 2 * b / kPort, 2e-12);
}

// The same flows through the general engine, which is checked against the published table.
TEST(CrossbarEngine, EqualsTheGeneralEngine) {
    for (const char* sizes : {"bal", "zipf", "rand"}) {
        const int n = 24;
        const TrafficMatrix m = cases::matrix(sizes, n);
        Switch s(n, kExact);
        FlowEngine general(s.capacities());
        std::size_t flows = 0;
        for (int i = 0; i < n; ++i) {
            for (int j = 0; j < n; ++j) {
                if (i == j) continue;
                const auto bytes = static_cast<double>(m.at(i, j));
                s.start(i, j, bytes);
                const std::uint32_t links[] = {static_cast<std::uint32_t>(i),
                                               static_cast<std::uint32_t>(n + j)};
                general.start(links, bytes);
                ++flows;
            }
        }
        const std::vector<double> ours = s.run(flows);
        std::vector<Completion> done;
        while (general.next_completion() != kNever)
            general.advance(general.next_completion(), done);
        ASSERT_EQ(done.size(), flows);
        for (const Completion& c : done) {
            const double expected = static_cast<double>(c.time) * 1e-12;
            EXPECT_NEAR(ours[c.flow], expected, 1e-6 * expected) << sizes << " flow " << c.flow;
        }
    }
}

// A crossbar: flows[u][d] flows from up port u of capacity up[u] to down port d of down[d].
struct Crossbar {
    std::vector<double> up, down;
    std::vector<std::vector<int>> flows;
};

// Few capacities and counts, so that ports often fill up at once; one port in eight without flows.
Crossbar random_crossbar(unsigned seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    Crossbar c;
    c.up.resize(1 + below(40));
    c.down.resize(1 + below(40));
    const std::size_t values = 1 + below(6);
    for (auto* side : {&c.up, &c.down}) {
        for (double& capacity : *side)
            capacity = static_cast<double>(1 + below(values)) * kPort / 4;
    }
    const bool sparse = below(2) == 0;
    for (std::size_t u = 0; u < c.up.size(); ++u) {
        auto& row = c.flows.emplace_back(c.down.size(), 0);
        if (below(8) == 0) continue;
        for (int& n : row) n = sparse && below(4) != 0 ? 0 : static_cast<int>(below(5));
    }
    return c;
}

// Water filling by the definition, a flow at a time: all unfrozen flows have the rate r, which
// grows until some port p is full, r = min_p (C_p - sum of its frozen rates) / its unfrozen flows;
// the unfrozen flows of that port freeze at r.
std::vector<std::vector<double>> water_filling(const Crossbar& c) {
    struct Flow {
        std::size_t up, down;
        double rate;
    };
    std::vector<Flow> flows;
    for (std::size_t u = 0; u < c.up.size(); ++u) {
        for (std::size_t d = 0; d < c.down.size(); ++d)
            flows.insert(flows.end(), static_cast<std::size_t>(c.flows[u][d]), {u, d, -1.0});
    }
    const std::size_t ports = c.up.size() + c.down.size();
    const auto crosses = [&](const Flow& f, std::size_t p) {
        return p < c.up.size() ? f.up == p : f.down + c.up.size() == p;
    };
    while (std::ranges::any_of(flows, [](const Flow& f) { return f.rate < 0.0; })) {
        double least = std::numeric_limits<double>::infinity();
        std::size_t full = 0;
        for (std::size_t p = 0; p < ports; ++p) {
            double left = p < c.up.size() ? c.up[p] : c.down[p - c.up.size()], open = 0.0;
            for (const Flow& f : flows) {
                if (!crosses(f, p)) continue;
                (f.rate < 0.0 ? open : left) += f.rate < 0.0 ? 1.0 : -f.rate;
            }
            if (open == 0.0 || left / open >= least) continue;
            least = left / open;
            full = p;
        }
        for (Flow& f : flows) {
            if (f.rate < 0.0 && crosses(f, full)) f.rate = least;
        }
    }
    std::vector<std::vector<double>> rates(c.up.size(), std::vector(c.down.size(), 0.0));
    for (const Flow& f : flows) rates[f.up][f.down] = f.rate;
    return rates;
}

// One side as fill_crossbar() wants it: padded with ports without flows.
struct FillSide {
    std::vector<double> residual, unfrozen, candidate, level;

    explicit FillSide(const std::vector<double>& capacity) : residual(capacity) {
        while (residual.size() % kRowWidth != 0) residual.push_back(1.0);
        unfrozen.assign(residual.size(), 0.0);
        candidate.assign(residual.size(), kNoCandidate);
        level.assign(residual.size(), -1.0);
    }
    PortSide side() {
        return {.size = static_cast<int>(residual.size()),
                .residual = residual.data(),
                .unfrozen = unfrozen.data(),
                .candidate = candidate.data(),
                .level = level.data()};
    }
};

std::vector<std::vector<double>> fast_filling(const Crossbar& c) {
    FillSide up(c.up), down(c.down);
    const std::size_t ups = up.residual.size(), downs = down.residual.size();
    std::vector<std::int32_t> by_up(ups * downs, 0), by_down(ups * downs, 0);
    for (std::size_t u = 0; u < c.up.size(); ++u) {
        for (std::size_t d = 0; d < c.down.size(); ++d) {
            by_up[u * downs + d] = by_down[d * ups + u] = c.flows[u][d];
            up.unfrozen[u] += c.flows[u][d];
            down.unfrozen[d] += c.flows[u][d];
        }
    }
    const double highest = fill_crossbar(up.side(), down.side(), by_up.data(), by_down.data());
    const auto level = [&](double own) { return own < 0.0 ? highest : own; };
    std::vector<std::vector<double>> rates(c.up.size(), std::vector(c.down.size(), 0.0));
    for (std::size_t u = 0; u < c.up.size(); ++u) {
        for (std::size_t d = 0; d < c.down.size(); ++d) {
            if (c.flows[u][d] > 0) rates[u][d] = std::min(level(up.level[u]), level(down.level[d]));
        }
    }
    return rates;
}

// rate(u, d) = min(v(u), v(d)) of the fast filling = that of water filling, on every pair.
TEST(CrossbarFilling, EqualsWaterFillingOnRandomCrossbars) {
    int with_flows = 0;
    for (unsigned seed = 0; seed < 400; ++seed) {
        const Crossbar c = random_crossbar(seed);
        const auto expected = water_filling(c), rates = fast_filling(c);
        for (std::size_t u = 0; u < c.up.size(); ++u) {
            for (std::size_t d = 0; d < c.down.size(); ++d) {
                ASSERT_NEAR(rates[u][d], expected[u][d], 1e-9 * expected[u][d])
                    << "seed " << seed << ", ports " << u << ", " << d;
                with_flows += c.flows[u][d] > 0 ? 1 : 0;
            }
        }
    }
    EXPECT_GT(with_flows, 10000);
}

// Flows over time on random crossbars, starting when they like, end when the naive solution says.
TEST(CrossbarEngine, RandomSystemsEqualTheNaiveSolution) {
    for (unsigned seed = 0; seed < 100; ++seed) {
        const Crossbar c = random_crossbar(seed);
        std::mt19937 random(1000 + seed);
        std::vector<double> capacity = c.up;
        capacity.insert(capacity.end(), c.down.begin(), c.down.end());
        std::vector<bool> is_up(capacity.size(), false);
        std::fill_n(is_up.begin(), c.up.size(), true);
        CrossbarEngine engine(capacity, is_up, kExact);
        std::vector<oracle::Flow> flows;
        std::vector<Completion> done;
        double start = 0.0;
        for (int f = 0; f < 40; ++f) {
            const auto up = static_cast<std::uint32_t>(random() % c.up.size());
            const auto down = static_cast<std::uint32_t>(c.up.size() + random() % c.down.size());
            const double bytes = 1e6 * static_cast<double>(1 + random() % 20);
            flows.push_back({.links = {up, down}, .bytes = bytes, .start = start});
            engine.advance(std::llround(start * 1e12), done);
            engine.start(flows.back().links, bytes);
            if (random() % 4 == 0) start += 1e-6 * static_cast<double>(1 + random() % 50);
        }
        while (engine.next_completion() != kNever) engine.advance(engine.next_completion(), done);
        oracle::run(capacity, flows);
        ASSERT_EQ(done.size(), flows.size());
        for (const Completion& d : done) {
            const double expected = flows[d.flow].finish;
            EXPECT_NEAR(static_cast<double>(d.time) * 1e-12, expected, 1e-7 * expected)
                << "seed " << seed << ", flow " << d.flow;
        }
    }
}

// Batching moves the end of the whole by no more than the bytes it misplaced on a port, and half a
// window; it needs fewer moments.
TEST(CrossbarEngine, BatchingStaysWithinWhatItMisplaces) {
    const int n = 32;
    const TrafficMatrix m = cases::zipf(n);
    const AllToAllResult exact = all_to_all(Topology(cases::cluster("star", n)), m);
    for (const double epsilon : {1e-3, 1e-2}) {
        Switch s(n, epsilon);
        std::size_t flows = 0;
        for (int i = 0; i < n; ++i) {
            for (int j = 0; j < n; ++j) {
                if (i == j) continue;
                s.start(i, j, static_cast<double>(m.at(i, j)));
                ++flows;
            }
        }
        const double window = static_cast<double>(s.engine.window()) * 1e-12;
        const double end = std::ranges::max(s.run(flows));
        double misplaced = 0.0;
        for (std::uint32_t l = 0; l < 2 * n; ++l)
            misplaced = std::max(misplaced, s.engine.misplaced_seconds(l));
        EXPECT_LE(std::abs(end - exact.completion.in(second)), misplaced + window / 2);
        EXPECT_LT(s.engine.num_instants(), exact.instants);
    }
}

// ---- messages that stop competing for NVLink

Cluster rails(double nvlink_gb) {
    Cluster c{.name = "rails", .num_nodes = 4, .gpus_per_node = 4};
    c.nvlink = NvLink{.domain = 4, .bandwidth = nvlink_gb * GB / second};
    c.fabric = Fabric{.nics_per_node = 4, .nic = 10.0 * GB / second, .rails = true};
    return c;
}

Stage all_pairs(const Topology& topology) {
    ExchangeTask task{.group_size = topology.num_ranks(), .stages = {{.uniform_bytes = 1000000}}};
    Operation op;
    expand(task, 0, PathTable(topology), op);
    return op.stages[0];
}

// Four GPUs, NICs of B, NVLink of W = 90 B: the others' NICs take at most 3 B / W of a port; the
// messages inside need 3 S / W there, that is at most 3 S / (W - 3 B).
TEST(Decouple, FabricTrafficLeavesNvlinkWhenTheRestIsSoonGone) {
    const Topology topology(rails(900.0));
    EXPECT_DOUBLE_EQ(topology.relay_share(), 3 * 10.0 / 900.0);
    Stage stage = all_pairs(topology);
    const double error = decouple(stage, topology, 0.01);
    EXPECT_NEAR(error, 3e6 / (900e9 - 30e9), 1e-12);
    for (const Message& m : stage.messages) {
        const bool relayed = m.path.size == 4;
        EXPECT_EQ(m.path.skip, relayed ? 2 : 0);
        EXPECT_EQ(m.path.shared().size(), 2U);
    }
}

TEST(Decouple, NotWhenItWouldMatterNorWhenExact) {
    const Topology narrow(rails(45.0)), wide(rails(900.0));
    Stage a = all_pairs(narrow), b = all_pairs(wide);
    EXPECT_EQ(decouple(a, narrow, 0.01), 0.0) << "messages inside last too long";
    EXPECT_EQ(decouple(b, wide, 0.0), 0.0) << "exact";
    for (const Message& m : a.messages) EXPECT_EQ(m.path.skip, 0);
}

}  // namespace
}  // namespace headway::sim
