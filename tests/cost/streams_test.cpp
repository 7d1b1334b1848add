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

TEST(Streams, ATaskThatNothingEndsForIsAnError) {
    EXPECT_THROW(run_streams(std::vector<TimedTask>{{kC, ms, 1}, {kC, ms, -1}}, 1.0),
                 std::logic_error);
}

}  // namespace
}  // namespace headway
