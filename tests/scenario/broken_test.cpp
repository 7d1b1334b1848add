// Every file broken/NAME.yaml must be refused with exactly the message in broken/NAME.expected. The
// presets that they use lie beside them, so that the messages do not depend on those shipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "models/scenario/read_scenario.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;
const fs::path kBroken = fs::path(HEADWAY_SOURCE_DIR) / "tests" / "scenario" / "broken";

std::string file_text(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// Messages name files as the user wrote them; here relative to the folder of the corpus.
std::string without_folder(std::string text) {
    const std::string folder = kBroken.lexically_normal().string() + '/';
    for (std::size_t at = text.find(folder); at != std::string::npos; at = text.find(folder)) {
        text.erase(at, folder.size());
    }
    return text;
}

std::vector<fs::path> broken_files() {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(kBroken)) {
        if (entry.path().extension() == ".yaml") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
}

class Broken : public testing::TestWithParam<fs::path> {};

TEST_P(Broken, IsRefusedWithTheExpectedMessage) {
    const fs::path path = GetParam();
    const std::string expected = file_text(fs::path(path).replace_extension(".expected"));
    try {
        read_scenario(path, ReadOptions{});
        FAIL() << path.filename() << " was read";
    } catch (const InputError& error) {
        const std::string message = without_folder(error.what()) + '\n';
        if (message == expected) return;
        const fs::path out = fs::path(testing::TempDir()) / "broken" /
                             path.filename().replace_extension(".expected");
        fs::create_directories(out.parent_path());
        std::ofstream(out, std::ios::binary) << message;
        EXPECT_EQ(message, expected) << "written to " << out;
    }
}

TEST(MissingFile, IsNamedWhole) {
    const std::string path = "/nowhere/" + std::string(200, 'x') + "/mine.yaml";
    try {
        read_scenario(path, ReadOptions{});
        FAIL() << path << " was read";
    } catch (const InputError& error) {
        EXPECT_NE(std::string(error.what()).find("'" + path + "'"), std::string::npos)
            << error.what();
    }
}

INSTANTIATE_TEST_SUITE_P(Corpus, Broken, testing::ValuesIn(broken_files()),
                         [](const auto& param_info) { return param_info.param.stem().string(); });

TEST(BrokenCorpus, IsLarge) {
    EXPECT_GE(broken_files().size(), 35u);
}

}  // namespace
}  // namespace headway
