// Every file under scenarios/ reads, and what is written of it reads back to the same value: with
// R = read and W = write, W(R(W(R(file)))) = W(R(file)), no preset or default left to look up.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "models/scenario/read_scenario.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;
const fs::path kScenarios = fs::path(HEADWAY_SOURCE_DIR) / "scenarios";

std::vector<fs::path> yaml_files(const fs::path& folder) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder)) {
        if (entry.path().extension() == ".yaml") files.push_back(entry.path());
    }
    return files;
}

// Writes `text` to a file of its own folder, so that nothing near it can be found.
fs::path alone(const std::string& text) {
    const fs::path folder = fs::path(testing::TempDir()) / "headway_round_trip";
    fs::create_directories(folder);
    const fs::path path = folder / (std::to_string(::getpid()) + ".yaml");
    std::ofstream(path) << text;
    return path;
}

const ReadOptions kNoPresets = {};

TEST(Shipped, ScenariosReadBack) {
    const std::vector<fs::path> files = yaml_files(kScenarios);
    ASSERT_FALSE(files.empty());
    for (const fs::path& file : files) {
        SCOPED_TRACE(file.string());
        const Scenario first = read_scenario(file);
        const std::string text = to_yaml(first);
        Scenario second = read_scenario(alone(text), kNoPresets);
        EXPECT_EQ(second.name, first.name);
        EXPECT_TRUE(second.notes.empty());  // nothing was left to assume
        second.notes = first.notes;
        EXPECT_EQ(to_yaml(second), text);
    }
}

TEST(Shipped, ModelsReadBack) {
    for (const fs::path& file : yaml_files(kScenarios / "models")) {
        SCOPED_TRACE(file.string());
        const ModelSpec model = read_model(file);
        EXPECT_EQ(model.name, file.stem());
        EXPECT_FALSE(model.source.empty());
        EXPECT_EQ(to_yaml(read_model(alone(to_yaml(model)), kNoPresets)), to_yaml(model));
    }
}

TEST(Shipped, ClustersReadBack) {
    for (const fs::path& file : yaml_files(kScenarios / "clusters")) {
        SCOPED_TRACE(file.string());
        const Cluster cluster = read_cluster(file);
        EXPECT_EQ(cluster.name, file.stem());
        EXPECT_FALSE(cluster.source.empty());
        EXPECT_EQ(to_yaml(read_cluster(alone(to_yaml(cluster)), kNoPresets)), to_yaml(cluster));
    }
}

// What PyTorch reports of the devices (its out-of-memory messages), in GiB: below the decimal GB of
// the datasheets, above them as GiB.
TEST(Shipped, CapacitiesAreWhatPyTorchReports) {
    const std::map<std::string, double> reported = {
        {"dgx_b200", 178.35}, {"gb200_nvl72", 184.31}, {"dgx_h200", 139.8}, {"dgx_h100", 79.1},
        {"dgx_a100", 79.1},   {"8x_l40s_pcie", 44.4},  {"mi300x", 191.98},  {"mi355x", 287.98}};
    for (const auto& [name, capacity] : reported) {
        const Cluster cluster = read_cluster(kScenarios / "clusters" / (name + ".yaml"));
        EXPECT_NEAR(cluster.device.memory.in(GiB), capacity, 0.005 * capacity) << name;
    }
}

TEST(Shipped, ProfilesReadBack) {
    const std::vector<fs::path> files = yaml_files(kScenarios / "profiles");
    ASSERT_FALSE(files.empty());
    for (const fs::path& file : files) {
        SCOPED_TRACE(file.string());
        const Profile profile = read_profile(file);
        EXPECT_EQ(profile.name, file.stem());
        EXPECT_EQ(to_yaml(read_profile(alone(to_yaml(profile)), kNoPresets)), to_yaml(profile));
    }
}

}  // namespace
}  // namespace headway
