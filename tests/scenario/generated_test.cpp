// docs/reference/scenario.md and the JSON Schemas are generated from the reader's declarations; the
// committed files must equal what the code generates. To bring them up to date after a change of
// keys, copy the files that a failing test names.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "models/scenario/key_docs.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;

std::string file_text(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

void expect_committed(const std::string& path, const std::string& generated) {
    const fs::path committed = fs::path(HEADWAY_SOURCE_DIR) / path;
    if (file_text(committed) == generated) return;
    const fs::path out = fs::path(testing::TempDir()) / committed.filename();
    std::ofstream(out, std::ios::binary) << generated;
    ADD_FAILURE() << path << " is out of date: cp " << out.string() << " " << path;
}

TEST(Generated, DocumentationIsCommitted) {
    expect_committed("docs/reference/scenario.md", scenario_markdown());
}

TEST(Generated, SchemasAreCommitted) {
    expect_committed("scenarios/scenario.schema.json", scenario_schema());
    expect_committed("scenarios/model.schema.json", part_schema(ReferenceKind::model));
    expect_committed("scenarios/cluster.schema.json", part_schema(ReferenceKind::cluster));
    expect_committed("scenarios/profile.schema.json", part_schema(ReferenceKind::profile));
}

TEST(Generated, EveryKeySaysWhatItMeans) {
    const KeyDoc root = record_scenario_keys();
    ASSERT_FALSE(root.children.empty());
    std::vector<const KeyDoc*> open = {&root};
    while (!open.empty()) {
        const KeyDoc* doc = open.back();
        open.pop_back();
        for (const KeyDoc& key : doc->children) {
            EXPECT_FALSE(key.meaning.empty()) << key.name;
            open.push_back(&key);
        }
    }
}

// every_key.yaml, which the reading and writing tests use, must not fall behind the declarations.
TEST(Generated, EveryKeyIsInTheFileThatHoldsEveryKey) {
    const std::string text =
        file_text(fs::path(HEADWAY_SOURCE_DIR) / "tests" / "scenario" / "every_key.yaml");
    const KeyDoc root = record_scenario_keys();
    std::vector<const KeyDoc*> open = {&root};
    while (!open.empty()) {
        const KeyDoc* doc = open.back();
        open.pop_back();
        if (doc->name == "kernels") continue;  // three of eight alike are there
        for (const KeyDoc& key : doc->children) {
            // The file has one kind of skew.
            if (!key.when.empty() && key.name != "exponent") continue;
            EXPECT_NE(text.find(key.name + ':'), std::string::npos) << key.name;
            open.push_back(&key);
        }
    }
}

}  // namespace
}  // namespace headway
