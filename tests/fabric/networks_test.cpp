// Networks solved by hand: pairwise links, three tiers, planes, latencies of single links.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "models/cost/price.hpp"
#include "models/cost/program_tasks.hpp"
#include "models/workload/phases.hpp"
#include "sim/all_to_all.hpp"
#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

constexpr double kPair = toy::kLink / 7;  // of 8 GPUs, one direction
constexpr std::int64_t kBytes = 70'000'000;

Cluster mesh(int nodes = 1) {
    Cluster c = toy::cluster(nodes, 8);
    c.nvlink->pairwise = true;
    return c;
}

TrafficMatrix uniform(int ranks) {
    TrafficMatrix m(ranks);
    for (int i = 0; i < ranks; ++i)
        for (int j = 0; j < ranks; ++j) m.at(i, j) = i == j ? 0 : kBytes;
    return m;
}

double seconds_of(const Cluster& cluster, const TrafficMatrix& matrix) {
    return sim::all_to_all(sim::Topology(cluster), matrix).completion.in(second);
}

// Bytes by the names of links.
double bytes_of(const std::vector<sim::LinkUse>& links, const std::string& name) {
    const auto found = std::ranges::find(links, name, &sim::LinkUse::name);
    return found == links.end() ? 0.0 : found->bytes.in(byte);
}

// Seven links at once take what a switch takes; one message has a seventh; two to one rank do not
// meet.
TEST(PairwiseMesh, EveryPairHasALinkOfItsOwn) {
    EXPECT_NEAR(seconds_of(mesh(), uniform(8)), kBytes / kPair, 1e-9);
    EXPECT_NEAR(seconds_of(toy::cluster(1, 8), uniform(8)), kBytes / kPair, 1e-9);
    TrafficMatrix m(8);
    m.at(0, 1) = m.at(2, 1) = kBytes;
    EXPECT_NEAR(seconds_of(mesh(), m), kBytes / kPair, 1e-9);
    EXPECT_NEAR(seconds_of(toy::cluster(1, 8), m), 2 * kBytes / toy::kLink, 1e-9);
    const auto links = sim::all_to_all(sim::Topology(mesh()), m).links;
    EXPECT_EQ(bytes_of(links, "nvlink_pair:2.1"), kBytes);
    EXPECT_EQ(links.size(), 2U);
}

// n of 8 ranks: each has n - 1 links for its (n - 1) a bytes.
TEST(PairwiseMesh, AGroupOfSomeHasSomeOfTheLinks) {
    const Profile profile = toy::profile();
    const Cluster c = mesh();
    PriceBook book(profile, c, Dtype::bf16);
    const double a = 7e6;
    for (const int n : {2, 4, 8}) {
        EXPECT_NEAR(book.exchange(equal_exchange(c, n, 1, a * byte), 1.0).time.in(second),
                    1e-6 + a / kPair, 1e-12);
    }
    EXPECT_NEAR(book.message(PathClass::nvlink, a * byte, 1.0).time.in(second), 1e-6 + a / kPair,
                1e-12);
}

// A slow pair's link is waited for by all: the mean rank's bytes on it at a quarter.
TEST(PairwiseMesh, ASlowPairIsWaitedFor) {
    Cluster c = mesh();
    c.link_overrides = {{.link = "nvlink_pair:3.5", .bandwidth_factor = 0.25}};
    const double a = 7e6;
    const Profile profile = toy::profile();
    const ExchangeWork work = equal_exchange(c, 4, 1, a * byte);
    EXPECT_NEAR(PriceBook(profile, c, Dtype::bf16).exchange(work, 1.0).time.in(second),
                1e-6 + 4 * a / kPair, 1e-9);
    TrafficMatrix m(8);
    m.at(3, 5) = m.at(5, 3) = kBytes;
    EXPECT_NEAR(seconds_of(c, m), 4 * kBytes / kPair, 1e-9);
    c.link_overrides[0].bandwidth_factor = 0.0;
    EXPECT_EQ(sim::all_to_all(sim::Topology(c), m).unreachable->link, "nvlink_pair:3.5");
}

sim::SimulationResult run(const Cluster& cluster, TaskWork work) {
    Program program{.num_ranks = cluster.num_ranks(), .tasks = {}};
    program.tasks.push_back({.phase = Phase::grad_all_reduce,
                             .pass = Pass::update,
                             .stream = Stream::gradient,
                             .after = {},
                             .work = std::move(work)});
    return sim::simulate(program, sim::Topology(cluster));
}

// Eight rings over two nodes go to and fro inside them: no directed pair carries two of them.
TEST(PairwiseMesh, RingsShareNoLink) {
    const std::int64_t bytes = 16'000'000;
    const double a_ring = 2.0 * static_cast<double>(bytes) * 15 / 16 / 8;
    const auto result = run(mesh(2), ReduceTask{.group_size = 16, .bytes = bytes});
    int pairs = 0;
    for (const sim::LinkUse& link : result.links) {
        if (!link.name.starts_with("nvlink_pair")) continue;
        ++pairs;
        EXPECT_NEAR(link.bytes.in(byte), a_ring, 1.0) << link.name;
    }
    EXPECT_EQ(pairs, 2 * 8 * 7);
}

// Pods of two leaves of a node of two GPUs, 4:1 at the core: of an equal exchange 4 x 4 messages
// leave a pod, over 2 nodes x 2 NICs / 4.
TEST(ThreeTiers, TheCoreIsWhatPodsShare) {
    Cluster c = toy::cluster(4, 2);
    c.fabric->nodes_per_leaf = 1;
    c.fabric->core = CoreTier{.leaves_per_pod = 2, .oversubscription = 4.0};
    EXPECT_NEAR(seconds_of(c, uniform(8)), 16 * kBytes / toy::kLink, 1e-9);
    const auto links = sim::all_to_all(sim::Topology(c), uniform(8)).links;
    EXPECT_EQ(bytes_of(links, "core_up:1"), 16 * kBytes);
    EXPECT_EQ(bytes_of(links, "leaf_down:3"), 2 * 6 * kBytes);
    const Profile profile = toy::profile();
    const Price price =
        PriceBook(profile, c, Dtype::bf16).exchange(equal_exchange(c, 8, 1, 1e6 * byte), 1.0);
    EXPECT_EQ(price.bottleneck, Bottleneck::core);
    EXPECT_NEAR(price.time.in(second), 1e-6 + 16e6 / toy::kLink, 1e-9);
    c.link_overrides = {{.link = "core:0", .bandwidth_factor = 0.5}};
    EXPECT_NEAR(seconds_of(c, uniform(8)), 32 * kBytes / toy::kLink, 1e-9);
}

// Three pods of a node of two GPUs, B from each to each other one.
Cluster dragonfly(double pair, PodRouting routing) {
    Cluster c = toy::cluster(3, 2);
    c.fabric->nodes_per_leaf = 1;
    c.fabric->core =
        CoreTier{.leaves_per_pod = 1, .pair_bandwidth = pair * byte / second, .routing = routing};
    return c;
}

// An equal exchange sends 2 x 2 messages over each pair's link: 4 a / B, or 4 a / NIC where the
// links are wide; in the model, on the simulator's links and by their names.
TEST(Dragonfly, EveryPairOfPodsHasItsLinks) {
    const Profile profile = toy::profile();
    const double a = 1e6;
    for (const double pair : {toy::kLink / 4, toy::kLink / 2, 4 * toy::kLink}) {
        const Cluster c = dragonfly(pair, PodRouting::minimal);
        const double narrowest = std::min(pair, toy::kLink);
        EXPECT_NEAR(seconds_of(c, uniform(6)), 4 * kBytes / narrowest, 1e-9) << pair;
        EXPECT_NEAR(PriceBook(profile, c, Dtype::bf16)
                        .exchange(equal_exchange(c, 6, 1, a * byte), 1.0)
                        .time.in(second),
                    1e-6 + 4 * a / narrowest, 1e-9)
            << pair;
        const auto links = sim::all_to_all(sim::Topology(c), uniform(6)).links;
        EXPECT_EQ(bytes_of(links, "core_pair:2.0"), 4 * kBytes);
        EXPECT_EQ(bytes_of(links, "core_up:0"), 0.0);
    }
}

// Leaves 2:1 below the pods: they decide where a pair's link is wider than half a leaf's uplinks.
TEST(Dragonfly, LeavesMayBeNarrower) {
    const Profile profile = toy::profile();
    Cluster c = dragonfly(toy::kLink * 2, PodRouting::minimal);
    c.fabric->oversubscription = 2.0;  // 8 messages leave each leaf, over 2 NICs / 2
    EXPECT_NEAR(seconds_of(c, uniform(6)), 8 * kBytes / toy::kLink, 1e-9);
    EXPECT_NEAR(PriceBook(profile, c, Dtype::bf16)
                    .exchange(equal_exchange(c, 6, 1, 1e6 * byte), 1.0)
                    .time.in(second),
                1e-6 + 8e6 / toy::kLink, 1e-9);
}

// A message of each rank of a pod to the next pod: one pair's link of its two, 2 a / B. By Valiant
// half of three: 2 a / 1.5 B. The simulator sends all six ranks' to their stage's next.
TEST(Dragonfly, OneNeighbourHasOneLinkOrHalfOfAll) {
    const Profile profile = toy::profile();
    const double pair = toy::kLink / 4, a = 1e6;
    for (const auto& [routing, links] :
         {std::pair{PodRouting::minimal, 1.0}, {PodRouting::valiant, 1.5}}) {
        const Cluster c = dragonfly(pair, routing);
        EXPECT_NEAR(PriceBook(profile, c, Dtype::bf16)
                        .message(PathClass::core, a * byte, 1.0)
                        .time.in(second),
                    1e-6 + 2 * a / (links * pair), 1e-9);
        TrafficMatrix m(6);
        for (int r = 0; r < 6; ++r) m.at(r, (r + 2) % 6) = kBytes;
        EXPECT_NEAR(seconds_of(c, m), 2 * kBytes / (links * pair), 1e-9);
    }
}

// Two rings over three pods, each with half of V: both cross the same link from pod to pod, where
// an all-reduce passes 2 (6 - 1) / 6 V. A lane of theirs has half of it.
TEST(Dragonfly, RingsShareTheLinkToTheNextPod) {
    const double pair = toy::kLink / 4;
    const std::int64_t bytes = 12'000'000;
    for (const auto& [routing, links] :
         {std::pair{PodRouting::minimal, 1.0}, {PodRouting::valiant, 1.5}}) {
        const Cluster c = dragonfly(pair, routing);
        EXPECT_NEAR(ring_lanes(c, 6, 1).of_lane.in(byte / second), links * pair / 2, 1.0);
        EXPECT_NEAR(run(c, ReduceTask{.group_size = 6, .bytes = bytes}).step.in(second),
                    2.0 * 5 / 6 * static_cast<double>(bytes) / (links * pair), 1e-5);
    }
}

// A slow pair is waited for, by name from either side.
TEST(Dragonfly, ASlowPairIsWaitedFor) {
    const Profile profile = toy::profile();
    Cluster c = dragonfly(toy::kLink / 4, PodRouting::minimal);
    c.link_overrides = {{.link = "core_pair:0.2", .bandwidth_factor = 0.5, .latency = 7.0 * us}};
    EXPECT_NEAR(seconds_of(c, uniform(6)), 32 * kBytes / toy::kLink + 7e-6, 1e-9);
    EXPECT_NEAR(PriceBook(profile, c, Dtype::bf16)
                    .exchange(equal_exchange(c, 6, 1, 1e6 * byte), 1.0)
                    .time.in(second),
                1e-6 + 32e6 / toy::kLink + 7e-6, 1e-9);
    EXPECT_TRUE(links_named(c, "core_pair:0.0").empty()) << "no pod has a link to itself";
    EXPECT_EQ(links_named(c, "core_pair:1").size(), 2U);
}

// A message is spread over both planes; a dead port leaves it the other one, a slow one is waited
// for. Hashed, it has one port in any case.
TEST(Planes, AMessageUsesAllThatAreAlive) {
    Cluster c = toy::cluster(2, 2);
    c.fabric->planes = 2;
    TrafficMatrix m(4);
    m.at(0, 2) = kBytes;
    EXPECT_NEAR(seconds_of(c, m), kBytes / toy::kLink, 1e-9);
    c.link_overrides = {{.link = "nic_up:0.1", .bandwidth_factor = 0.5}};
    EXPECT_NEAR(seconds_of(c, m), 2 * kBytes / toy::kLink, 1e-9);
    c.link_overrides[0].bandwidth_factor = 0.0;
    const auto result = sim::all_to_all(sim::Topology(c), m);
    EXPECT_NEAR(result.completion.in(second), 2 * kBytes / toy::kLink, 1e-9);
    EXPECT_EQ(bytes_of(result.links, "nic_down:2.0"), kBytes);
    c.link_overrides.push_back({.link = "nic_down:2.0", .bandwidth_factor = 0.0});
    EXPECT_TRUE(sim::all_to_all(sim::Topology(c), m).unreachable) << "planes never meet";
    c.link_overrides.clear();
    c.fabric->spraying = Spraying::ecmp;
    EXPECT_NEAR(seconds_of(c, m), 2 * kBytes / toy::kLink, 1e-9);
}

// With all ports alike, planes are as one tree of their sum, uplinks and messages of a pipeline
// too.
TEST(Planes, AlikeTheyAreOneTree) {
    for (const int planes : {1, 4}) {
        Cluster c = toy::cluster(4, 2);
        c.fabric->nodes_per_leaf = 2;
        c.fabric->oversubscription = 3.0;
        c.fabric->planes = planes;
        // 4 x 4 messages over 4 NICs / 3
        EXPECT_NEAR(seconds_of(c, uniform(8)), 12 * kBytes / toy::kLink, 1e-9);
        Program program{.num_ranks = 8, .tasks = {}, .role_ends = {1, 2}};
        program.tasks.push_back({.stream = Stream::send_forward,
                                 .after = {},
                                 .work = SendTask{.to_role = 1, .bytes = kBytes}});
        program.tasks.push_back({.after = {}, .receives = {0}, .work = ComputeTask{{Seconds{}}}});
        EXPECT_NEAR(sim::simulate(program, sim::Topology(c)).step.in(second),
                    3 * kBytes / toy::kLink, 1e-9);
    }
}

// 5 us at a NIC going out, 3 us at each leaf's uplinks: what crosses both waits for both, and a
// message that leaves the other way for what it crosses.
TEST(AddedLatency, IsSummedAlongThePath) {
    Cluster c = toy::cluster(4, 2);
    c.fabric->nodes_per_leaf = 2;
    c.link_overrides = {{.link = "nic_up:0", .latency = 5.0 * us},
                        {.link = "leaf:0", .latency = 3.0 * us}};
    const AddedLatency added(c);
    EXPECT_NEAR(added.worst(PathClass::spine, 8, 1).in(us), 8.0, 1e-9);
    EXPECT_EQ(added.worst(PathClass::nic, 8, 1), 5.0 * us);
    EXPECT_EQ(added.worst(PathClass::nvlink, 8, 1), Seconds{});
    EXPECT_EQ(added.worst(PathClass::spine, 4, 1), Seconds{}) << "groups of one leaf";
    EXPECT_NEAR(added.worst(PathClass::spine, 4, 2).in(us), 8.0, 1e-9);
    TrafficMatrix m(8);
    for (const auto& [from, to, more] : {std::tuple{0, 6, 8e-6}, {2, 6, 3e-6}, {6, 0, 3e-6}}) {
        m.bytes.assign(m.bytes.size(), 0);
        m.at(from, to) = kBytes;
        EXPECT_NEAR(seconds_of(c, m), kBytes / toy::kLink + more, 1e-11) << from;
    }
}

// Both ways of one NIC: no message crosses them both.
TEST(AddedLatency, OfBothDirectionsIsNotSummed) {
    Cluster c = toy::cluster(2, 2);
    c.link_overrides = {{.link = "nic:0", .latency = 5.0 * us}};
    EXPECT_EQ(AddedLatency(c).worst(PathClass::nic, 4, 1), 5.0 * us);
    c.link_overrides.push_back({.link = "nic:3", .latency = 2.0 * us});
    EXPECT_NEAR(AddedLatency(c).worst(PathClass::nic, 4, 1).in(us), 7.0, 1e-9);
}

// Exchange, reduction and message take as much longer in the model as in the simulator.
TEST(AddedLatency, IsPricedAsSimulated) {
    Scenario s = toy::scenario(2, 4);
    s.plans = {toy::hp(8, s.model, 8)};
    const Profile profile = toy::profile();
    const auto times = [&] {
        const Workload workload = build_workload(s, s.plans[0]);
        TaskPricer pricer(s, s.plans[0], profile, workload);
        PriceBook book(profile, s.cluster, Dtype::bf16);
        std::vector<Seconds> result;
        for (const PhaseWork& phase : workload.layers[0].forward) {
            if (phase.phase != Phase::head_scatter) continue;
            result.push_back(book.exchange(std::get<ExchangeWork>(phase.work), 1.0).time);
            result.push_back(run(s.cluster, pricer.exchange_task(phase, {}, 1.0)).step);
        }
        const ReduceWork reduction{.group_size = 8, .bytes = 1e8 * byte};
        result.push_back(book.reduce(reduction, 1.0).time);
        result.push_back(run(s.cluster, pricer.reduce_task(reduction, 1.0)).step);
        return result;
    };
    const std::vector<Seconds> before = times();
    s.cluster.link_overrides = {{.link = "nic_down:5", .latency = 40.0 * us}};
    const std::vector<Seconds> after = times();
    ASSERT_EQ(after.size(), 4U);
    for (std::size_t i = 0; i < after.size(); ++i)
        EXPECT_NEAR((after[i] - before[i]).in(us), 40.0, 1e-3) << i;
}

}  // namespace
}  // namespace headway
