// All-to-alls over links that ranks share: what the closed forms state of the busiest link, against
// sums over all pairs and the exact engine.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "models/cost/predict.hpp"
#include "models/cost/price.hpp"
#include "models/cost/program_tasks.hpp"
#include "models/workload/link_load.hpp"
#include "models/workload/random.hpp"
#include "sim/all_to_all.hpp"
#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

constexpr auto at(PathClass c) {
    return static_cast<std::size_t>(c);
}

struct Machine {
    int nodes, gpus, nics, nodes_per_leaf;
    double oversubscription;
    bool rails;
    int domain, per_switch;  // GPUs
    bool pairwise = false;
    int leaves_per_pod = 0;  // a third tier, 3:1
    int planes = 1;
    std::string text() const {
        return std::to_string(nodes) + " x " + std::to_string(gpus) + " GPUs, " +
               std::to_string(nics) + " NICs, leaf of " + std::to_string(nodes_per_leaf) + " at " +
               std::to_string(oversubscription) + (rails ? ", rails" : "") + ", NVLink of " +
               std::to_string(domain) + (pairwise ? " in pairs" : "") + ", PCIe switch of " +
               std::to_string(per_switch) + ", pod of " + std::to_string(leaves_per_pod) + ", " +
               std::to_string(planes) + " planes";
    }
};

Cluster cluster_of(const Machine& m) {
    Cluster c = toy::cluster(m.nodes, m.gpus);
    c.nvlink.reset();
    if (m.domain > 0) c.nvlink = NvLink{m.domain, 3.0 * toy::kLink * byte / second, {}, m.pairwise};
    c.pcie = Pcie{.bandwidth = 0.5 * toy::kLink * byte / second,
                  .gpus_per_switch = m.per_switch,
                  .root_bandwidth = 0.4 * toy::kLink * byte / second};
    c.fabric->nics_per_node = m.nics;
    c.fabric->nodes_per_leaf = m.nodes_per_leaf;
    c.fabric->oversubscription = m.oversubscription;
    c.fabric->rails = m.rails;
    c.fabric->planes = m.planes;
    if (m.leaves_per_pod > 0)
        c.fabric->core = CoreTier{.leaves_per_pod = m.leaves_per_pod, .oversubscription = 3.0};
    return c;
}

const std::vector<Machine>& machines() {
    static const std::vector<Machine> all = {
        {4, 4, 4, 0, 1.0, false, 4, 0},
        {4, 4, 4, 2, 1.0, false, 4, 0},
        {4, 4, 4, 2, 4.0, true, 4, 0},
        {3, 8, 2, 0, 1.0, false, 8, 0},
        {3, 8, 3, 0, 1.0, false, 8, 0},
        {3, 8, 5, 2, 2.0, false, 8, 0},
        {3, 8, 6, 1, 1.0, true, 8, 0},
        {4, 4, 8, 2, 1.0, false, 4, 0},
        {4, 4, 1, 3, 2.0, false, 2, 0},
        {2, 8, 2, 0, 1.0, false, 0, 4},
        {1, 8, 1, 0, 1.0, false, 2, 4},
        {6, 2, 2, 2, 1.0, true, 4, 0},
        {1, 8, 8, 0, 1.0, false, 8, 0, true},
        {3, 4, 4, 0, 1.0, false, 4, 0, true},
        {2, 4, 4, 1, 2.0, true, 4, 0, true},
        {8, 2, 2, 1, 1.0, false, 2, 0, false, 2},
        {8, 2, 1, 2, 2.0, false, 2, 0, false, 2},
        {12, 2, 2, 1, 2.0, true, 2, 0, false, 2},
        {5, 2, 2, 1, 1.0, false, 2, 0, false, 2},
        {4, 4, 4, 2, 2.0, false, 4, 0, false, 0, 2},
        {8, 2, 2, 1, 2.0, false, 2, 0, false, 2, 4},
    };
    return all;
}

// The time that the busiest link needs, by LinkLoad.
double bound_seconds(const Cluster& cluster, const PathCounts& links) {
    const auto link = [&](PathClass c) { return link_bandwidth(cluster, c).in(byte / second); };
    const double core = links[at(PathClass::core)], spine = links[at(PathClass::spine)] + core;
    double bound = (links[at(PathClass::nic)] + spine) / link(PathClass::nic);
    for (const Tier& tier : tiers_of(cluster)) {
        bound = std::max(bound, tier.narrowing * (tier.path == PathClass::core ? core : spine) /
                                    link(PathClass::nic));
    }
    for (const PathClass c : {PathClass::nvlink, PathClass::pcie}) {
        if (links[at(c)] > 0.0) bound = std::max(bound, links[at(c)] / link(c));
    }
    return bound;
}

void expect_equal(const PathCounts& a, const PathCounts& b, const std::string& what) {
    for (std::size_t c = 0; c < a.size(); ++c)
        EXPECT_NEAR(a[c], b[c], 1e-9 * (1.0 + b[c])) << what << ": " << kPathClassNames[c];
}

// Groups of consecutive ranks, and of ranks a stride apart, that send columns[j] to member j.
TEST(LinkLoad, ColumnsAreTheSumOfTheirPairs) {
    Random random({1});
    for (const Machine& m : machines()) {
        const Cluster cluster = cluster_of(m);
        const int ranks = cluster.num_ranks();
        for (const int size : {2, 3, ranks / 2, ranks}) {
            const int stride = ranks / size > 1 ? 2 : 1;
            if (size * stride > ranks) continue;
            std::vector<double> columns;
            for (int j = 0; j < size; ++j)
                columns.push_back(1.0 + std::floor(random.uniform() * 9));
            LinkLoad closed(cluster, ranks), summed(cluster, ranks);
            for (const int first : {0, ranks - size * stride}) {
                closed.add_columns(first, stride, columns);
                for (int i = 0; i < size; ++i) {
                    for (int j = 0; j < size; ++j)
                        summed.add(first + i * stride, first + j * stride,
                                   columns[static_cast<std::size_t>(j)]);
                }
            }
            const std::string what = m.text() + ", group " + std::to_string(size);
            expect_equal(closed.mean(), summed.mean(), what);
            expect_equal(closed.busiest_rank(), summed.busiest_rank(), what);
            expect_equal(closed.busiest_link(), summed.busiest_link(), what);
        }
    }
}

// A lower bound is one: no matrix is done sooner by the exact engine than its busiest link, and but
// for the NVLink ports that rails relay over it is the engine's own bound.
TEST(LinkLoad, IsTheBoundOfTheExactEngine) {
    Random random({2});
    for (const Machine& m : machines()) {
        const Cluster cluster = cluster_of(m);
        const int ranks = cluster.num_ranks();
        for (int round = 0; round < 4; ++round) {
            TrafficMatrix matrix(ranks);
            LinkLoad load(cluster, ranks);
            for (int i = 0; i < ranks; ++i) {
                for (int j = 0; j < ranks; ++j) {
                    const double skew = j % 5 == round ? 20.0 : 1.0;
                    matrix.at(i, j) = std::llround(1e6 * skew * random.uniform());
                    load.add(i, j, static_cast<double>(matrix.at(i, j)));
                }
            }
            const sim::AllToAllResult exact = sim::all_to_all(sim::Topology(cluster), matrix);
            const double bound = bound_seconds(cluster, load.busiest_link());
            EXPECT_LE(bound, exact.completion.in(second) * (1.0 + 1e-9)) << m.text();
            if (m.rails) continue;
            EXPECT_NEAR(bound / exact.lower_bound.in(second), 1.0, 1e-9) << m.text();
        }
    }
}

// HP's equal exchange, H heads over N ranks, over all ranks or over groups that lie unevenly on the
// nodes: priced and simulated alike, and never faster than the links.
void expect_simulated_as_priced(const Profile& of_links) {
    for (const Machine& m : machines()) {
        Scenario s = toy::scenario(m.nodes, m.gpus);
        s.cluster = cluster_of(m);
        Profile profile = of_links;
        for (TimeCurve c : std::vector<TimeCurve>(profile.communication)) {
            if (c.path != PathClass::nic) continue;
            c.path = PathClass::pcie;
            profile.communication.push_back(c);
        }
        const int ranks = s.cluster.num_ranks();
        for (const int group : {ranks, ranks / 2, ranks / 3}) {
            if (group < 2 || ranks % group != 0 || s.model.hidden % group != 0) continue;
            s.plans = {toy::hp(group, s.model, group)};
            const Workload workload = build_workload(s, s.plans[0]);
            TaskPricer pricer(s, s.plans[0], profile, workload);
            for (const PhaseWork& phase : workload.layers[0].forward) {
                if (phase.phase != Phase::head_scatter) continue;
                const auto& work = std::get<ExchangeWork>(phase.work);
                Program program{.num_ranks = ranks, .tasks = {}};
                program.tasks.push_back({.phase = phase.phase,
                                         .stream = Stream::communication,
                                         .after = {},
                                         .work = pricer.exchange_task(phase, {}, 1.0)});
                const Seconds
                    simulated = sim::simulate(program, sim::Topology(s.cluster)).step,
                    priced = PriceBook(profile, s.cluster, Dtype::bf16).exchange(work, 1.0).time;
                PathCounts links{};
                for (std::size_t c = 0; c < links.size(); ++c) links[c] = work.links[c].in(byte);
                EXPECT_GE(priced.in(second), bound_seconds(s.cluster, links)) << m.text();
                EXPECT_NEAR(simulated / priced, 1.0, 0.03)
                    << m.text() << ", groups of " << group << " ranks";
            }
        }
    }
}

TEST(Exchange, EqualSplitsAreSimulatedAsPriced) {
    expect_simulated_as_priced(toy::profile());
}

// A NIC's floor above NVLink's comes once, however far the uplinks are oversubscribed.
TEST(Exchange, AFloorIsNotOversubscribed) {
    Profile profile = toy::profile();
    for (TimeCurve& curve : profile.communication)
        if (curve.path != PathClass::nvlink)
            for (double& time : curve.seconds) time += 30e-6;
    expect_simulated_as_priced(profile);
}

// Groups of one node exchange in it, however many nodes there are: the exchange of 102,400 ranks is
// that of eight.
TEST(Exchange, AHundredThousandRanksArePredicted) {
    Seconds one_node;
    for (const int nodes : {1, 12800}) {
        Scenario s = toy::scenario(nodes, 8);
        s.plans = {toy::hp(8, s.model, 8)};
        s.baseline = "hp";
        const Profile profile = toy::profile();
        const Prediction prediction = predict(s, profile);
        ASSERT_EQ(prediction.plans.size(), 1U);
        const Workload workload = build_workload(s, s.plans[0]);
        for (const PhaseWork& phase : workload.layers[0].forward) {
            if (phase.phase != Phase::head_scatter) continue;
            const Seconds time = PriceBook(profile, s.cluster, Dtype::bf16)
                                     .exchange(std::get<ExchangeWork>(phase.work), 1.0)
                                     .time;
            EXPECT_GT(prediction.plans[0].step, time);
            if (nodes == 1) one_node = time;
            EXPECT_EQ(time, one_node);
        }
    }
}

}  // namespace
}  // namespace headway
