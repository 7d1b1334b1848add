// Tables of counts that a scenario names, as people write them, and what a first column means.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "models/scenario/read_scenario.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;

// Counts of 4 experts, two layers, given in a file with this text.
Scenario with_counts(const std::string& text) {
    const fs::path file = fs::path(testing::TempDir()) / "counts.csv";
    std::ofstream(file, std::ios::binary) << text;
    return read_scenario_text(
        "model: {preset: olmoe_1b_7b, moe: {num_experts: 4, top_k: 2}}\n"
        "cluster: {preset: dgx_h100, gpus_per_node: 4, nvlink: {domain: 4}, fabric: "
        "{nics_per_node: 4}}\n"
        "batch: {sequence_length: 4096}\n"
        "routing: {skew: {kind: trace, file: " +
            file.string() +
            "}}\n"
            "plans: [{name: ep, expert_parallel: {}, group_size: 4}]\n",
        "s.yaml", "");
}

std::string refusal_of_counts(const std::string& text) {
    try {
        with_counts(text);
    } catch (const InputError& error) {
        return error.what();
    }
    return "read";
}

TEST(Tables, AnyDressGivesTheSameCounts) {
    const std::vector<std::vector<double>> counts = {{90, 132, 40, 61}, {20, 107, 104, 64}};
    for (const char* text : {
             "90,132,40,61\n20,107,104,64\n",
             "\xef\xbb\xbf"
             "90,132,40,61\r\n20,107,104,64\r\n",
             "90 132 40 61\n20 107 104 64\n", "e0,e1,e2,e3\n90,132,40,61\n20,107,104,64\n",
             "layer,e0,e1,e2,e3\n3,90,132,40,61\n4,20,107,104,64\n",
             "3,90,132,40,61\n4,20,107,104,64\n",  // five columns for four experts
         }) {
        EXPECT_EQ(with_counts(text).routing.weights, counts) << text;
    }
}

TEST(Tables, DroppedNumbersOfLayersAreNoted) {
    const Scenario s = with_counts("0,90,132,40,61\n1,20,107,104,64\n");
    ASSERT_EQ(s.notes.size(), 1u);
    EXPECT_NE(s.notes[0].find("taken as the numbers of the layers"), std::string::npos);
}

TEST(Tables, WhatCanBeReadInTwoWaysIsRefused) {
    EXPECT_NE(refusal_of_counts("0,1,2,3\n90,132,40,61\n").find("numbers of columns, or data?"),
              std::string::npos);
    EXPECT_NE(refusal_of_counts("5,90,132,40,61\n9,20,107,104,64\n").find("5 values in row 1"),
              std::string::npos);
    EXPECT_NE(refusal_of_counts("90,132,40,61\n# caf\xe9\n").find("counts.csv:2:6: the byte 0xe9"),
              std::string::npos);
}

}  // namespace
}  // namespace headway
