#include "models/trace/torch_trace.hpp"

#include <gtest/gtest.h>

#include <string>

#include "models/trace/host_tree.hpp"
#include "models/vocab/error.hpp"
#include "tests/trace/kineto.hpp"

namespace headway {
namespace {

std::string trace_refusal(const std::string& text) {
    try {
        Kineto::read_text(text);
    } catch (const InputError& error) {
        return error.what();
    }
    return "accepted";
}

TEST(TorchTrace, KeepsWhatSaysWhereTimeWent) {
    Kineto file;
    file.op("aten::addmm", 10.0, 5.0, 1, "[[8], [4, 2], [2, 8], [], []]");
    file.kernel("gemm", 11.0, 20.0, 4.0);
    file.call("all_to_allv", "BFloat16", 4096, 2, 12.0, 30.0, 7.5, 20);
    file.span("gpu_memset", "Memset (Device)", 7, 40.0, 1.0, R"("stream": 7, "correlation": 5)");
    file.span("python_function", "train.py(3): step", 1, 0.0, 99.0, R"("Python id": 1)");
    const TorchTrace trace = file.read();
    EXPECT_EQ(trace.rank, 0);
    EXPECT_EQ(trace.world_size, 2);
    EXPECT_EQ(trace.device, "GPU X");
    ASSERT_EQ(trace.gpu.size(), 3u);
    EXPECT_EQ(trace.names[trace.gpu[0].name], "gemm");
    EXPECT_EQ(trace.gpu[0].begin, 20000);
    EXPECT_EQ(trace.gpu[0].duration, 4000);
    EXPECT_EQ(trace.gpu[0].collective, -1);
    EXPECT_EQ(trace.gpu[1].stream, 20);
    const NcclCall& call = trace.collectives.at(trace.gpu[1].collective);
    EXPECT_EQ(call.name, "all_to_allv");
    EXPECT_EQ(call.dtype, "BFloat16");
    EXPECT_EQ(call.in, 4096);
    EXPECT_EQ(call.group_size, 2);
    EXPECT_EQ(call.group, "0 default_pg");
    EXPECT_EQ(call.ranks, "[0, 1]");
    EXPECT_FALSE(trace.gpu[2].is_kernel);
    ASSERT_EQ(trace.host.size(), 1u);
    // A and B of the product, without what it is added to.
    EXPECT_EQ(trace.shapes.at(0), (std::vector<Shape>{{4, 2}, {2, 8}}));
    EXPECT_EQ(trace.launches.size(), 2u);
}

// 5135014200414.584 us has 16 digits: as a double of nanoseconds the last would be lost.
TEST(TorchTrace, KeepsEveryNanosecond) {
    const TorchTrace trace = Kineto::read_text(
        R"({"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, )"
        R"("ts": 5135014200414.584, "dur": 1, "args": {"stream": 7}},)"
        R"({"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, )"
        R"("ts": 5135014200415, "dur": 0.25, "args": {"stream": 7}}]})");
    EXPECT_EQ(trace.gpu[0].begin, 5135014200414584);
    EXPECT_EQ(trace.gpu[0].duration, 1000);
    EXPECT_EQ(trace.gpu[1].begin, 5135014200415000);
    EXPECT_EQ(trace.gpu[1].duration, 250);
    EXPECT_EQ(trace.rank, -1);
}

TEST(TorchTrace, RefusesWhatIsNone) {
    Kineto file;
    file.kernel("gemm", 11.0, 20.0, 4.0);
    const std::string whole = file.text();
    EXPECT_EQ(trace_refusal(whole), "accepted");
    for (const std::size_t length : {whole.size() - 1, whole.size() / 2, std::size_t{1}}) {
        EXPECT_NE(trace_refusal(whole.substr(0, length)).find("a JSON file that is cut"),
                  std::string::npos)
            << length;
    }
    EXPECT_NE(trace_refusal("").find("cut"), std::string::npos);
    EXPECT_NE(trace_refusal("[1, 2]").find("a JSON list"), std::string::npos);
    EXPECT_NE(trace_refusal(R"({"plans": []})").find("JSON without traceEvents"),
              std::string::npos);
    EXPECT_NE(trace_refusal("scenario: x").find("no JSON at byte 1"), std::string::npos);
    Kineto host_only;
    host_only.op("aten::mm", 1.0, 2.0);
    EXPECT_NE(trace_refusal(host_only.text()).find("1 events, none of them a GPU kernel"),
              std::string::npos);
    // A name with a quote in it, as the profiler writes it.
    const std::string quoted = R"({"traceEvents": [{"ph": "X", "name": "say "hello"", "ts": 1}]})";
    EXPECT_NE(trace_refusal(quoted).find("a name of record_function with a quote"),
              std::string::npos);
}

TEST(HostTree, FindsWhatLiesAroundALaunchAndWhatItDifferentiates) {
    Kineto file;
    file.annotation("norm", 0.0, 20.0);      // 0
    file.op("aten::rms_norm", 1.0, 10.0);    // 1
    file.op("aten::empty", 2.0, 1.0);        // 2
    file.kernel("forward", 5.0, 50.0, 1.0);  // in 1, behind 2
    file.op("autograd::engine::evaluate_function: RmsNormBackward0", 30.0, 9.0, 2);  // 3
    file.op("RmsNormBackward0", 31.0, 5.0, 2);                                       // 4
    file.kernel("backward", 32.0, 60.0, 1.0, 7, 2);                                  // in 4
    file.kernel("sum", 37.0, 62.0, 1.0, 7, 2);                                       // in 3
    file.link(1.0, 1, 31.0, 2);
    file.kernel("outside", 80.0, 81.0, 1.0);
    const TorchTrace trace = file.read();
    const HostTree host(trace);
    ASSERT_EQ(trace.gpu.size(), 4u);
    EXPECT_EQ(host.origin(trace.gpu[0])->span, 1);
    EXPECT_EQ(host.parent(1), 0);
    EXPECT_EQ(host.parent(0), -1);
    EXPECT_FALSE(host.in_backward(1));
    EXPECT_EQ(host.differentiated(1), -1);
    EXPECT_EQ(host.origin(trace.gpu[1])->span, 4);
    EXPECT_TRUE(host.in_backward(4));
    EXPECT_EQ(host.differentiated(4), 1);
    EXPECT_EQ(host.origin(trace.gpu[2])->span, 3);
    EXPECT_EQ(host.differentiated(3), 1);
    EXPECT_EQ(host.origin(trace.gpu[3])->span, -1);
    GpuWork unknown;
    unknown.correlation = 9999;
    EXPECT_EQ(host.origin(unknown), nullptr);
}

}  // namespace
}  // namespace headway
