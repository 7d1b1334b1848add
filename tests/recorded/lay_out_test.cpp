#include "models/recorded/lay_out.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "models/recorded/recorded_report.hpp"
#include "models/vocab/error.hpp"
#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"
#include "tests/recorded/recordings.hpp"

namespace headway {
namespace {

using recordings::all_reduce;
using recordings::exchange;
using recordings::kernels;
using recordings::of_two_ranks;

RecordedPrediction predicted(const Recording& recording, const Cluster& cluster,
                             const std::optional<Routing>& routing = {}) {
    const Profile profile = toy::profile();
    return predict_program(lay_out(recording, cluster, profile, routing), cluster, profile);
}

std::string refusal(const Recording& recording, const Cluster& cluster,
                    const std::optional<Routing>& routing = {}) {
    try {
        predicted(recording, cluster, routing);
    } catch (const InputError& error) {
        return error.what();
    }
    return "accepted";
}

// The collectives cost what the functions say that price a scenario's.
TEST(LayOut, CollectivesAreThoseOfScenarios) {
    const Cluster cluster = toy::cluster(1, 2);
    const Profile profile = toy::profile();
    PriceBook book(profile, cluster, Dtype::bf16);
    const LaidOut laid = lay_out(
        of_two_ranks({kernels(1, 1, 1), all_reduce(1, 8e6), exchange(1, {5e6, 3e6}, {5e6, 2e6})}),
        cluster, profile, {});
    std::vector<Seconds> times;
    for (std::size_t t = 0; t < laid.timed.size(); ++t)
        if (laid.timed[t].stream != Stream::compute) times.push_back(laid.timed[t].time);
    ASSERT_EQ(times.size(), 2u);
    EXPECT_EQ(times[0], book.reduce({.group_size = 2, .bytes = 8e6 * byte}, 1.0).time);
    // Rank 0 sends 3 MB and rank 1 sends 2: the busiest sends or receives 3, the mean 2.5.
    PathBytes busiest{}, mean{};
    busiest[static_cast<std::size_t>(PathClass::nvlink)] = 3e6 * byte;
    mean[static_cast<std::size_t>(PathClass::nvlink)] = 2.5e6 * byte;
    EXPECT_EQ(times[1], book.exchange({.group_size = 2,
                                       .mean = mean,
                                       .busiest = busiest,
                                       .on_curve = busiest,
                                       .links = busiest},
                                      1.0)
                            .time);
}

// The same step by the formula's streams and by the simulator's, to its batching.
TEST(LayOut, SimulatorAgreesWhereNothingIsShared) {
    const Cluster cluster = toy::cluster(1, 2);
    RecordedTask waits = kernels(4, 2, 30);
    waits.host_waits = true;
    RecordedTask beside = all_reduce(2, 8e6);
    beside.stream = 99;
    beside.after = {0};
    RecordedTask last = kernels(5, 5, 40);
    last.after = {2};
    Recording recording =
        of_two_ranks({waits, exchange(3, {4e6, 4e6}, {4e6, 4e6}), beside, kernels(3, 3, 20), last});
    recording.wait_latency = 4.0 * us;
    recording.host_tail = 7.0 * us;
    const Profile profile = toy::profile();
    const LaidOut laid = lay_out(recording, cluster, profile, {});
    const auto simulated = sim::simulate(laid.program, sim::Topology(cluster));
    const StreamsRun run = run_streams(laid.timed, laid.program.overlap);
    EXPECT_NEAR(simulated.step / run.end, 1.0, 1e-6);
}

// 3 us of 10 stay, the rest grows with the rows: rank 1 gets 4 + 2 MB where rank 0 got 4 + 1.
TEST(LayOut, BlocksGrowWithTheRowsOfEachRank) {
    RecordedTask expert = kernels(1, 1, 10);
    expert.rows_of = 0;
    expert.fixed = 3.0 * us;
    RecordedTask back = exchange(1, {4e6, 1e6}, {4e6, 2e6});
    back.returns = 0;
    const LaidOut laid = lay_out(of_two_ranks({exchange(1, {4e6, 2e6}, {4e6, 1e6}), expert, back}),
                                 toy::cluster(1, 2), toy::profile(), {});
    // Rank 1: 2 MB from rank 0, and of its own what rank 0 sends it: 2 MB.
    EXPECT_NEAR(laid.compute_of_rank[0].in(us), 10.0, 1e-9);
    EXPECT_NEAR(laid.compute_of_rank[1].in(us), 3.0 + 7.0 * 4.0 / 5.0, 1e-9);
}

// All choices on the experts of rank 0: it gets twice the mean's rows.
TEST(LayOut, DrawnRoutingsReplaceTheRecordedOne) {
    RecordedTask expert = kernels(1, 1, 1000);
    expert.rows_of = 0;
    RecordedTask out = exchange(1, {2048.0 * 1001, 2048.0 * 999}, {2048.0 * 1001, 2048.0 * 999}),
                 back = out;
    back.returns = 0;
    Recording recording = of_two_ranks({out, expert, back});
    Routing routing{.skew = Skew::histogram, .weights = {{1, 1, 0, 0}}};
    EXPECT_NE(refusal(recording, toy::cluster(1, 2), routing).find("a program without a router"),
              std::string::npos);
    recording.router = RecordedRouter{.experts = 4, .top_k = 2};
    const RecordedPrediction p = predicted(recording, toy::cluster(1, 2), routing);
    EXPECT_EQ(p.slowest_rank, 0);
    EXPECT_NEAR(p.imbalance, 2.0, 1e-9);
    recording.router->top_k = 3;
    EXPECT_NE(refusal(recording, toy::cluster(1, 2), routing).find("tokens times top_k"),
              std::string::npos);
    EXPECT_NE(refusal(of_two_ranks({kernels(1, 1, 1)}), toy::cluster(1, 2), routing)
                  .find("no exchange of a router"),
              std::string::npos);
}

// Data parallelism takes any number of ranks; experts and shards do not.
TEST(LayOut, OnlyDataParallelAxesGrow) {
    Recording recording = of_two_ranks({kernels(10, 10, 10), all_reduce(1, 8e6)});
    EXPECT_NE(refusal(recording, toy::cluster(1, 4)).find("'0' spans all ranks"),
              std::string::npos);
    recording.groups[0].grows = true;
    const Seconds two = predicted(recording, toy::cluster(1, 2)).step,
                  four = predicted(recording, toy::cluster(1, 4)).step;
    EXPECT_GT(four, two);  // 2 (n - 1) / n of the bytes
    recording.tasks.push_back(exchange(1, {1, 1}, {1, 1}));
    EXPECT_NE(
        refusal(recording, toy::cluster(1, 4)).find("an all-to-all runs over a group that grows"),
        std::string::npos);
    Recording mesh = of_two_ranks({exchange(1, {1e6, 1e6}, {1e6, 1e6}), all_reduce(1, 8e6)});
    mesh.world_size = 4;
    mesh.groups.push_back({.name = "dp", .size = 2, .stride = 2, .grows = true});
    mesh.tasks[1].group = 1;
    EXPECT_EQ(refusal(mesh, toy::cluster(1, 8)), "accepted");
    EXPECT_NE(refusal(mesh, toy::cluster(1, 5)).find("takes blocks of 2"), std::string::npos);
}

TEST(LayOut, SlowRanksAndOtherDevicesAreSeen) {
    Cluster cluster = toy::cluster(1, 2);
    cluster.rank_overrides.push_back({.rank = 1, .compute_factor = 0.5});
    Recording recording = of_two_ranks({kernels(10, 10, 1000), all_reduce(1, 8e6)});
    recording.device = "NVIDIA H100";
    cluster.device.name = "NVIDIA H200";
    const RecordedPrediction p = predicted(recording, cluster);
    EXPECT_EQ(p.slowest_rank, 1);
    EXPECT_GT(p.step.in(us), 2000.0);
    EXPECT_NE(to_table(p).find("kernels were timed on NVIDIA H100, the cluster has NVIDIA H200"),
              std::string::npos);
}

}  // namespace
}  // namespace headway
