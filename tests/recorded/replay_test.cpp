#include "models/recorded/replay.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "tests/recorded/recordings.hpp"

namespace headway {
namespace {

using recordings::kernels;

Recording alone(std::vector<RecordedTask> tasks, double tail_us = 0.0) {
    Recording recording{.name = "toy"};
    recording.tasks = std::move(tasks);
    recording.host_tail = tail_us * us;
    return recording;
}

std::vector<TimedTask> timed(const Recording& recording) {
    std::vector<TimedTask> tasks;
    for (const ReplayTask& t : replay_tasks(recording))
        tasks.push_back({.stream = t.stream,
                         .time = t.is_device
                                     ? recording.tasks[static_cast<std::size_t>(t.recorded)].device
                                     : Seconds{},
                         .launch = t.launch,
                         .host_waits = t.host_waits});
    return tasks;
}

// Launches at 10, 20, 30 of kernels of 4, 30, 4: they run at 10..14, 20..50 and 50..54. As a block:
// host 30, device 38, lead = max(10, 20 - 4, 30 - 34) = 16; the end is lead + device = 54.
TEST(Replay, BlockEndsWhereItsKernelsWould) {
    const Recording recording = alone({kernels(30, 16, 38)});
    const StreamsRun run = run_streams(timed(recording), 1.0);
    EXPECT_NEAR(run.end.in(us), 54.0, 1e-9);
    EXPECT_NEAR(host_time_alone(recording).in(us), 30.0, 1e-9);
}

// The device is busy for D a step, the host for H + tail: the longer of the two is a step.
TEST(Replay, SteadyStepIsOfTheSlowerOfHostAndDevice) {
    EXPECT_NEAR(step_alone(alone({kernels(30, 16, 38)})).in(us), 38.0, 1e-6);
    EXPECT_NEAR(step_alone(alone({kernels(30, 16, 38)}, 20)).in(us), 50.0, 1e-6);
}

// Kernels until 10 + 20 = 30, the host waits for them, and 5 later is at the next launch: 6 + 4.
TEST(Replay, HostGoesOnWhenWhatItWaitsForHasEnded) {
    RecordedTask first = kernels(10, 10, 20);
    first.host_waits = true;
    Recording recording = alone({first, kernels(6, 6, 4)});
    recording.wait_latency = 5.0 * us;
    EXPECT_NEAR(run_streams(timed(recording), 1.0).end.in(us), 30.0 + 5.0 + 6.0 + 4.0, 1e-9);
    EXPECT_NEAR(host_time_alone(recording).in(us), 41.0, 1e-9);
}

// A collective on the kernels' own stream comes between them; one on another runs beside what does
// not wait for it.
TEST(Replay, CollectivesRunInLineOrBeside) {
    Recording recording = recordings::of_two_ranks(
        {kernels(1, 1, 10), recordings::all_reduce(1, 1e6), kernels(1, 1, 30), kernels(1, 1, 5)});
    const auto end = [&] {
        std::vector<TimedTask> tasks;
        for (const ReplayTask& t : replay_tasks(recording)) {
            const bool collective = t.stream != Stream::compute;
            const auto at = static_cast<std::size_t>(t.recorded);
            tasks.push_back({.stream = t.stream,
                             .time = collective    ? 20.0 * us
                                     : t.is_device ? recording.tasks[at].device
                                                   : Seconds{},
                             .after = t.after.empty() ? -1 : t.after[0],
                             .launch = t.launch});
        }
        return run_streams(tasks, 1.0).end.in(us);
    };
    EXPECT_NEAR(end(), 1 + 10 + 20 + 30 + 5, 1e-9);
    recording.tasks[1].stream = 99;
    recording.tasks[1].after = {0};
    EXPECT_NEAR(end(), 1 + 10 + 30 + 5, 1e-9);
    recording.tasks[2].device = 12.0 * us;
    recording.tasks[3].after = {1};  // the last kernels wait for it: 11 + 20
    EXPECT_NEAR(end(), 1 + 10 + 20 + 5, 1e-9);
}

}  // namespace
}  // namespace headway
