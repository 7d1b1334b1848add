// jobs/: files of public repositories (README.md there), each with the scenario that it must give,
// leftovers included, or the message it is refused with. broken/: files that no job was started
// with, each with its message. Folders in jobs/ hold what jobs take in.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/import/read_job.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_in(const char* folder) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(kImportTests / folder)) {
        if (entry.is_regular_file() && is_job(entry.path())) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
}

void expect_outcome(const fs::path& path) {
    fs::path golden = path;
    golden.replace_extension(".expected");
    const std::string expected = file_text(golden), found = outcome(path);
    if (found == expected) return;
    const fs::path out = fs::path(testing::TempDir()) / "import" / golden.filename();
    fs::create_directories(out.parent_path());
    std::ofstream(out, std::ios::binary) << found;
    EXPECT_EQ(found, expected) << "written to " << out;
}

std::string name_of(const testing::TestParamInfo<fs::path>& info) {
    std::string name = info.param.stem().string();
    std::replace_if(
        name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    return name;
}

class Job : public testing::TestWithParam<fs::path> {};
TEST_P(Job, GivesTheExpectedScenario) {
    expect_outcome(GetParam());
}
INSTANTIATE_TEST_SUITE_P(Public, Job, testing::ValuesIn(files_in("jobs")), name_of);

class Broken : public testing::TestWithParam<fs::path> {};
TEST_P(Broken, IsRefusedWithItsPlace) {
    expect_outcome(GetParam());
    EXPECT_TRUE(outcome(GetParam()).starts_with("refused: "));
}
INSTANTIATE_TEST_SUITE_P(Corpus, Broken, testing::ValuesIn(files_in("broken")), name_of);

TEST(Corpus, IsLarge) {
    EXPECT_GE(files_in("jobs").size(), 12u);
    EXPECT_GE(files_in("broken").size(), 15u);
}

// The same scenario reads again: what is imported is what predict gets.
TEST(Corpus, GivesScenariosThatRead) {
    int read = 0;
    for (const fs::path& path : files_in("jobs")) {
        const std::string text = outcome(path);
        if (text.starts_with("refused: ")) continue;
        EXPECT_NO_THROW(read_scenario_text(text, "import.yaml", kImportTests, {})) << path;
        ++read;
    }
    EXPECT_GE(read, 10);
}

}  // namespace
}  // namespace headway
