// Anchor files are as strict as scenarios: every problem with its place, all at once.
#include "models/scenario/read_anchors.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace headway {
namespace {

namespace fs = std::filesystem;

fs::path file_with(const std::string& text) {
    const fs::path folder =
        fs::path(testing::TempDir()) / ("headway_anchors_" + std::to_string(::getpid()));
    fs::create_directories(folder);
    std::ofstream(folder / "anchors.yaml") << text;
    return folder / "anchors.yaml";
}

std::string problems_of(const std::string& text) {
    try {
        read_anchors(file_with(text));
    } catch (const InputError& error) {
        return error.what();
    }
    return "";
}

TEST(ReadAnchors, TakesUnitsAndFindsScenariosBesideTheFile) {
    const fs::path path = file_with(
        "runs:\n"
        "  - {name: a, scenario: s.yaml, plan: ep, quantity: moe_forward, time: 4 ms,\n"
        "     tolerance: 12 %, source: x, date: 2026-01-01}\n"
        "  - {name: b, scenario: s.yaml, plan: ep, quantity: peak_memory, memory: 2 GiB,\n"
        "     source: x, date: 2026-01-01}\n");
    const AnchorSet set = read_anchors(path);
    ASSERT_EQ(set.runs.size(), 2u);
    EXPECT_EQ(set.runs[0].scenario, path.parent_path() / "s.yaml");
    EXPECT_DOUBLE_EQ(set.runs[0].time.in(ms), 4.0);
    EXPECT_DOUBLE_EQ(set.runs[0].tolerance, 0.12);
    EXPECT_DOUBLE_EQ(set.runs[1].memory.in(GiB), 2.0);
}

TEST(ReadAnchors, ARatioNamesTwoSteps) {
    const AnchorSet set =
        read_anchors(file_with("ratios:\n  - {name: overlap, run: a with, over: a without}\n"));
    ASSERT_EQ(set.ratios.size(), 1u);
    EXPECT_EQ(set.ratios[0].run, "a with");
    EXPECT_EQ(set.ratios[0].over, "a without");
}

TEST(ReadAnchors, ATimeForAMemoryAnchorIsAnError) {
    const std::string problems = problems_of(
        "runs:\n"
        "  - {name: b, scenario: s.yaml, plan: ep, quantity: peak_memory, time: 2 ms,\n"
        "     source: x, date: 2026-01-01}\n");
    EXPECT_NE(problems.find("time"), std::string::npos) << problems;
    EXPECT_NE(problems.find("memory"), std::string::npos) << problems;
}

TEST(ReadAnchors, ATableNeedsOneTimePerSize) {
    const std::string problems = problems_of(
        "exchanges:\n"
        "  - {name: a, profile: p, path: nvlink, num_ranks: 8, bytes: [1 MiB, 2 MiB],\n"
        "     time: [1 us], source: x, date: 2026-01-01}\n");
    EXPECT_NE(problems.find("1 times for 2 sizes"), std::string::npos) << problems;
}

TEST(ReadAnchors, AnEmptyFolderIsAnError) {
    const fs::path folder = file_with("runs: []\n").parent_path() / "empty";
    fs::create_directories(folder);
    EXPECT_THROW(read_anchor_folder(folder), InputError);
}

}  // namespace
}  // namespace headway
