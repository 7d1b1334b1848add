// The presets have the published parameter counts. Billions, published with their last digit, so
// that half a unit of it is the tolerance; biases and norm gains, which are not counted, are below.
#include <gtest/gtest.h>

#include "models/scenario/read_scenario.hpp"
#include "models/workload/parameters.hpp"

namespace headway {
namespace {

struct Published {
    const char* preset;
    double total, total_tolerance;
    double active, active_tolerance;
    bool counts_embedding;  // as active
};

// Sources as in the presets. Papers differ on whether the embedding table, which is looked up and
// not multiplied, is active.
constexpr Published kPublished[] = {
    {"mixtral_8x7b", 46.7, 0.05, 12.9, 0.05, true},
    {"deepseek_v3", 671.0, 0.5, 37.0, 0.5, false},
    {"qwen3_30b_a3b", 30.5, 0.05, 3.3, 0.06, true},  // 3.353: the card rounds down
    {"qwen3_235b_a22b", 235.0, 0.5, 22.0, 0.5, true},
    {"olmoe_1b_7b", 6.9, 0.05, 1.3, 0.05, true},
    {"gpt_oss_120b", 116.8, 0.05, 5.1, 0.05, false},
    // arXiv 2602.04870 says about 0.2B and up to 4.2B; the shapes are ours.
    {"paper_base", 4.2, 0.05, 0.2, 0.05, false},
    {"paper_double_granularity", 4.2, 0.05, 0.2, 0.05, false},
};

TEST(PresetParameters, EqualThePublishedCounts) {
    for (const Published& published : kPublished) {
        SCOPED_TRACE(published.preset);
        const ModelSpec model = read_model(find_preset("models", published.preset));
        const ParameterCount count = count_parameters(model);
        const double active =
            active_parameters(model) + (published.counts_embedding ? count.embedding : 0.0);
        EXPECT_NEAR(count.total() * 1e-9, published.total, published.total_tolerance);
        EXPECT_NEAR(active * 1e-9, published.active, published.active_tolerance);
    }
}

TEST(PresetParameters, GranularityKeepsExpertsAndActiveExperts) {
    const ModelSpec base = read_model(find_preset("models", "paper_base"));
    const ModelSpec fine = read_model(find_preset("models", "paper_double_granularity"));
    // E f and k f stay when E and k double and f halves.
    EXPECT_EQ(count_parameters(base).experts, count_parameters(fine).experts);
    EXPECT_EQ(base.moe.top_k * base.moe.expert_width, fine.moe.top_k * fine.moe.expert_width);
}

}  // namespace
}  // namespace headway
