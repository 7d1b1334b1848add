// Public config.json files (tests/scenario/hugging_face, trimmed to the keys that concern layers):
// each gives the parameter counts of its model, or is refused by the kind of layer that is missing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "models/scenario/hugging_face_families.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/workload/parameters.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;
const fs::path kCorpus = fs::path(HEADWAY_SOURCE_DIR) / "tests" / "scenario" / "hugging_face";

struct Expected {
    double total = 0, active = 0;  // elements; active without the embedding table unless it is tied
    std::string lacks;
    std::string card_total, card_active;  // billions as the model's card says them; empty: not said
};

// expected.csv: name,total,active,lacks,counted by,published total,published active
std::map<std::string, Expected> expected_of_corpus() {
    std::map<std::string, Expected> all;
    std::ifstream stream(kCorpus / "expected.csv");
    std::string line;
    std::getline(stream, line);
    while (std::getline(stream, line)) {
        std::istringstream cells(line);
        std::string name, total, active, lacks, by, card_total, card_active;
        std::getline(cells, name, ',');
        std::getline(cells, total, ',');
        std::getline(cells, active, ',');
        std::getline(cells, lacks, ',');
        std::getline(cells, by, ',');
        std::getline(cells, card_total, ',');
        std::getline(cells, card_active, ',');
        all[name] = {lacks.empty() ? std::stod(total) : 0.0,
                     lacks.empty() ? std::stod(active) : 0.0, lacks, card_total, card_active};
    }
    return all;
}

// One unit of the last digit that a card prints.
double unit_of(const std::string& card) {
    const std::size_t dot = card.find('.');
    return dot == std::string::npos ? 1.0 : std::pow(10.0, -double(card.size() - dot - 1));
}

// Total: within 0.5 %, or as the card rounds. Active: to the card's last digit, with the embedding
// table or without, as cards do both.
void expect_card(const ModelSpec& model, double total, const Expected& expected) {
    const double billion = 1e9;
    if (!expected.card_total.empty()) {
        const double card = std::stod(expected.card_total);
        EXPECT_NEAR(total / billion, card,
                    std::max(0.005 * card, 0.5 * unit_of(expected.card_total)));
    }
    if (!expected.card_active.empty()) {
        const double card = std::stod(expected.card_active);
        const double table = static_cast<double>(model.vocab_size) * model.hidden;
        const double active = active_parameters(model);
        const double nearest = std::min(std::abs(active / billion - card),
                                        std::abs((active + table) / billion - card));
        EXPECT_LE(nearest, unit_of(expected.card_active)) << active;
    }
}

TEST(HuggingFaceCorpus, EveryFileIsReadToItsCountsOrRefusedByItsLayers) {
    const std::map<std::string, Expected> corpus = expected_of_corpus();
    std::size_t files = 0, read = 0, published = 0;
    for (const auto& entry : fs::directory_iterator(kCorpus))
        files += entry.path().extension() == ".json";
    EXPECT_EQ(files, corpus.size());
    for (const auto& [name, expected] : corpus) {
        SCOPED_TRACE(name);
        std::string refusal;
        try {
            ModelSpec model = read_model(kCorpus / (name + ".json"));
            model.mtp_num_layers = 0;  // which transformers leaves out
            const ParameterCount count = count_parameters(model);
            EXPECT_TRUE(expected.lacks.empty()) << "read, but has " << expected.lacks;
            EXPECT_NEAR(count.total() / expected.total, 1.0, 0.005) << count.total();
            EXPECT_NEAR(active_parameters(model) / expected.active, 1.0, 0.005)
                << active_parameters(model);
            expect_card(model, count.total(), expected);
            published += !expected.card_total.empty();
            ++read;
            // What show writes reads back the same.
            const fs::path written = fs::path(testing::TempDir()) / (name + ".yaml");
            std::ofstream(written) << to_yaml(model);
            EXPECT_EQ(to_yaml(read_model(written)), to_yaml(model));
        } catch (const InputError& error) {
            refusal = error.what();
        }
        EXPECT_EQ(refusal.empty(), expected.lacks.empty()) << refusal;
        EXPECT_NE(refusal.find(expected.lacks), std::string::npos) << refusal;
    }
    EXPECT_GE(read, 60u);
    EXPECT_GE(published, 40u);
    EXPECT_GE(corpus.size() - read, 20u);
}

// The checkpoint of DeepSeek-V3 has 684,531,386,000 numbers (the index of its safetensors). They
// are the model, its layer of multi-token prediction with copies of the embedding and the head, and
// a scale for each 128 x 128 of the weights in FP8 (all but embedding, head, router and 2 d to d).
TEST(HuggingFaceCorpus, TheCheckpointOfDeepSeekV3HasOneMtpLayer) {
    ModelSpec model = read_model(kCorpus / "DeepSeek-V3.json");
    EXPECT_EQ(model.mtp_num_layers, 1);
    const ParameterCount all = count_parameters(model);
    model.mtp_num_layers = 0;
    const ParameterCount own = count_parameters(model);
    const double d = 7168, attention = 187.1e6, expert = 3.0 * d * 2048;
    EXPECT_NEAR(all.total() - own.total(), attention + 257 * expert + 256 * d + 2 * d * d, 1e5);
    const double copies = 2.0 * 129280 * d;
    const double in_fp8 = all.attention + all.dense_mlp + all.experts + all.shared_experts;
    EXPECT_NEAR((all.total() + copies + in_fp8 / (128 * 128)) / 684531386000.0, 1.0, 1e-5);
}

// A config of nothing but its type is the class's own model (class_defaults.txt: parameters,
// config).
TEST(HuggingFaceCorpus, ClassDefaultsGiveTheCountsOfTheClass) {
    std::ifstream stream(kCorpus / "class_defaults.txt");
    std::string line;
    int classes = 0;
    std::getline(stream, line);
    while (std::getline(stream, line)) {
        SCOPED_TRACE(line);
        const std::size_t tab = line.find('\t');
        const fs::path file = fs::path(testing::TempDir()) / "class_default.json";
        std::ofstream(file) << line.substr(tab + 1);
        const double total = count_parameters(read_model(file)).total();
        EXPECT_NEAR(total / std::stod(line.substr(0, tab)), 1.0, 0.005) << total;
        ++classes;
    }
    EXPECT_GE(classes, 25);
}

// The table itself: no model_type twice, and a family that is read has a word for every value.
TEST(HuggingFaceCorpus, FamiliesAreWhole) {
    std::map<std::string, int> seen;
    for (const HuggingFaceFamily& family : hugging_face_families()) {
        std::istringstream types{std::string(family.model_types)};
        for (std::string type; types >> type;) {
            EXPECT_EQ(++seen[type], 1) << type;
            EXPECT_EQ(find_hugging_face_family(type), &family);
        }
        EXPECT_EQ(family.lacks.empty(), !family.defaults.empty()) << family.model_types;
    }
    EXPECT_EQ(find_hugging_face_family("moe"), nullptr);
    EXPECT_EQ(value_in("a=1 bb=2", "b"), "");
    EXPECT_EQ(value_in("a=1 bb=2", "bb"), "2");
}

}  // namespace
}  // namespace headway
