// The shipped anchors: sourced, dated, judged with the right profile; and docs/validation.md holds
// the errors that they give now.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "models/report/validation_table.hpp"
#include "models/scenario/read_anchors.hpp"
#include "models/validate/validate.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;
const fs::path kSource = HEADWAY_SOURCE_DIR;
const ReadOptions kPresets = {.preset_dirs = {kSource / "scenarios"}};

class ShippedAnchors : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        set_ = read_anchor_folder(kSource / "scenarios/anchors", kPresets);
        results_ = validate(
            set_, {.profile =
                       [](const std::string& name) {
                           return read_profile(find_preset("profiles", name, kPresets), kPresets);
                       },
                   .scenario = [](const fs::path& path) { return read_scenario(path, kPresets); }});
    }

    static inline AnchorSet set_;
    static inline std::vector<AnchorResult> results_;
};

TEST_F(ShippedAnchors, AreSourcedAndDated) {
    for (const RunAnchor& anchor : set_.runs) {
        EXPECT_FALSE(anchor.publication.source.empty()) << anchor.name;
        EXPECT_EQ(anchor.publication.date.size(), std::string("YYYY-MM-DD").size()) << anchor.name;
    }
    for (const UnexpressedAnchor& anchor : set_.not_expressible)
        EXPECT_FALSE(anchor.reason.empty()) << anchor.name;
}

TEST_F(ShippedAnchors, AreJudgedWithTheProfileOfTheirDevice) {
    for (const RunAnchor& anchor : set_.runs) {
        const Scenario scenario = read_scenario(anchor.scenario, kPresets);
        ASSERT_TRUE(scenario.profile.has_value()) << anchor.scenario;
        EXPECT_EQ(scenario.profile->provenance.device, scenario.cluster.device.name)
            << anchor.scenario;
    }
}

// |predicted / published - 1| <= 5 % for each held-out size on 8 A100, H100, H200 and B200.
TEST_F(ShippedAnchors, HeldOutAllToAllSizesAreWithinTheirTolerance) {
    int judged = 0;
    for (const AnchorResult& r : results_) {
        if (r.category != AnchorCategory::all_to_all || r.tolerance == 0.0) continue;
        EXPECT_NE(r.verdict, Verdict::out) << r.name << ' ' << r.buffer.in(MiB) << " MiB";
        judged += r.verdict == Verdict::pass ? 1 : 0;
    }
    EXPECT_GE(judged, 4 * 3);
}

// Rows "| anchor | quantity | predicted | published | +1.2 % | ...": the error in percent, by the
// first two cells and how often they came before.
std::map<std::string, double> documented_errors(const std::string& text) {
    std::map<std::string, double> errors;
    std::map<std::string, int> seen;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::vector<std::string> cells;
        std::istringstream row(line);
        for (std::string cell; std::getline(row, cell, '|');) cells.push_back(cell);
        if (cells.size() != 8 || cells[5].find('%') == std::string::npos) continue;
        const std::string key = cells[1] + "|" + cells[2];
        errors[fmt::format("{}|{}", key, seen[key]++)] = std::stod(cells[5]);
    }
    return errors;
}

// To the percentage point, so that a change of the model that moves nothing does not touch the
// document.
TEST_F(ShippedAnchors, TheDocumentHoldsTheirErrors) {
    std::ifstream file(kSource / "docs/validation.md");
    std::stringstream document;
    document << file.rdbuf();
    const auto written = documented_errors(document.str());
    const auto now = documented_errors(
        validation_to_markdown({results_, statistics(results_), set_.not_expressible}));
    ASSERT_FALSE(now.empty());
    const char* update = "run: headway validate --format markdown --out docs/validation.md";
    EXPECT_EQ(written.size(), now.size()) << update;
    for (const auto& [key, error] : now) {
        ASSERT_TRUE(written.contains(key)) << key << "; " << update;
        EXPECT_NEAR(written.at(key), error, 1.0) << key << "; " << update;
    }
}

}  // namespace
}  // namespace headway
