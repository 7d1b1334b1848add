#include "models/recorded/head_parallel.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "models/cost/moe_layer.hpp"
#include "models/recorded/lay_out.hpp"
#include "models/recorded/recorded_report.hpp"
#include "models/vocab/error.hpp"
#include "tests/cost/toy.hpp"
#include "tests/recorded/recordings.hpp"

namespace headway {
namespace {

using recordings::exchange;
using recordings::of_two_ranks;

constexpr int kTokens = 1000, kTopK = 4, kHidden = 1024, kHeads = 8;

RecordedTask kernels(const std::string& what, double device_us) {
    RecordedTask task = recordings::kernels(0.1, 0.1, device_us);
    task.what = what;
    return task;
}

RecordedTask rows() {
    const double half = 0.5 * kTokens * kTopK * 2.0 * kHidden;
    return exchange(0.2, {half, half}, {half, half});
}

RecordedTask back(int of) {
    RecordedTask task = rows();
    task.returns = of;
    return task;
}

RecordedTask of_rows(RecordedTask task, int exchange_number) {
    task.rows_of = exchange_number;
    return task;
}

// Attention, a layer with its counts and the host's wait for them, the loss, the layer's backward,
// the update: 180 us of the script's own.
Recording job() {
    RecordedTask wait = recordings::kernels(0.0, 0.0, 0.0);
    wait.kernels = 0;
    wait.host_waits = true;
    wait.what = "host waits";
    Recording recording = of_two_ranks(
        {kernels("attention", 100), kernels("moe", 20), exchange(0.2, {8, 8}, {8, 8}), wait, rows(),
         of_rows(kernels("moe", 500), 4), back(4), kernels("moe", 10), kernels("loss", 50),
         kernels("moe backward", 31), rows(), of_rows(kernels("moe backward", 900), 10),
         // The sum of a weight's gradient has no operator of the forward pass.
         of_rows(kernels("add", 5), 10), back(10), kernels("update", 30)});
    recording.router = RecordedRouter{.experts = 64,
                                      .top_k = kTopK,
                                      .expert_width = 512,
                                      .activation = Activation::gelu,
                                      .annotation = "moe"};
    return recording;
}

std::string refusal(const Recording& recording, int heads = kHeads) {
    try {
        under_head_parallel(recording, heads, toy::cluster(1, 2), toy::profile());
    } catch (const InputError& error) {
        return error.what();
    }
    return "accepted";
}

// The step is the script's own 180 us, the phases of an HP layer of the same widths, in which four
// exchanges send T d elements of bf16 to two ranks evenly, and a reduction of 2 d^2 gradients in
// bf16 of half as many bytes sent, twice.
TEST(UnderHeadParallel, TheLayersAreHeadParallelsAndTheRestTheScripts) {
    const Cluster cluster = toy::cluster(1, 2);
    const Profile profile = toy::profile();
    Scenario s = toy::scenario(1, 2);
    s.batch.sequence_length = kTokens;
    s.model.num_layers = 1;
    Seconds layer;
    for (const Span& span :
         predict_moe_layers(s, toy::hp(kHeads, s.model, 2), profile, 1).timeline.spans)
        layer += span.duration;
    const Recording twin = under_head_parallel(job(), kHeads, cluster, profile);
    const RecordedPrediction p =
        predict_program(lay_out(twin, cluster, profile, {}), cluster, profile);
    const Seconds projections = 1e-6 * second + 2.0 * kHidden * kHidden * 2.0 / toy::kLink * second;
    EXPECT_NEAR(p.step / (180.0 * us + layer + projections), 1.0, 1e-6);
    Seconds exchanges;
    for (const RecordedPrediction::Part& part : p.parts)
        if (part.what.starts_with("all_to_all")) exchanges += part.time;
    const double half = 0.5 * kTokens * kHidden * 2.0;
    EXPECT_NEAR(exchanges / (4.0 * (1e-6 + half / toy::kLink) * second), 1.0, 1e-9);
    for (const RecordedTask& task : twin.tasks) {
        EXPECT_FALSE(task.host_waits) << task.what;
        EXPECT_FALSE(task.what.starts_with("moe")) << task.what;
        EXPECT_NE(task.what, "add");
    }
    EXPECT_NE(twin.inferred.back().find("1.47 ms of kernels"), std::string::npos)
        << twin.inferred.back();
}

// What waited for a task that is out waits for the one in its place.
TEST(UnderHeadParallel, WaitsAreForWhatStandsInTheirPlace) {
    Recording recording = job();
    RecordedTask reduction = recordings::all_reduce(0.1, 1e6);
    reduction.stream = 1 << 20;
    reduction.after = {14};  // the update's
    recording.tasks.push_back(reduction);
    RecordedTask beside = recordings::all_reduce(0.1, 1e6);
    beside.stream = 1 << 20;
    beside.after = {13};  // the last exchange
    recording.tasks.push_back(beside);
    const Recording twin =
        under_head_parallel(recording, kHeads, toy::cluster(1, 2), toy::profile());
    const int count = static_cast<int>(twin.tasks.size());
    EXPECT_EQ(twin.tasks[static_cast<std::size_t>(count - 2)].after, std::vector{count - 3});
    EXPECT_EQ(twin.tasks[static_cast<std::size_t>(count - 3)].what, "update");
    EXPECT_EQ(twin.tasks[static_cast<std::size_t>(count - 1)].after, std::vector{count - 4});
    EXPECT_EQ(twin.tasks[static_cast<std::size_t>(count - 4)].what, "HP projections");
}

TEST(UnderHeadParallel, WhatItCannotKnowIsAskedFor) {
    EXPECT_EQ(refusal(job()), "accepted");
    EXPECT_NE(refusal(job(), 3).find("3 heads of rows of 1024 on 2 ranks"), std::string::npos);
    Recording recording = job();
    recording.router->expert_width.reset();
    EXPECT_NE(refusal(recording).find("a router without expert_width"), std::string::npos);
    recording = job();
    recording.router->annotation = "mlp";
    EXPECT_NE(refusal(recording).find("tasks 4 to 6, an exchange and its return: no annotation"),
              std::string::npos)
        << refusal(recording);
    recording = job();
    recording.tasks[5].what = "moe backward";  // as of a layer that runs again
    EXPECT_NE(refusal(recording).find("0 exchanges with 'moe' between"), std::string::npos)
        << refusal(recording);
    recording = job();
    for (RecordedTask& task : recording.tasks) task.returns.reset();
    EXPECT_NE(refusal(recording).find("no exchange whose rows"), std::string::npos);
    recording = job();
    recording.tasks[4].send = {1024.0 * 2, 1024.0};
    EXPECT_NE(refusal(recording).find("rows in an exchange"), std::string::npos)
        << refusal(recording);
}

}  // namespace
}  // namespace headway
