#include "models/report/trace.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

namespace headway {
namespace {

using Json = nlohmann::json;

Json trace_of(std::span<const TraceSource> sources) {
    std::ostringstream stream;
    write_trace(stream, sources);
    return Json::parse(stream.str());
}

Timeline two_ranks() {
    Timeline t;
    t.spans.push_back({.rank = 0,
                       .layer = 3,
                       .phase = Phase::dispatch,
                       .begin = 1.0 * us,
                       .duration = 2.0 * us,
                       .bottleneck = "nvlink"});
    t.spans.push_back({.rank = 1,
                       .layer = 3,
                       .pass = Pass::backward,
                       .phase = Phase::expert,
                       .begin = 4.0 * us,
                       .duration = 0.5 * us,
                       .bottleneck = ""});
    return t;
}

TEST(Trace, SpansBecomeCompleteEventsOnTheirTrack) {
    const Timeline t = two_ranks();
    const TraceSource source{.name = "hp", .timeline = &t, .arrows = {}, .counters = {}};
    std::map<std::string, Json> spans;
    const Json trace = trace_of(std::span(&source, 1));
    for (const Json& e : trace["traceEvents"]) {
        if (e["ph"] == "X") spans[e["name"]] = e;
    }
    ASSERT_EQ(spans.size(), 2U);
    EXPECT_DOUBLE_EQ(spans["dispatch"]["ts"], 1.0);
    EXPECT_DOUBLE_EQ(spans["dispatch"]["dur"], 2.0);
    EXPECT_EQ(spans["dispatch"]["args"]["layer"], 3);
    EXPECT_EQ(spans["expert"]["cat"], "backward");
    EXPECT_NE(spans["dispatch"]["tid"], spans["expert"]["tid"]);
    EXPECT_NE(spans["dispatch"]["pid"], spans["expert"]["pid"]);
}

// Tasks i = 0, 1, ... of d_i picoseconds, each from the end of the one before: in nanoseconds,
// which is what viewers keep, begin_(i+1) = begin_i + dur_i still, and nothing is off by a
// nanosecond.
TEST(Trace, TasksThatFollowEachOtherDoNotOverlapInNanoseconds) {
    Timeline t;
    std::int64_t end = 0;  // ps
    std::vector<std::int64_t> begins;
    for (int i = 0; i < 1000; ++i) {
        const std::int64_t length = 137 + 7919LL * i % 100003;
        // As the second of two roundings has it, up to a picosecond early.
        const double begin = static_cast<double>(end) - (i % 3 == 0 ? 1.0 : 0.0);
        t.spans.push_back({.rank = 0,
                           .phase = Phase::expert,
                           .begin = std::max(0.0, begin) * 1e-3 * ns,
                           .duration = static_cast<double>(length) * 1e-3 * ns});
        begins.push_back(end);
        end += length;
    }
    const TraceSource source{.name = "hp", .timeline = &t, .arrows = {}, .counters = {}};
    std::size_t i = 0;
    double last = 0.0;
    const Json trace = trace_of(std::span(&source, 1));
    for (const Json& e : trace["traceEvents"]) {
        if (e["ph"] != "X") continue;
        const double begin = 1e3 * e["ts"].get<double>(), length = 1e3 * e["dur"].get<double>();
        EXPECT_NEAR(begin, std::round(begin), 1e-6);
        EXPECT_GE(begin, last - 1e-6);
        EXPECT_NEAR(begin, 1e-3 * static_cast<double>(begins[i]), 1.0);
        last = std::round(begin + length);
        ++i;
    }
    EXPECT_EQ(i, begins.size());
}

// Viewers sort processes by name: with n > 10 ranks the names have leading zeros.
TEST(Trace, RanksSortAsNumbers) {
    Timeline t;
    for (const int rank : {0, 2, 10}) t.spans.push_back({.rank = rank, .duration = 1.0 * us});
    const TraceSource source{.name = "hp", .timeline = &t, .arrows = {}, .counters = {}};
    std::vector<std::string> names;
    const Json trace = trace_of(std::span(&source, 1));
    for (const Json& e : trace["traceEvents"]) {
        if (e["name"] == "process_name") names.push_back(e["args"]["name"]);
    }
    EXPECT_EQ(names, (std::vector<std::string>{"hp: rank 00", "hp: rank 02", "hp: rank 10"}));
}

TEST(Trace, SourcesDoNotShareProcesses) {
    const Timeline t = two_ranks();
    const std::vector<TraceSource> sources = {
        {.name = "a", .timeline = &t, .arrows = {}, .counters = {}},
        {.name = "b \"quoted\"", .timeline = &t, .arrows = {}, .counters = {}}};
    std::map<std::string, int> processes;
    const Json trace = trace_of(sources);
    for (const Json& e : trace["traceEvents"]) {
        if (e["name"] == "process_name") processes[e["args"]["name"]] = e["pid"];
    }
    ASSERT_EQ(processes.size(), 4U);
    EXPECT_TRUE(processes.contains("b \"quoted\": rank 1"));
    EXPECT_NE(processes["a: rank 0"], processes["b \"quoted\": rank 0"]);
}

// A link that moves 4 kB in 2 us runs at 2 GB/s, and at nothing afterwards.
TEST(Trace, CountersRiseAndFall) {
    const Timeline t = two_ranks();
    const TraceSource source{
        .name = "ep",
        .timeline = &t,
        .arrows = {},
        .counters = {{.name = "nic_up:0", .begin = 1.0 * us, .end = 3.0 * us, .bytes = 4.0 * KB}}};
    std::vector<std::pair<double, double>> points;
    const Json trace = trace_of(std::span(&source, 1));
    for (const Json& e : trace["traceEvents"]) {
        if (e["ph"] == "C") points.emplace_back(e["ts"], e["args"]["GB/s"]);
    }
    ASSERT_EQ(points.size(), 2U);
    EXPECT_DOUBLE_EQ(points[0].second, 2.0);
    EXPECT_DOUBLE_EQ(points[1].first, 3.0);
    EXPECT_DOUBLE_EQ(points[1].second, 0.0);
}

TEST(Trace, ArrowsJoinSenderAndReceiver) {
    const Timeline t = two_ranks();
    const TraceSource source{.name = "ep",
                             .timeline = &t,
                             .arrows = {{.from = 0, .to = 1, .begin = 1.0 * us, .end = 3.0 * us}},
                             .counters = {}};
    Json start, finish;
    const Json trace = trace_of(std::span(&source, 1));
    for (const Json& e : trace["traceEvents"]) {
        if (e["ph"] == "s") start = e;
        if (e["ph"] == "f") finish = e;
    }
    EXPECT_EQ(start["id"], finish["id"]);
    EXPECT_EQ(static_cast<int>(finish["pid"]) - static_cast<int>(start["pid"]), 1);
}

TEST(Trace, NothingIsStillAFile) {
    EXPECT_TRUE(trace_of({})["traceEvents"].empty());
}

}  // namespace
}  // namespace headway
