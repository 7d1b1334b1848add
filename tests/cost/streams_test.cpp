// Tasks of known times on the streams of one rank.
#include "models/cost/streams.hpp"

#include <gtest/gtest.h>

namespace headway {
namespace {

constexpr Stream kC = Stream::compute, kX = Stream::communication, kG = Stream::gradient;

Seconds sum(const std::vector<Seconds>& times) {
    Seconds total;
    for (const Seconds t : times) total += t;
    return total;
}

// A task that runs alone shows for exactly its time, whatever ran before.
TEST(Streams, TasksOneAfterAnotherAddUpExactly) {
    const std::vector<TimedTask> tasks = {{kC, 0.1 * second, -1},
                                          {kX, 0.7 * second, 0},
                                          {kC, 0.2 * second, 1},
                                          {kG, 0.3 * second, 2}};
    const StreamsRun run = run_streams(tasks, 2.0);
    for (std::size_t i = 0; i < tasks.size(); ++i) EXPECT_EQ(run.exposed[i], tasks[i].time);
}

// Compute a beside an exchange x, slowed by s while x lasts. a s > x: the step ends after
// x + (a - x / s) = a + x (1 - 1/s), and x is hidden.
TEST(Streams, ComputeIsSlowedWhileTheExchangeLastsAndNoLonger) {
    const double a = 10.0, x = 3.0, s = 1.5;
    const StreamsRun run = run_streams(std::vector<TimedTask>{{kC, a * ms}, {kX, x * ms}}, s);
    EXPECT_NEAR(run.end.in(ms), a + x * (1.0 - 1.0 / s), 1e-12);
    EXPECT_NEAR(run.exposed[0].in(ms), run.end.in(ms), 1e-12);
    EXPECT_EQ(run.exposed[1], Seconds{});
}

// x > a s: what lasts beyond the compute shows.
TEST(Streams, AnExchangeShowsBeyondTheComputeBesideIt) {
    const double a = 2.0, x = 9.0, s = 1.5;
    const StreamsRun run = run_streams(std::vector<TimedTask>{{kC, a * ms}, {kX, x * ms}}, s);
    EXPECT_NEAR(run.end.in(ms), x, 1e-12);
    EXPECT_NEAR(run.exposed[0].in(ms), a * s, 1e-12);
    EXPECT_NEAR(run.exposed[1].in(ms), x - a * s, 1e-12);
}

// A reduction g < a s alone beside compute a: it shows as g (1 - 1/s), by which compute ends later.
TEST(Streams, AReductionShowsAsWhatItSlowsComputeDownBy) {
    const double a = 10.0, g = 4.0, s = 1.25;
    const StreamsRun run = run_streams(std::vector<TimedTask>{{kC, a * ms}, {kG, g * ms}}, s);
    EXPECT_NEAR(run.exposed[0].in(ms), a, 1e-12);
    EXPECT_NEAR(run.exposed[1].in(ms), g * (1.0 - 1.0 / s), 1e-12);
    EXPECT_NEAR(sum(run.exposed).in(ms), run.end.in(ms), 1e-12);
}

// An exchange x and a reduction g, which keeps the NVLinks busy, over the same links for a share u
// of x: for u > 1/2 they have half of the links each, so x ends at 2 u x, when u x of g is done,
// and g at g + u x; for u <= 1/2 x keeps its pace, and g has the rest: it ends at g + u x again.
// Over other links neither knows of the other.
TEST(Streams, AnExchangeAndAReductionShareTheirLinks) {
    const double x = 3.0, g = 8.0;
    for (const PathClass path : {PathClass::nvlink, PathClass::core, PathClass::self}) {
        for (const double u : {1.0, 0.7, 0.5, 0.2}) {
            LinkUse exchange, reduction;
            exchange.add(path, u);
            reduction.add(PathClass::nvlink, 1.0);
            const StreamsRun run = run_streams({{{.stream = kX, .time = x * ms, .links = exchange},
                                                 {.stream = kG, .time = g * ms, .links = reduction},
                                                 {.stream = kC, .time = ms, .after = 0}}},
                                               1.0);
            const bool shared = path == PathClass::nvlink;
            EXPECT_NEAR(run.exposed[0].in(ms), shared && u > 0.5 ? 2.0 * u * x : x, 1e-12);
            EXPECT_NEAR(run.end.in(ms), shared ? g + u * x : g, 1e-12);
        }
    }
}

// Paths of two classes that leave the island share the NICs: the one that takes longer counts.
TEST(Streams, ACollectiveUsesTheLinksOfAllItsPaths) {
    LinkUse use;
    use.add(PathClass::nic, 0.4);
    use.add(PathClass::spine, 0.9);
    use.add(PathClass::nvlink, 0.6);
    EXPECT_EQ(use.share, (std::array{0.6, 0.0, 0.9}));
    LinkUse nics;
    nics.add(PathClass::nic, 0.3);
    EXPECT_NEAR(slowdown_beside(use, nics), 0.9 / 0.7, 1e-12);
    EXPECT_NEAR(slowdown_beside(nics, use), 1.0, 1e-12);
}

// Compute a of p kernels beside a reduction g, standing still (loss 1) for (s - 1) a / p at most
// each: with g <= (s - 1) a / p all of g shows, and is the reduction's.
TEST(Streams, AReductionThatStopsAKernelShowsAsAWhole) {
    const double a = 10.0, g = 1.5, s = 1.4;
    const std::vector<TimedTask> tasks = {{.time = a * ms, .pieces = 2}, {kG, g * ms}};
    const StreamsRun run = run_streams(tasks, Overlap(s, 1.0));
    EXPECT_NEAR(run.end.in(ms), a + g, 1e-12);
    EXPECT_NEAR(run.exposed[0].in(ms), a, 1e-12);
    EXPECT_NEAR(run.exposed[1].in(ms), g, 1e-12);
}

// The host needs h for each of three products of g < h: the first ends when it is enqueued, at h,
// and so on; the device waits h - g each time.
TEST(Streams, AHostThatIsSlowerThanTheDeviceDecides) {
    const double g = 2.0, h = 5.0;
    const std::vector<TimedTask> tasks(3, {.time = g * ms, .launch = h * ms});
    const StreamsRun run = run_streams(tasks, 1.0);
    EXPECT_NEAR(run.end.in(ms), 3.0 * h, 1e-12);
    EXPECT_NEAR(sum(run.exposed).in(ms), 3.0 * h, 1e-12);
    EXPECT_NEAR(sum(run.host).in(ms), 3.0 * (h - g), 1e-12);
    EXPECT_NEAR(run.lead.in(ms), 0.0, 1e-12);
}

// g > h: the device is never idle, and the host ends its three launches at 3 h.
TEST(Streams, AHostThatIsFasterIsNotSeenAndLeads) {
    const double g = 5.0, h = 2.0;
    const std::vector<TimedTask> tasks(3, {.time = g * ms, .launch = h * ms});
    const StreamsRun run = run_streams(tasks, 1.0);
    EXPECT_NEAR(run.end.in(ms), 3.0 * g, 1e-12);
    EXPECT_EQ(sum(run.host), Seconds{});
    EXPECT_NEAR(run.lead.in(ms), 3.0 * (g - h), 1e-12);
}

// A wait at the end of the first product takes the host's lead: the exchange behind it starts at
// g + h, when it is enqueued, and not at g.
TEST(Streams, AWaitTakesTheLeadOfTheHost) {
    const double g = 9.0, h = 2.0, x = 3.0;
    const std::vector<TimedTask> tasks = {
        {.time = g * ms, .launch = h * ms, .host_waits = true},
        {.stream = kX, .time = x * ms, .after = 0, .launch = h * ms}};
    const StreamsRun run = run_streams(tasks, 1.0, 100.0 * ms);
    EXPECT_NEAR(run.end.in(ms), g + h + x, 1e-12);
    EXPECT_NEAR(run.host[1].in(ms), h, 1e-12);
    EXPECT_NEAR(run.exposed[1].in(ms), h + x, 1e-12);
    EXPECT_NEAR(run.lead.in(ms), x, 1e-12);
}

// A lead l hides l of a host that needs h - g more than the device each time: of n runs the first
// l / (h - g) wait for nothing.
TEST(Streams, ALeadIsUsedUpOverRunsInARow) {
    const double g = 2.0, h = 3.0, lead = 4.0;
    const std::vector<TimedTask> tasks(1, {.time = g * ms, .launch = h * ms});
    const int n = 10;
    const StreamsRun run = run_in_row(tasks, 1.0, lead * ms, n);
    // The host begins at -l: the last launch ends at n h - l, and so does the last product.
    EXPECT_NEAR(n * run.end.in(ms), n * h - lead, 1e-9);
    EXPECT_NEAR(n * sum(run.host).in(ms), n * (h - g) - lead, 1e-9);
}

// A host that gains g - h in each of n runs is never waited for; what is asked of it changes
// nothing.
TEST(Streams, RunsInARowOfAFastHostAreTheDevices) {
    const std::vector<TimedTask> tasks(1, {.time = 3.0 * ms, .launch = 1.0 * ms});
    EXPECT_NEAR(run_in_row(tasks, 1.0, {}, 1000).end.in(ms), 3.0, 1e-9);
}

TEST(Streams, ATaskThatNothingEndsForIsAnError) {
    EXPECT_THROW(run_streams(std::vector<TimedTask>{{kC, ms, 1}, {kC, ms, -1}}, 1.0),
                 std::logic_error);
}

}  // namespace
}  // namespace headway
