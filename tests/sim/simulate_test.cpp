#include "sim/simulate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "models/vocab/error.hpp"
#include "tests/sim/table_cases.hpp"

namespace headway::sim {
namespace {

constexpr Bandwidth W = 100.0 * GB / second;  // NVLink
constexpr Bandwidth B = 10.0 * GB / second;   // NIC
constexpr Seconds L = 5.0 * us;

Cluster nodes(int num_nodes, int gpus) {
    Cluster c{.name = "test", .num_nodes = num_nodes, .gpus_per_node = gpus};
    c.nvlink = NvLink{.domain = gpus, .bandwidth = W};
    if (num_nodes > 1) c.fabric = Fabric{.nics_per_node = gpus, .nic = B};
    return c;
}

Task compute(std::vector<Seconds> per_rank, std::vector<int> after = {}) {
    return {.phase = Phase::expert,
            .layer = 0,
            .stream = Stream::compute,
            .after = std::move(after),
            .work = ComputeTask{.per_rank = std::move(per_rank)}};
}

Task exchange(int group_size, ExchangeStage stage, std::vector<int> after = {},
              ExchangeAlgorithm algorithm = ExchangeAlgorithm::grouped) {
    return {.phase = Phase::dispatch,
            .layer = 0,
            .stream = Stream::communication,
            .after = std::move(after),
            .work = ExchangeTask{
                .group_size = group_size, .algorithm = algorithm, .stages = {std::move(stage)}}};
}

ExchangeStage uniform(std::int64_t bytes, Seconds latency = L) {
    return {.uniform_bytes = bytes, .latency = latency};
}

ExchangeStage from_matrix(TrafficMatrix m, Seconds latency = L) {
    ExchangeStage stage{.latency = latency};
    stage.matrices.push_back(std::make_shared<const TrafficMatrix>(std::move(m)));
    return stage;
}

SimulationResult run(const Cluster& cluster, std::vector<Task> tasks, double slowdown = 1.0,
                     SimulateOptions options = {}) {
    const Program program{
        .num_ranks = cluster.num_ranks(), .overlap = slowdown, .tasks = std::move(tasks)};
    return simulate(program, Topology(cluster), options);
}

constexpr double kPicosecond = 1e-6;  // in us

// One message on an empty path: latency + bytes / bandwidth.
TEST(Simulate, OneMessage) {
    TrafficMatrix m(2);
    m.at(0, 1) = 1000000;
    const SimulationResult r = run(nodes(1, 2), {exchange(2, from_matrix(m))});
    EXPECT_NEAR(r.step.in(us), (L + 1.0 * MB / W).in(us), kPicosecond);
    EXPECT_EQ(r.messages, 1);
    ASSERT_EQ(r.links.size(), 2U);
    EXPECT_EQ(r.links[0].name, "nvlink_up:0");
    EXPECT_EQ(r.links[0].bytes.in(byte), 1e6);
    EXPECT_NEAR(r.links[0].busy.in(us), (1.0 * MB / W).in(us), kPicosecond);
}

// n ranks, S bytes a pair, efficiency e: latency + (n - 1) S / (e W) on every rank.
TEST(Simulate, UncontendedUniformExchangeTakesThePredictedTime) {
    const int n = 8;
    const double e = 0.8;
    ExchangeStage stage = uniform(1000000);
    stage.efficiency[static_cast<std::size_t>(PathClass::nvlink)] = e;
    const SimulationResult r = run(nodes(1, n), {exchange(n, stage)});
    const Seconds expected = L + (n - 1) * 1.0 * MB / (e * W);
    for (const Seconds t : r.rank_finish) EXPECT_NEAR(t.in(us), expected.in(us), kPicosecond);
}

// A message waits for its receiver: rank 1 computes for c before it enters.
TEST(Simulate, AMessageStartsWhenBothEndsAreReady) {
    TrafficMatrix m(3);
    m.at(0, 1) = m.at(0, 2) = 1000000;
    const Seconds c = 100.0 * us;
    const SimulationResult r =
        run(nodes(1, 3), {compute({Seconds{}, c, Seconds{}}), exchange(3, from_matrix(m), {0})});
    EXPECT_NEAR(r.rank_finish[2].in(us), (L + 1.0 * MB / W).in(us), kPicosecond);
    EXPECT_NEAR(r.rank_finish[1].in(us), (c + L + 1.0 * MB / W).in(us), kPicosecond);
    EXPECT_NEAR(r.rank_finish[0].in(us), (c + L + 1.0 * MB / W).in(us), kPicosecond);
}

// Without bytes an exchange is a rendezvous: all leave at the slowest entry + latency.
TEST(Simulate, AnExchangeWithoutBytesIsARendezvous) {
    const SimulationResult r =
        run(nodes(1, 2), {compute({10.0 * us, 30.0 * us}), exchange(2, uniform(0), {0})});
    for (const Seconds t : r.rank_finish) EXPECT_NEAR(t.in(us), 35.0, kPicosecond);
}

// Compute of c beside an exchange of x: it runs at 1/s while that lasts: x + c - x / s.
TEST(Simulate, ComputeIsSlowerWhileTheRankCommunicates) {
    const double s = 1.25;
    const Seconds x = L + 1.0 * MB / W, c = 100.0 * us;
    const SimulationResult r = run(nodes(1, 2), {exchange(2, uniform(1000000)), compute({c})}, s);
    EXPECT_NEAR(r.step.in(us), (x + c - x / s).in(us), 2 * kPicosecond);
}

TEST(Simulate, ARankOverrideSlowsItsCompute) {
    Cluster cluster = nodes(1, 2);
    cluster.rank_overrides = {{.rank = 1, .compute_factor = 0.5}};
    const SimulationResult r = run(cluster, {compute({10.0 * us})});
    EXPECT_NEAR(r.rank_finish[0].in(us), 10.0, kPicosecond);
    EXPECT_NEAR(r.rank_finish[1].in(us), 20.0, kPicosecond);
}

// Tasks of one stream run in order; another stream only waits for what it names.
TEST(Simulate, StreamsAndDependencies) {
    std::vector<Task> tasks = {compute({10.0 * us}), compute({10.0 * us}),
                               exchange(2, uniform(0), {0}), compute({1.0 * us}, {2})};
    const SimulationResult r = run(nodes(1, 2), std::move(tasks));
    std::map<double, int> ends;
    for (const Span& s : r.timeline.spans) ++ends[std::round((s.begin + s.duration).in(us))];
    EXPECT_EQ(ends, (std::map<double, int>{{10, 2}, {15, 2}, {20, 2}, {21, 2}}));
}

// pairwise: n - 1 rounds of one message each way, each with its latency.
TEST(Simulate, PairwiseRounds) {
    const int n = 4;
    const SimulationResult r =
        run(nodes(1, n), {exchange(n, uniform(1000000), {}, ExchangeAlgorithm::pairwise)});
    EXPECT_NEAR(r.step.in(us), ((n - 1) * (L + 1.0 * MB / W)).in(us), 4 * kPicosecond);
}

// hierarchical, m nodes of g GPUs, S a pair: (g - 1) m S on NVLink, then (m - 1) g S on the NIC.
TEST(Simulate, HierarchicalStages) {
    const int m = 3, g = 2;
    const double S = 1e6;
    const SimulationResult r =
        run(nodes(m, g), {exchange(m * g, uniform(1000000), {}, ExchangeAlgorithm::hierarchical)});
    const Seconds expected = 2.0 * L + (g - 1) * m * S * byte / W + (m - 1) * g * S * byte / B;
    EXPECT_NEAR(r.step.in(us), expected.in(us), 4 * kPicosecond);
}

// Two stages (node-dedup): the second starts when the first is over on both ends.
TEST(Simulate, StagesFollowEachOther) {
    TrafficMatrix over_nic(4), inside(4);
    over_nic.at(0, 2) = 1000000;
    inside.at(2, 3) = 1000000;
    Task task = exchange(4, from_matrix(over_nic));
    std::get<ExchangeTask>(task.work).stages.push_back(from_matrix(inside));
    const SimulationResult r = run(nodes(2, 2), {task});
    EXPECT_NEAR(r.rank_finish[3].in(us), (2.0 * L + 1.0 * MB / B + 1.0 * MB / W).in(us),
                4 * kPicosecond);
    EXPECT_NEAR(r.rank_finish[1].in(us), (2.0 * L).in(us), kPicosecond);
}

// The same forwarded chunk by chunk: both latencies, then the longer of the two stages.
TEST(Simulate, StagesInChunksRunBesideEachOther) {
    TrafficMatrix over_nic(4), inside(4);
    over_nic.at(0, 2) = 1000000;
    inside.at(2, 3) = 1000000;
    Task task = exchange(4, from_matrix(over_nic));
    auto& work = std::get<ExchangeTask>(task.work);
    work.stages.push_back(from_matrix(inside));
    work.in_chunks = true;
    const SimulationResult r = run(nodes(2, 2), {task});
    EXPECT_NEAR(r.rank_finish[2].in(us), (2.0 * L + 1.0 * MB / B).in(us), 2 * kPicosecond);
    EXPECT_NEAR(r.rank_finish[3].in(us), (2.0 * L + 1.0 * MB / W).in(us), 2 * kPicosecond);
}

ReduceTask all_reduce(int group_size, int stride, std::int64_t bytes) {
    return {.group_size = group_size, .stride = stride, .bytes = bytes, .latency = L};
}

Task reduce(ReduceTask task, std::vector<int> after = {}) {
    return {.phase = Phase::grad_all_reduce,
            .pass = Pass::update,
            .stream = Stream::gradient,
            .after = std::move(after),
            .work = task};
}

// Ring all-reduce of S over n ranks of one node: latency + 2 S (n - 1) / (n W).
TEST(Simulate, RingAllReduce) {
    const int n = 4;
    const SimulationResult r = run(nodes(1, n), {reduce(all_reduce(n, 1, 1000000))});
    EXPECT_NEAR(r.step.in(us), (L + 2.0 * (n - 1) / n * 1.0 * MB / W).in(us), kPicosecond);
}

// Over m nodes of g GPUs, g lanes of S / g have a NIC each.
TEST(Simulate, RingsUseEveryNic) {
    const int m = 4, g = 4, n = m * g;
    ReduceTask task = all_reduce(n, 1, 16000000);
    task.efficiency[static_cast<std::size_t>(PathClass::nic)] = 0.9;
    const SimulationResult r = run(nodes(m, g), {reduce(task)});
    const Bytes hop = 2.0 * (n - 1) / n * 16.0 * MB;
    EXPECT_NEAR(r.step.in(us), (L + hop / (0.9 * g * B)).in(us), 2 * kPicosecond);
    for (const LinkUse& l : r.links) {
        if (l.name.starts_with("nic_up")) {
            EXPECT_NEAR(l.bytes.in(byte), hop.in(byte) / g, 1.0);
        }
    }
}

// Replicas that are `stride` apart: {0, 2}, {1, 3}; each ring has its own NICs.
TEST(Simulate, ReductionsOverAStride) {
    const SimulationResult r = run(nodes(2, 2), {reduce(all_reduce(2, 2, 1000000))});
    EXPECT_NEAR(r.step.in(us), (L + 1.0 * MB / B).in(us), kPicosecond);
}

// Double binary tree: nobody sends or receives more than 3/2 S + 1/2 S; ends with the busiest port.
TEST(Simulate, TreeAllReduceBytes) {
    ReduceTask task = all_reduce(8, 1, 1000000);
    task.algorithm = ReduceAlgorithm::tree;
    const SimulationResult r = run(nodes(1, 8), {reduce(task)});
    double total = 0.0, most = 0.0;
    for (const LinkUse& l : r.links) {
        if (!l.name.starts_with("nvlink_up")) continue;
        total += l.bytes.in(byte);
        most = std::max(most, l.bytes.in(byte));
    }
    EXPECT_NEAR(total, 2 * (8 - 1) * 1e6, 1.0) << "two trees of S/2, up and down, n - 1 edges";
    EXPECT_LE(most, 2e6);
    EXPECT_NEAR(r.step.in(us), (L + most * byte / W).in(us), 1.0);
}

// An all-reduce beside an exchange shares the links: both need all of W for their bytes, together
// the sum of the two.
TEST(Simulate, ReductionsAndExchangesShareLinks) {
    const SimulationResult r =
        run(nodes(1, 2), {exchange(2, uniform(1000000)), reduce(all_reduce(2, 1, 3000000))});
    EXPECT_NEAR(r.step.in(us), (L + 4.0 * MB / W).in(us), 2 * kPicosecond);
}

// Two exchanges of different groups that share a trunk, starting apart: the sets of links merge
// while both are under way. Trunk of C = 2 B: group 0 alone at B (2 flows of B each) until group 1
// joins at t1; then 4 flows of B/2.
TEST(Simulate, SetsOfLinksMergeWhenALateOperationMeetsThem) {
    Cluster c{.name = "trunk", .num_nodes = 8, .gpus_per_node = 1};
    c.fabric = Fabric{.nics_per_node = 1, .nic = B, .nodes_per_leaf = 4, .oversubscription = 2.0};
    TrafficMatrix m(8);
    for (int i = 0; i < 4; ++i) m.at(i, i + 4) = 1000000;
    const Seconds t1 = 50.0 * us;
    const SimulationResult r =
        run(c, {compute({Seconds{}, Seconds{}, t1, t1, Seconds{}, Seconds{}, t1, t1}),
                exchange(8, from_matrix(m, Seconds{}), {0})});
    // until t1 each early flow has B t1; after it B/2 until done; the late ones then have B
    const Seconds early = t1 + (1.0 * MB - B * t1) / (0.5 * B);
    const Seconds late = early + (1.0 * MB - 0.5 * B * (early - t1)) / B;
    EXPECT_NEAR(r.rank_finish[0].in(us), early.in(us), 1e-5);
    EXPECT_NEAR(r.rank_finish[2].in(us), late.in(us), 1e-5);
}

// Two leaves of two nodes, two uplinks of B each: rank 0 sends to 2 and 1 to 3, b bytes each, over
// the trunk. Sprayed ideally the uplinks are one pipe of 2 B: L + b / B. With ECMP each message
// keeps to the uplink of its hash: L + b / B on two uplinks, L + 2 b / B where they collide.
TEST(Simulate, EcmpCollidesWhereIdealSprayingDoesNot) {
    Cluster c{.name = "leafspine", .num_nodes = 4, .gpus_per_node = 1};
    c.fabric = Fabric{.nics_per_node = 1, .nic = B, .nodes_per_leaf = 2, .uplinks_per_leaf = 2};
    TrafficMatrix m(4);
    m.at(0, 2) = m.at(1, 3) = 1000000;
    const Task task = exchange(4, from_matrix(m));
    const Program program{.num_ranks = 4, .tasks = {task}};
    const SimulationResult ideal = simulate(program, Topology(c));
    EXPECT_NEAR(ideal.step.in(us), (L + 1.0 * MB / B).in(us), 2 * kPicosecond);
    c.fabric->spraying = Spraying::ecmp;
    int collisions = 0;
    const int seeds = 16;
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
        const Topology topology(c, seed);
        const Path a = topology.path(0, 2), b = topology.path(1, 3);
        const bool collide = a.links[1] == b.links[1];
        collisions += collide;
        const SimulationResult r = simulate(program, topology);
        EXPECT_NEAR(r.step.in(us), (L + (collide ? 2.0 : 1.0) * MB / B).in(us), 2 * kPicosecond)
            << seed;
    }
    EXPECT_GT(collisions, 0);
    EXPECT_LT(collisions, seeds);
}

// NIC 3 is dead, so rank 3 cannot be reached from the other node: a result, neither error nor hang.
TEST(Simulate, ADeadPathIsAResultThatNamesPairAndLink) {
    Cluster c = nodes(2, 2);
    c.link_overrides = {{.link = "nic:3", .bandwidth_factor = 0.0}};
    const SimulationResult r = run(c, {exchange(4, uniform(1000))});
    ASSERT_TRUE(r.unreachable.has_value());
    EXPECT_EQ(r.unreachable->source, 0);
    EXPECT_EQ(r.unreachable->destination, 1 + 2) << "the first pair of the exchange that fails";
    EXPECT_EQ(r.unreachable->link, "nic_down:3");
    EXPECT_EQ(r.step, Seconds{});
    // traffic that does not need the link runs
    const SimulationResult inside = run(c, {exchange(2, uniform(1000))});
    EXPECT_FALSE(inside.unreachable);
    EXPECT_GT(inside.step, Seconds{});
}

// A link at a fraction f of its bandwidth: messages through it take 1/f as long, others as before.
TEST(Simulate, ADegradedLinkSlowsWhatCrossesIt) {
    const double f = 0.25;
    Cluster c = nodes(1, 3);
    c.link_overrides = {{.link = "nvlink_down:2", .bandwidth_factor = f}};
    TrafficMatrix m(3);
    m.at(0, 2) = m.at(1, 0) = 1000000;
    const SimulationResult r = run(c, {exchange(3, from_matrix(m))});
    EXPECT_NEAR(r.rank_finish[2].in(us), (L + 1.0 * MB / (f * W)).in(us), kPicosecond);
    EXPECT_NEAR(r.rank_finish[1].in(us), (L + 1.0 * MB / W).in(us), kPicosecond);
}

TEST(Simulate, ACycleOfDependenciesIsReported) {
    EXPECT_THROW(run(nodes(1, 2), {compute({1.0 * us}, {1}), compute({1.0 * us})}),
                 std::logic_error);
}

// A skewed step: several layers of expert compute between uneven exchanges, with reductions beside.
std::vector<Task> skewed_step(int ranks, int group) {
    std::vector<Task> tasks;
    for (int layer = 0; layer < 4; ++layer) {
        const int before = static_cast<int>(tasks.size()) - 1;
        TrafficMatrix m = cases::zipf(group);
        for (std::int64_t& b : m.bytes) b /= 1 + layer;
        std::vector<Seconds> times;
        for (int r = 0; r < ranks; ++r) times.push_back((10.0 + (r * 7 + layer * 3) % 11) * us);
        tasks.push_back(exchange(group, from_matrix(m),
                                 before < 0 ? std::vector<int>{} : std::vector<int>{before}));
        tasks.push_back(compute(times, {static_cast<int>(tasks.size()) - 1}));
        tasks.push_back(reduce(all_reduce(ranks, 1, 500000), {static_cast<int>(tasks.size()) - 1}));
        tasks.push_back(
            exchange(group, from_matrix(m.transposed()), {static_cast<int>(tasks.size()) - 2}));
    }
    return tasks;
}

TEST(Simulate, TwoRunsAreBitwiseEqual) {
    const SimulationResult a = run(nodes(4, 4), skewed_step(16, 8));
    const SimulationResult b = run(nodes(4, 4), skewed_step(16, 8));
    ASSERT_EQ(a.timeline.spans.size(), b.timeline.spans.size());
    for (std::size_t i = 0; i < a.timeline.spans.size(); ++i) {
        EXPECT_EQ(a.timeline.spans[i].begin, b.timeline.spans[i].begin);
        EXPECT_EQ(a.timeline.spans[i].duration, b.timeline.spans[i].duration);
        EXPECT_EQ(a.timeline.spans[i].rank, b.timeline.spans[i].rank);
    }
    EXPECT_EQ(a.instants, b.instants);
}

TEST(Simulate, BatchingStaysWithinItsBound) {
    const SimulationResult exact = run(nodes(4, 4), skewed_step(16, 8));
    for (const double epsilon : {1e-3, 1e-2, 5e-2}) {
        const SimulationResult r = run(nodes(4, 4), skewed_step(16, 8), 1.0, {.epsilon = epsilon});
        EXPECT_LE(std::abs((r.step - exact.step).in(us)), r.error_bound.in(us)) << epsilon;
        EXPECT_LT(r.instants, exact.instants);
    }
}

// The exchange of one matrix is the same through `simulate` and through `all_to_all`.
TEST(Simulate, OneExchangeEqualsAllToAll) {
    const int n = 32;
    const Cluster c = cases::cluster("leafspine", n);
    const TrafficMatrix m = cases::rand(n);
    const SimulationResult r = run(c, {exchange(n, from_matrix(m, Seconds{}))});
    const AllToAllResult one = all_to_all(Topology(c), m);
    EXPECT_NEAR(r.step.in(us), one.completion.in(us), 1e-5);
    for (std::size_t i = 0; i < r.rank_finish.size(); ++i) {
        EXPECT_NEAR(r.rank_finish[i].in(us), one.rank_finish[i].in(us), 1e-5);
    }
}

TEST(Simulate, TracesSayWhoWasWaitedFor) {
    TrafficMatrix m(3);
    m.at(0, 2) = 1000;
    m.at(1, 2) = 1000000;
    const SimulationResult r =
        run(nodes(1, 3), {exchange(3, from_matrix(m))}, 1.0, {.trace = true});
    const auto of_rank_2 =
        std::ranges::find_if(r.arrows, [](const Arrow& a) { return a.to == 2 && a.from == 1; });
    ASSERT_NE(of_rank_2, r.arrows.end());
    EXPECT_NEAR(of_rank_2->begin.in(us), L.in(us), kPicosecond);
    EXPECT_EQ(of_rank_2->end, r.rank_finish[2]);
    double bytes = 0.0;
    for (const LinkActivity& a : r.activity) {
        if (r.links[static_cast<std::size_t>(a.link)].name == "nvlink_down:2") {
            bytes += a.bytes.in(byte);
        }
    }
    EXPECT_EQ(bytes, 1001000.0);
}

// What a sink is given while the step runs is what the result keeps without one.
TEST(Simulate, ASinkIsGivenTheWholeTrace) {
    TrafficMatrix m(3);
    m.at(0, 2) = 1000;
    m.at(1, 2) = 1000000;
    std::vector<Task> tasks(2000,
                            exchange(3, from_matrix(m)));  // more spans than are given at once
    const SimulationResult kept = run(nodes(1, 3), tasks, 1.0, {.trace = true});
    std::size_t spans = 0, arrows = 0, intervals = 0;
    double time = 0.0, bytes = 0.0;
    const TraceSink sink{.span =
                             [&](const Span& s) {
                                 ++spans;
                                 time += s.duration.in(us);
                             },
                         .arrow = [&](const Arrow&) { ++arrows; },
                         .activity =
                             [&](const std::string& link, const LinkInterval& i) {
                                 ++intervals;
                                 if (link == "nvlink_down:2") bytes += i.bytes;
                             }};
    const SimulationResult streamed =
        run(nodes(1, 3), tasks, 1.0, {.timeline = false, .sink = &sink});
    double expected = 0.0;
    for (const Span& s : kept.timeline.spans) expected += s.duration.in(us);
    EXPECT_EQ(streamed.step, kept.step);
    EXPECT_EQ(spans, kept.timeline.spans.size());
    EXPECT_NEAR(time, expected, 1e-6);
    EXPECT_EQ(arrows, kept.arrows.size());
    EXPECT_EQ(intervals, kept.activity.size());
    EXPECT_EQ(bytes, 2000 * 1001000.0);
    EXPECT_TRUE(streamed.timeline.spans.empty());
    EXPECT_TRUE(streamed.arrows.empty());
}

}  // namespace
}  // namespace headway::sim
