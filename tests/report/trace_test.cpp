#include "models/report/trace.hpp"

#include <gtest/gtest.h>

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
