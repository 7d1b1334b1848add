// Grids of layers and their samples as CSV: what is written is read; what was cut off is dropped.
#include "runtime/layers/layer_grid.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "models/vocab/error.hpp"

namespace headway::runtime {
namespace {

namespace fs = std::filesystem;

fs::path grid_file(const std::string& text) {
    // Tests run beside each other, each as a process of its own.
    const fs::path folder = fs::path(testing::TempDir()) / std::to_string(::getpid());
    fs::create_directories(folder);
    const fs::path file = folder / "headway_layer_grid_test.csv";
    std::ofstream(file) << text;
    return file;
}

constexpr const char* kHeader =
    "kind,tokens,hidden,heads,head_width,experts,top_k,expert_width,zipf\n";

// An execution of `ranks` ranks: route and the last phase of backward, each of both passes.
std::vector<GridSample> execution(LayerKind kind, int tokens, int ranks) {
    const Phase last = kind == LayerKind::hp ? Phase::head_project : Phase::route;
    std::vector<GridSample> samples;
    for (int r = 0; r < ranks; ++r) {
        for (const auto& [pass, phase] : {std::pair{Pass::forward, Phase::route},
                                          {Pass::forward, Phase::expert},
                                          {Pass::backward, last}}) {
            samples.push_back({.point = {.kind = kind,
                                         .tokens = tokens,
                                         .hidden = 256,
                                         .experts = 8,
                                         .top_k = 2,
                                         .expert_width = 64},
                               .num_ranks = ranks,
                               .rank = r,
                               .pass = pass,
                               .phase = phase,
                               .median_us = 10.5,
                               .p10_us = 10.25,
                               .p90_us = 11.125,
                               .bytes = 1000,
                               .peak_bytes = 123456789012,
                               .clock_mhz = 1980,
                               .throttle = "power, thermal"});
        }
    }
    return samples;
}

std::string text_of(const std::vector<std::vector<GridSample>>& executions) {
    std::string text = grid_samples_header();
    for (const auto& e : executions) {
        for (const GridSample& s : e) text += to_csv_line(s);
    }
    return text;
}

TEST(LayerGrid, ReadsItsLayers) {
    const auto points =
        read_grid(grid_file(std::string(kHeader) + "hp,512,1024,8,128,64,4,256,0\n"
                                                   "ep_rank,512,1024,1,0,64,4,256,0.8\n"
                                                   "ep_node,512,1024,1,0,64,4,256,0\n"));
    ASSERT_EQ(points.size(), 3U);
    EXPECT_EQ(points[2].kind, LayerKind::ep_rank);
    EXPECT_EQ(points[2].nodes, 2);
    for (const GridPoint& p : points) EXPECT_EQ(kind_name(p) == "ep_node", p.nodes == 2);
    EXPECT_EQ(points[0].kind, LayerKind::hp);
    EXPECT_EQ(points[0].heads, 8);
    EXPECT_EQ(points[1].kind, LayerKind::ep_rank);
    EXPECT_EQ(points[1].zipf, 0.8);
}

TEST(LayerGrid, BadLinesAreNamed) {
    for (const auto& [row, where] : {std::pair{"moe,512,1024,8,128,64,4,256,0\n", ":2"},
                                     {"hp,0,1024,8,128,64,4,256,0\n", ":2"},
                                     {"hp,512\n", ":2"},
                                     {"", "no layer"}}) {
        try {
            read_grid(grid_file(kHeader + std::string(row)));
            FAIL() << row;
        } catch (const InputError& error) {
            EXPECT_NE(std::string(error.what()).find(where), std::string::npos) << error.what();
        }
    }
}

TEST(LayerGrid, SamplesSurviveTheirFile) {
    const auto written = execution(LayerKind::hp, 512, 2);
    const auto read = read_grid_samples(grid_file(text_of({written})));
    ASSERT_EQ(read.size(), written.size());
    for (std::size_t i = 0; i < read.size(); ++i)
        EXPECT_EQ(to_csv_line(read[i]), to_csv_line(written[i]));
    EXPECT_EQ(read.back().throttle, "power, thermal");
    EXPECT_EQ(read.back().peak_bytes, 123456789012);
}

// The same layer twice in a row is two executions.
TEST(LayerGrid, ExecutionsAreToldApart) {
    const auto read = read_grid_samples(
        grid_file(text_of({execution(LayerKind::hp, 512, 2), execution(LayerKind::hp, 512, 2),
                           execution(LayerKind::ep, 512, 2)})));
    const auto executions = by_execution(read);
    ASSERT_EQ(executions.size(), 3U);
    for (const auto& e : executions) EXPECT_EQ(e.size(), 6U);
}

// Cut anywhere in its last execution, a file keeps the ones before it; a whole one keeps all.
TEST(LayerGrid, AnUnfinishedExecutionIsDropped) {
    const std::string first = text_of({execution(LayerKind::ep, 512, 2)});
    const std::string both =
        text_of({execution(LayerKind::ep, 512, 2), execution(LayerKind::hp, 256, 2)});
    for (std::size_t cut = first.size(); cut < both.size(); cut += 7) {
        const fs::path file = grid_file(both.substr(0, cut));
        drop_unfinished(file);
        EXPECT_EQ(by_execution(read_grid_samples(file)).size(), 1U) << cut;
    }
    const fs::path file = grid_file(both);
    drop_unfinished(file);
    EXPECT_EQ(by_execution(read_grid_samples(file)).size(), 2U);
}

// A layer becomes a scenario of one plan on as many ranks, and EP's kinds differ in their dedup.
TEST(LayerGrid, ALayerBecomesAScenario) {
    const GridPoint hp{.kind = LayerKind::hp,
                       .tokens = 512,
                       .hidden = 256,
                       .heads = 4,
                       .head_width = 64,
                       .experts = 8,
                       .top_k = 2,
                       .expert_width = 64,
                       .zipf = 0.5};
    Scenario base;
    base.cluster.pcie = Pcie{};
    const Scenario s = scenario_of(base, hp, 2);
    EXPECT_EQ(s.batch.tokens_per_rank(), 512);
    EXPECT_EQ(s.cluster.gpus_per_node, 2);
    EXPECT_EQ(s.routing.skew, Skew::zipf);
    ASSERT_EQ(s.plans.size(), 1U);
    EXPECT_EQ(std::get<HeadParallel>(s.plans[0].layer).head_width, 64);
    GridPoint ep = hp;
    ep.kind = LayerKind::ep_rank;
    EXPECT_EQ(std::get<ExpertParallel>(scenario_of(base, ep, 2).plans[0].layer).dedup, Dedup::rank);
}

// ep_node: two nodes that are halves of one machine, and its one path between all ranks; a sample
// says so when it is written and read.
TEST(LayerGrid, NodeDedupRunsOnHalvesOfTheMachine) {
    GridPoint point{.kind = LayerKind::ep_rank,
                    .tokens = 512,
                    .hidden = 256,
                    .experts = 8,
                    .top_k = 2,
                    .expert_width = 64,
                    .nodes = 2};
    Scenario base;
    base.cluster.pcie = Pcie{};
    base.cluster.fabric = Fabric{};
    const Scenario s = scenario_of(base, point, 4);
    EXPECT_EQ(s.plans[0].name, "ep_node");
    EXPECT_EQ(std::get<ExpertParallel>(s.plans[0].layer).dedup, Dedup::node);
    EXPECT_EQ(s.cluster.num_ranks(), 4);
    EXPECT_EQ(s.cluster.island_size(), 2);
    for (int rank = 1; rank < 4; ++rank) EXPECT_EQ(path_class(s.cluster, 0, rank), PathClass::pcie);
    EXPECT_EQ(peers_by_class(s.cluster, 4)[static_cast<std::size_t>(PathClass::pcie)], 3);
    EXPECT_EQ(scenario_of(base, point, 1).cluster.num_nodes, 1);
    auto samples = execution(LayerKind::ep_rank, 512, 4);
    for (GridSample& sample : samples) sample.point.nodes = 2;
    const auto read = read_grid_samples(grid_file(text_of({samples})));
    EXPECT_EQ(read.front().point, samples.front().point);
}

}  // namespace
}  // namespace headway::runtime
