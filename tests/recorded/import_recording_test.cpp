#include "models/recorded/import_recording.hpp"

#include <gtest/gtest.h>

#include <string>

#include "models/recorded/program_file.hpp"
#include "models/recorded/replay.hpp"
#include "models/vocab/error.hpp"
#include "tests/recorded/recordings.hpp"
#include "tests/trace/kineto.hpp"

namespace headway {
namespace {

using recordings::TextFile;

template <class Action>
std::string refusal(const Action& action) {
    try {
        action();
    } catch (const InputError& error) {
        return error.what();
    }
    return "accepted";
}

// What the recorder would have written of Kineto's run, of rank 0 of 2, with these calls.
CallTable table(double step_ms, double enqueue_ms, bool fake, std::vector<RecordedCall> calls) {
    CallTable t{.file = "t_comm.json", .device = "GPU X", .world_size = 2, .fake = fake};
    t.step_ms = step_ms;
    t.enqueue_ms = enqueue_ms;
    t.groups = {{"0", {0, 1}}};
    t.nccl_host_us = {{"all_reduce", 25.0}, {"all_to_all", 25.0}};
    t.calls = std::move(calls);
    return t;
}

RecordedCall call_of(const std::string& kind, double bytes, bool async = false) {
    return {.kind = kind,
            .group = "0",
            .dtype = "bfloat16",
            .in_bytes = bytes,
            .out_bytes = bytes,
            .async = async};
}

// Launches 10 us apart, kernels of 4, 30 and 4 us; then 6 us of the host.
Kineto one_step() {
    Kineto file;
    file.annotation("ProfilerStep#3", 0.0, 36.0);
    file.kernel("a", 10.0, 12.0, 4.0);
    file.kernel("b", 20.0, 22.0, 30.0);
    file.kernel("c", 30.0, 52.0, 4.0);
    return file;
}

// One block: host 30, device 4 + 30 + 4, lead max(10, 20 - 4, 30 - 34), tail 36 - 30.
TEST(ImportRecording, BlockOfKernels) {
    const Recording r = import_recording(one_step().read(), nullptr, {});
    ASSERT_EQ(r.tasks.size(), 1u);
    const RecordedTask& block = r.tasks[0];
    EXPECT_NEAR(block.host.in(us), 30.0, 1e-9);
    EXPECT_NEAR(block.device.in(us), 38.0, 1e-9);
    EXPECT_NEAR(block.lead.in(us), 16.0, 1e-9);
    EXPECT_NEAR(block.fixed.in(us), 9.0, 1e-9);  // 3 us a kernel
    EXPECT_EQ(block.kernels, 3);
    EXPECT_EQ(block.what, "b");
    EXPECT_NEAR(r.host_tail.in(us), 6.0, 1e-9);
    EXPECT_EQ(r.host_scale, 1.0);
}

TEST(ImportRecording, StepsByNumberAndByMedian) {
    Kineto file = one_step();
    for (const double begin : {100.0, 200.0}) {
        const double device = begin == 100.0 ? 40.0 : 50.0;  // of the middle kernel
        file.annotation("ProfilerStep#" + std::to_string(begin == 100.0 ? 4 : 5), begin, 36.0);
        file.kernel("a", begin + 10.0, begin + 12.0, 4.0);
        file.kernel("b", begin + 20.0, begin + 22.0, device);
        file.kernel("c", begin + 30.0, begin + 22.0 + device, 4.0);
    }
    const TorchTrace trace = file.read();
    EXPECT_NEAR(import_recording(trace, nullptr, {}).tasks[0].device.in(us), 48.0, 1e-9);
    EXPECT_NEAR(import_recording(trace, nullptr, {.step = 5, .top_k = {}}).tasks[0].device.in(us),
                58.0, 1e-9);
    EXPECT_NE(refusal([&] {
                  import_recording(trace, nullptr, {.step = 7, .top_k = {}});
              }).find("accepted: 3, 4, 5, or median"),
              std::string::npos);
}

// A copy to pageable memory returns when it is done, 40 after its launch at 40; a synchronization
// behind it waits for nothing more.
TEST(ImportRecording, HostWaits) {
    Kineto file = one_step();
    file.annotation("ProfilerStep#4", 100.0, 100.0);
    file.kernel("a", 110.0, 112.0, 60.0);
    file.span("cuda_runtime", "cudaMemcpyAsync", 1, 140.0, 40.0, R"("correlation": 7)");
    file.span("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 7, 172.0, 2.0,
              R"("stream": 7, "correlation": 7)");
    file.span("cuda_runtime", "cudaStreamSynchronize", 1, 182.0, 2.0, R"("correlation": 8)");
    file.kernel("b", 190.0, 195.0, 3.0);
    const Recording r = import_recording(file.read(), nullptr, {.step = 4, .top_k = {}});
    ASSERT_EQ(r.tasks.size(), 2u);
    EXPECT_TRUE(r.tasks[0].host_waits);
    EXPECT_EQ(r.tasks[0].kernels, 2);
    // From the end of the copy's call to the synchronization's begin, and from its end on.
    EXPECT_NEAR(r.tasks[1].host.in(us), 2.0 + 6.0, 1e-9);
    // Launch to kernel: 2, 2, 2 and 5 us in the two steps; from the copy's end to the host: 6.
    EXPECT_NEAR(r.wait_latency.in(us), 2.0 + 6.0, 1e-9);
}

// Host times of 36 us under the profiler, 18 without: half. The device needs 8 us and hides
// nothing.
TEST(ImportRecording, HostTimesAreScaledToTheStepWithoutProfiler) {
    Kineto file;
    file.annotation("ProfilerStep#3", 0.0, 36.0);
    for (int i = 0; i < 4; ++i) file.kernel("k", 8.0 + 8.0 * i, 9.0 + 8.0 * i, 2.0);
    const CallTable t = table(0.018, 0.018, false, {});
    const Recording r = import_recording(file.read(), &t, {});
    EXPECT_NEAR(r.host_scale, 0.5, 1e-3);
    EXPECT_NEAR(r.replayed_step->in(us), 18.0, 0.02);
    const CallTable other = table(1e3, 1e3, false, {});
    EXPECT_NE(refusal([&] { import_recording(file.read(), &other, {}); }).find("to which no scale"),
              std::string::npos);
}

// The call is a collective of its table, in line with the kernels; what the recorder launched in it
// is none of the script's, and NCCL's host time stands for the recorder's.
TEST(ImportRecording, FakeCalls) {
    Kineto file;
    file.annotation("ProfilerStep#3", 0.0, 200.0);
    file.kernel("a", 10.0, 12.0, 4.0);
    file.annotation("headway.comm 0", 20.0, 60.0);
    file.kernel("fill", 50.0, 52.0, 9.0);
    file.kernel("b", 90.0, 92.0, 5.0);
    const CallTable t = table(0.2, 0.2, true, {call_of("all_reduce", 4096)});
    const Recording r = import_recording(file.read(), &t, {});
    ASSERT_EQ(r.tasks.size(), 3u);
    EXPECT_EQ(r.tasks[1].kind, RecordedKind::collective);
    EXPECT_EQ(r.tasks[1].collective, Collective::all_reduce);
    EXPECT_NEAR(r.tasks[1].bytes.in(byte), 4096.0, 0);
    EXPECT_NEAR(r.tasks[1].host.in(us), 10.0 * r.host_scale + 25.0,
                1e-2);  // from a's launch, and NCCL's
    EXPECT_EQ(r.tasks[2].kernels, 1);
    EXPECT_NEAR(r.tasks[2].host.in(us), 10.0 * r.host_scale, 1e-2);  // from the call's end at 80
    EXPECT_EQ(r.groups.at(0).size, 2);
}

TEST(ImportRecording, AsynchronousCallsRunBesideUntilTheirWait) {
    Kineto file;
    file.annotation("ProfilerStep#3", 0.0, 200.0);
    file.kernel("a", 10.0, 12.0, 4.0);
    file.annotation("headway.comm 0", 20.0, 20.0);
    file.kernel("mark", 30.0, 32.0, 1.0);
    file.kernel("b", 50.0, 52.0, 5.0);
    file.annotation("headway.wait 0", 60.0, 20.0);
    file.kernel("mark", 70.0, 72.0, 1.0);
    file.kernel("c", 90.0, 92.0, 5.0);
    const CallTable t = table(0.2, 0.2, true, {call_of("all_reduce", 4096, true)});
    const Recording r = import_recording(file.read(), &t, {});
    ASSERT_EQ(r.tasks.size(), 4u);
    EXPECT_NE(r.tasks[1].stream, r.tasks[0].stream);
    EXPECT_EQ(r.tasks[1].after, std::vector<int>{0});
    EXPECT_TRUE(r.tasks[2].after.empty());
    EXPECT_EQ(r.tasks[3].after, std::vector<int>{1});
}

// NCCL's own kernels, with what the profiler says of them: 4096 elements of 2 bytes, an even split.
TEST(ImportRecording, CollectivesOfNccl) {
    Kineto file;
    file.annotation("ProfilerStep#3", 0.0, 100.0);
    file.kernel("a", 10.0, 12.0, 4.0);
    file.call("all_to_allv", "BFloat16", 4096, 2, 20.0, 22.0, 9.0);
    file.kernel("b", 30.0, 32.0, 4.0);
    const Recording r = import_recording(file.read(), nullptr, {});
    ASSERT_EQ(r.tasks.size(), 3u);
    EXPECT_EQ(r.tasks[1].collective, Collective::all_to_all);
    EXPECT_EQ(r.tasks[1].send, (std::vector<double>{4096, 4096}));
    Kineto beside = file;
    beside.call("allreduce", "BFloat16", 4096, 2, 40.0, 42.0, 9.0, 20);
    EXPECT_NE(refusal([&] {
                  import_recording(beside.read(), nullptr, {});
              }).find("a collective on stream 20, kernels on 7"),
              std::string::npos);
    Kineto message = file;
    message.call("send", "BFloat16", 4096, 2, 40.0, 42.0, 9.0);
    EXPECT_NE(
        refusal([&] { import_recording(message.read(), nullptr, {}); }).find("a pipeline needs"),
        std::string::npos);
}

// Uneven splits and, later, the same the other way round: kernels in between work on the rows.
TEST(ImportRecording, RowsOfARouter) {
    Kineto file;
    file.annotation("ProfilerStep#3", 0.0, 300.0);
    file.kernel("before", 10.0, 12.0, 4.0);
    for (int i = 0; i < 3; ++i) {
        file.annotation("headway.comm " + std::to_string(i), 20.0 + 40.0 * i, 20.0);
        file.kernel("fill", 30.0 + 40.0 * i, 32.0 + 40.0 * i, 1.0);
        file.kernel("expert", 50.0 + 40.0 * i, 52.0 + 40.0 * i, 8.0);
    }
    RecordedCall counts = call_of("all_to_all", 64), out = call_of("all_to_all", 6000), back = out;
    counts.send = counts.receive = {32, 32};
    counts.dtype = "int64";
    counts.elements = 8;
    out.send = back.receive = {4000, 2000};
    out.receive = back.send = {4000, 1000};
    const CallTable t = table(0.3, 0.3, true, {counts, out, back});
    const Recording r = import_recording(file.read(), &t, {.step = {}, .top_k = 2});
    ASSERT_EQ(r.tasks.size(), 7u);
    EXPECT_EQ(r.tasks[5].returns, 3);
    EXPECT_FALSE(r.tasks[2].rows_of);
    EXPECT_EQ(r.tasks[4].rows_of, 3);
    EXPECT_FALSE(r.tasks[6].rows_of);
    EXPECT_EQ(r.router->experts, 8);
    EXPECT_EQ(r.router->top_k, 2);
}

TEST(ImportRecording, RefusesWhatATraceDoesNotHold) {
    const CallTable t = table(0.036, 0.036, true, {call_of("all_reduce", 8)});
    const auto refused = [&](const Kineto& file, const CallTable* with) {
        return refusal([&] { import_recording(file.read(), with, {}); });
    };
    const auto has = [](const std::string& text, const char* part) {
        EXPECT_NE(text.find(part), std::string::npos) << text;
    };
    Kineto none;
    none.kernel("a", 10.0, 12.0, 4.0);
    has(refused(none, nullptr), "no ProfilerStep#N");
    Kineto streams = one_step();
    streams.kernel("d", 32.0, 60.0, 4.0, 20);
    has(refused(streams, nullptr), "kernels on streams 7, 20");
    Kineto graph = one_step();
    graph.kernel("g", 32.0, 60.0, 4.0, 7, 1, R"("graph id": 5)");
    has(refused(graph, nullptr), "kernels of a CUDA graph");
    Kineto hip = one_step();
    hip.span("cuda_runtime", "hipLaunchKernel", 1, 32.0, 1.0, R"("correlation": 101)");
    has(refused(hip, nullptr), "'hipLaunchKernel', a call of HIP");
    Kineto marked = one_step();
    marked.annotation("headway.comm 3", 31.0, 2.0);
    has(refused(marked, nullptr), "give its table: --comm");
    has(refused(marked, &t), "call 3; the table has 1");
    Kineto functional = one_step();
    functional.op("_c10d_functional::all_reduce", 32.0, 2.0);
    has(refused(functional, &t), "_c10d_functional::all_reduce that the recorder has not wrapped");
    CallTable other = t;
    other.device = "GPU Y";
    has(refused(one_step(), &other), "device GPU Y");
    other = t;
    other.rank = 1;
    has(refused(one_step(), &other), "rank 1");
    Kineto overlapping = one_step();
    overlapping.annotation("ProfilerStep#4", 20.0, 60.0);
    has(refused(overlapping, nullptr), "steps 3 and 4 at the same time");
    Kineto odd = one_step();
    odd.annotation("headway.comm 0", 31.0, 2.0);
    odd.kernel("mark", 31.5, 60.0, 1.0);
    CallTable uneven = t;
    uneven.world_size = 2;
    uneven.groups = {{"0", {1, 0}}};
    has(refused(odd, &uneven), "group '0' of ranks 1, 0");
}

TEST(CallTable, ReadsAndRefuses) {
    const std::string good =
        R"({"format": 1, "device": "X", "rank": 0, "world_size": 2, "fake": true, "experts": 4, "step_ms": 2.5,)"
        R"( "enqueue_ms": 2.0, "peak_bytes": 9, "nccl_host_us": {"all_to_all": 30.5}, "groups": {"0": [0, 1]},)"
        R"( "calls": [{"kind": "all_to_all", "group": "0", "dtype": "bfloat16", "in_bytes": 8, "out_bytes": 6,)"
        R"( "async": false, "send": [4, 4], "receive": [4, 2], "elements": 4, "row_bytes": 2}]})";
    const auto read = [](const std::string& text) {
        const TextFile file("_comm.json", text);
        return read_call_table(file.path());
    };
    const CallTable t = read(good);
    EXPECT_EQ(t.calls.at(0).receive, (std::vector<double>{4, 2}));
    EXPECT_EQ(t.nccl_host_us.at("all_to_all"), 30.5);
    const auto broken = [&](const std::string& from, const std::string& to) {
        std::string text = good;
        text.replace(text.find(from), from.size(), to);
        return refusal([&] { read(text); });
    };
    EXPECT_NE(broken(R"("format": 1)", R"("format": 2)").find("format 2"), std::string::npos);
    EXPECT_NE(broken(R"([4, 4])", R"([4])").find("1 entries of 'send' in a group of 2"),
              std::string::npos);
    EXPECT_NE(broken(R"("rank": 0)", R"("rank": 2)").find("rank 2 of 2"), std::string::npos);
    EXPECT_NE(broken(R"([0, 1])", R"([1])").find("without rank 0"), std::string::npos);
    EXPECT_NE(broken(R"("step_ms": 2.5)", R"("step_ms": -1)").find("'step_ms' is -1"),
              std::string::npos);
    EXPECT_NE(broken(R"("fake": true)", R"("fake": 1)").find("'fake' of another type"),
              std::string::npos);
    EXPECT_NE(refusal([&] { read(good.substr(0, 40)); }).find("a file that is cut"),
              std::string::npos);
    EXPECT_NE(refusal([&] { read("[]"); }).find("no JSON object"), std::string::npos);
}

TEST(ProgramFile, ReadsBackWhatItWrote) {
    Kineto file;
    file.annotation("ProfilerStep#3", 0.0, 100.0);
    file.kernel("a", 10.0, 12.0, 4.0);
    file.call("all_to_allv", "BFloat16", 4096, 2, 20.0, 22.0, 9.0);
    file.kernel("b", 30.0, 32.0, 4.0);
    const std::string text = to_yaml(import_recording(file.read(), nullptr, {}));
    const TextFile written("_program.yaml", text);
    EXPECT_EQ(to_yaml(read_program(written.path())), text);
}

TEST(ProgramFile, NamesEveryMistakeWithItsPlace) {
    const std::string good =
        "name: toy\nrank: 0\nworld_size: 2\ngroups:\n  - {name: dp, size: 2, stride: 1}\ntasks:\n"
        "  - {do: compute, stream: 7, host: 3 us, device: 5 us, lead: 1 us, kernels: 1}\n"
        "  - {do: collective, stream: 7, collective: all_reduce, group: dp, bytes: 4 MB}\n";
    const auto read = [&](const std::string& from, const std::string& to) {
        std::string text = good;
        if (!from.empty()) text.replace(text.find(from), from.size(), to);
        const TextFile file("_p.yaml", text);
        return refusal([&] { read_program(file.path()); });
    };
    EXPECT_EQ(read("", ""), "accepted");
    EXPECT_NE(read("group: dp", "group: ep").find("yaml:8:"), std::string::npos);
    EXPECT_NE(read("lead: 1 us", "lead: 4 us").find("more than host"), std::string::npos);
    EXPECT_NE(read("kernels: 1", "kernel: 1").find("unknown key 'kernel'"), std::string::npos);
    EXPECT_NE(read("size: 2", "size: 3").find("size x stride divides world_size"),
              std::string::npos);
    EXPECT_NE(read("kernels: 1", "after: [1]").find("a task before it"), std::string::npos);
    EXPECT_NE(read("collective: all_reduce", "collective: all_to_all").find("bytes"),
              std::string::npos);
}

}  // namespace
}  // namespace headway
