#include "models/workload/stages.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace headway {
namespace {

ModelSpec model_of(int layers) {
    ModelSpec model;
    model.num_layers = layers;
    return model;
}

Parallel pipeline(int p, int v, std::string layout = "") {
    Parallel parallel;
    parallel.pipeline_model_parallel_size = p;
    parallel.virtual_pipeline_model_parallel_size = v;
    parallel.pipeline_model_parallel_layout = std::move(layout);
    return parallel;
}

std::vector<int> layers(const std::vector<PipelineStage>& stages) {
    std::vector<int> result;
    for (const PipelineStage& s : stages) result.push_back(s.num_layers);
    return result;
}

TEST(PipelineStages, LayersSpreadEvenlyWithoutALayout) {
    const auto stages = pipeline_stages(model_of(8), pipeline(2, 2));
    EXPECT_EQ(layers(stages), (std::vector{2, 2, 2, 2}));
    EXPECT_TRUE(stages.front().embedding);
    EXPECT_FALSE(stages.front().head_and_loss);
    EXPECT_TRUE(stages.back().head_and_loss);
    EXPECT_EQ(stages[3].first_layer, 6);
    EXPECT_NE(pipeline_layout_broken(model_of(9), pipeline(2, 2)).find("9 layers"),
              std::string::npos);
}

// DeepSeek-V3's 61 layers on 8 ranks of 4 chunks: Et, 30 stages of two, and loss (Megatron-LM's
// ModelZoo, without its MTP layer).
TEST(PipelineStages, MegatronsLayoutString) {
    const Parallel parallel = pipeline(8, 4, "Et|(tt|)*30L");
    ASSERT_EQ(pipeline_layout_broken(model_of(61), parallel), "");
    const auto stages = pipeline_stages(model_of(61), parallel);
    ASSERT_EQ(stages.size(), 32u);
    EXPECT_EQ(stages[0].num_layers, 1);
    EXPECT_EQ(stages[1].first_layer, 1);
    EXPECT_EQ(stages[30].num_layers, 2);
    EXPECT_EQ(stages[31].num_layers, 0);
    EXPECT_TRUE(stages[31].head_and_loss);
    EXPECT_EQ(layers(pipeline_stages(model_of(4), pipeline(4, 1, "Et*3|,||tL"))),
              (std::vector{3, 0, 0, 1}));
}

// The same with its MTP layer, and the layout of Megatron-LM's documentation with one apart from
// the loss. Without a layout the last stage has it.
TEST(PipelineStages, LayersOfMultiTokenPredictionFollowTheOthers) {
    ModelSpec model = model_of(61);
    model.mtp_num_layers = 1;
    const Parallel parallel = pipeline(8, 4, "Et|(tt|)*30mL"),
                   apart = pipeline(16, 2, "Et*3|(tt|)*29,m|L");
    ASSERT_EQ(pipeline_layout_broken(model, parallel), "");
    const PipelineStage last = pipeline_stages(model, parallel).back();
    EXPECT_EQ(last.first_layer, 61);
    EXPECT_EQ(last.num_layers, 1);
    EXPECT_EQ(last.mtp_layers, 1);
    ASSERT_EQ(pipeline_layout_broken(model, apart), "");
    const auto stages = pipeline_stages(model, apart);
    EXPECT_EQ(stages[30].mtp_layers, 1);
    EXPECT_EQ(stages[31].num_layers, 0);
    EXPECT_EQ(rows_sent(stages)[29], 1);
    EXPECT_EQ(rows_sent(stages)[30], 2);
    model = model_of(8);
    model.mtp_num_layers = 2;
    EXPECT_EQ(layers(pipeline_stages(model, pipeline(2, 2))), (std::vector{2, 2, 2, 4}));
}

TEST(PipelineStages, MegatronsRulesForLayersOfMultiTokenPrediction) {
    ModelSpec model = model_of(4);
    model.mtp_num_layers = 2;
    const auto broken = [&](int p, int v, const std::string& layout) {
        return pipeline_layout_broken(model, pipeline(p, v, layout));
    };
    EXPECT_EQ(broken(2, 1, "Ett|ttmmL"), "");
    EXPECT_EQ(broken(1, 1, "Et*4m*2L"), "");
    EXPECT_NE(broken(2, 1, "Ett|ttmL").find("1 MTP layers m, the model 2"), std::string::npos);
    EXPECT_NE(broken(4, 1, "Ett|tt|m|mL").find("several stages"), std::string::npos);
    EXPECT_NE(broken(2, 1, "Et*4mm|L").find("first rank"), std::string::npos);
    EXPECT_NE(broken(2, 2, "Ett|ttmm||L").find("last chunk"), std::string::npos);
    EXPECT_NE(broken(2, 2, "Ett|tt|mm|L").find("first rank"), std::string::npos);
    EXPECT_NE(broken(3, 1, "Ett|mm|ttL").find("behind"), std::string::npos);
    EXPECT_EQ(broken(3, 1, "Ett|ttmm|L"), "");
    model.tied_embeddings = true;
    EXPECT_NE(broken(3, 1, "Ett|ttmm|L").find("apart from L"), std::string::npos);
}

TEST(PipelineStages, ABrokenLayoutSaysWhatItHas) {
    const auto broken = [](const std::string& layout) {
        return pipeline_layout_broken(model_of(4), pipeline(2, 1, layout));
    };
    EXPECT_EQ(broken("Ett|ttL"), "");
    EXPECT_NE(broken("Ett|tt|L").find("3 stages"), std::string::npos);
    EXPECT_NE(broken("Ett|tL").find("3 decoder layers"), std::string::npos);
    EXPECT_NE(broken("tt|ttL").find("begin with"), std::string::npos);
    EXPECT_NE(broken("Ett|tt").find("end with"), std::string::npos);
    EXPECT_NE(broken("Ett|(ttL").find("unmatched '('"), std::string::npos);
    EXPECT_NE(broken("Ett)|ttL").find("unmatched ')'"), std::string::npos);
    EXPECT_NE(broken("Ex|ttL").find("'x'"), std::string::npos);
    EXPECT_NE(broken("Et*|L").find("no number"), std::string::npos);
    EXPECT_NE(broken("Et*99999999999|L").find("too long"), std::string::npos);
    EXPECT_NE(broken("Ettm|ttL").find("MTP"), std::string::npos);
}

}  // namespace
}  // namespace headway
