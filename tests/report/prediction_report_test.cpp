#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "models/report/prediction_json.hpp"
#include "models/report/prediction_table.hpp"
#include "models/report/step_order.hpp"
#include "tests/report/sample.hpp"

namespace headway {
namespace {

using Json = nlohmann::json;

std::vector<std::string> keys(const Json& object) {
    std::vector<std::string> result;
    for (const auto& [key, value] : object.items()) result.push_back(key);
    return result;
}

void expect_keys(const Json& object, const std::vector<std::string>& names) {
    for (const std::string& key : names) EXPECT_TRUE(object.contains(key)) << key;
}

TEST(PredictionJson, HasTheDocumentedKeys) {
    const Json json = Json::parse(prediction_to_json(sample_prediction()));
    expect_keys(json,
                {"scenario", "model", "cluster", "device", "profile", "seed", "version", "plans",
                 "num_ranks", "sequence_length", "global_batch_sequences", "tokens_per_step"});
    ASSERT_EQ(json["plans"].size(), 2u);
    const Json& plan = json["plans"][1];
    expect_keys(plan, {"name",
                       "layer",
                       "feasible",
                       "step_time_s",
                       "step_time_interval_s",
                       "tokens_per_s_per_gpu",
                       "model_tflops_per_gpu",
                       "speedup_vs_baseline",
                       "tokens_per_s",
                       "tokens_per_day",
                       "gpu_hours_per_1e12_tokens",
                       "mfu",
                       "parameters",
                       "active_parameters",
                       "undecided",
                       "moe_layer",
                       "phases",
                       "traffic",
                       "memory",
                       "warnings"});
    EXPECT_EQ(plan["layer"], "head_parallel");
    EXPECT_EQ(json["plans"][0]["layer"], "expert_parallel");
    expect_keys(plan["moe_layer"], {"forward_s", "backward_s"});
    expect_keys(plan["phases"][0], {"phase", "pass", "time_s", "bytes_per_rank_max",
                                    "flops_per_rank_max", "bottleneck"});
    expect_keys(plan["traffic"],
                {"sent_bytes_per_rank_mean", "sent_bytes_per_rank_max", "by_link"});
    expect_keys(plan["memory"], {"peak_bytes", "items", "allocated_bytes", "reserve_bytes"});
}

// Stages of a pipeline, of which the second needs more: in JSON all of them, in the table states,
// activations and the rest.
TEST(PredictionJson, StagesOfAPipelineAreThere) {
    Prediction prediction = sample_prediction();
    PlanMemory& memory = prediction.plans[1].memory;
    EXPECT_FALSE(
        Json::parse(prediction_to_json(prediction))["plans"][1]["memory"].contains("stage"));
    memory.stage = 1;
    memory.stages = {{.peak = 30.0 * GiB, .allocated = 28.0 * GiB, .items = {}},
                     {.peak = 40.0 * GiB,
                      .allocated = 38.0 * GiB,
                      .items = {{"parameters", 10.0 * GiB},
                                {"optimizer states", 5.0 * GiB},
                                {"activations: MoE", 20.0 * GiB},
                                {"logits", 3.0 * GiB},
                                {"reserve: context", 2.0 * GiB}}}};
    const Json json = Json::parse(prediction_to_json(prediction))["plans"][1]["memory"];
    EXPECT_EQ(json["stage"], 1);
    ASSERT_EQ(json["stages"].size(), 2u);
    EXPECT_DOUBLE_EQ(json["stages"][1]["items"]["logits"].get<double>(), 3.0 * 1073741824.0);
    const std::string table = prediction_to_table(prediction, Detail::verbose);
    const std::size_t row = table.find("  1 worst");
    ASSERT_NE(row, std::string::npos);
    const std::string line = table.substr(row, table.find('\n', row) - row);
    for (const std::string cell : {"15.0 GiB", "20.0 GiB", "3.00 GiB", "2.00 GiB", "40.0 GiB"})
        EXPECT_NE(line.find(cell), std::string::npos) << line;
}

TEST(PredictionJson, NumbersAreInTheUnitsOfTheirKeys) {
    const Json plan = Json::parse(prediction_to_json(sample_prediction()))["plans"][1];
    EXPECT_DOUBLE_EQ(plan["step_time_s"].get<double>(), 0.050);
    EXPECT_DOUBLE_EQ(plan["step_time_interval_s"][1].get<double>(), 0.055);
    EXPECT_DOUBLE_EQ(plan["tokens_per_s_per_gpu"].get<double>(), 4096.0 / 0.050);
    EXPECT_DOUBLE_EQ(plan["model_tflops_per_gpu"].get<double>(), 200.0);
    EXPECT_DOUBLE_EQ(plan["memory"]["peak_bytes"].get<double>(), 40.0 * 1073741824.0);
    EXPECT_EQ(keys(plan["traffic"]["by_link"]), std::vector<std::string>{"nvlink"});
}

TEST(PredictionJson, NamesThatAreNotUtf8DoNotThrow) {
    Prediction prediction = sample_prediction();
    prediction.scenario = "\xff";
    EXPECT_TRUE(Json::parse(prediction_to_json(prediction)).is_object());
}

TEST(StepOrder, ShowsEachPhaseOnceInOrderOfTheLayersAndPassesInTurn) {
    PlanPrediction a, b;
    a.phases = {{.phase = Phase::optimizer, .pass = Pass::update},
                {.phase = Phase::expert},
                {.phase = Phase::dispatch},
                {.phase = Phase::route}};
    b.phases = {{.phase = Phase::expert, .pass = Pass::backward},
                {.phase = Phase::head_gather},
                {.phase = Phase::route},
                {.phase = Phase::head_scatter}};
    const std::vector<PhaseKey> expected = {
        {Pass::forward, Phase::head_scatter}, {Pass::forward, Phase::route},
        {Pass::forward, Phase::dispatch},     {Pass::forward, Phase::expert},
        {Pass::forward, Phase::head_gather},  {Pass::backward, Phase::expert},
        {Pass::update, Phase::optimizer}};
    EXPECT_EQ(step_order({a, b}), expected);
}

TEST(PredictionTable, FitsAHundredColumns) {
    Prediction prediction = sample_prediction();
    for (int i = 0; i < 9; ++i) {
        prediction.plans.push_back(
            sample_plan("a plan with a very long name that goes on", 1234.5, Phase::dispatch));
    }
    for (const Detail detail : {Detail::brief, Detail::verbose}) {
        std::istringstream lines(prediction_to_table(prediction, detail));
        for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
    }
}

// Cut in the middle, where 24 characters do not fit: the last of them tell the names apart. Names
// that are still alike get their number.
TEST(PredictionTable, PlansDoNotReadAlike) {
    Prediction prediction = sample_prediction();
    for (const char* last : {"v0", "v1"}) {
        prediction.plans.push_back(sample_plan(
            (std::string("ep_dedup_rank_group_8_") + last).c_str(), 50.0, Phase::dispatch));
        prediction.plans.push_back(
            sample_plan((std::string("hp_heads_") + last + "_of_sixteen_ranks").c_str(), 50.0,
                        Phase::dispatch));
    }
    const std::string text = prediction_to_table(prediction, Detail::brief);
    for (const char* label : {"ep_dedup_r~roup_8_v0", "ep_dedup_r~roup_8_v1", "~4", "~6"})
        EXPECT_NE(text.find(label), std::string::npos) << label << '\n' << text;
}

TEST(PredictionTable, SaysWhatIsUndecided) {
    Prediction prediction = sample_prediction();
    EXPECT_EQ(prediction_to_table(prediction, Detail::brief).find("undecided"), std::string::npos);
    prediction.plans[1].undecided = true;
    EXPECT_NE(prediction_to_table(prediction, Detail::brief)
                  .find("undecided against ep, the difference is within the noise: hp\n"),
              std::string::npos);
}

TEST(PredictionTable, ShowsPlansSideBySideAndSumsSmallPhases) {
    Prediction prediction = sample_prediction();
    for (PlanPrediction& plan : prediction.plans) {
        plan.phases.push_back({.phase = Phase::norm, .pass = Pass::forward, .time = 0.1 * ms});
    }
    const std::string brief = prediction_to_table(prediction, Detail::brief);
    EXPECT_NE(brief.find("  head_scatter                  -  25.0 ms\n"), std::string::npos)
        << brief;
    EXPECT_NE(brief.find("  others                   100 us   100 us\n"), std::string::npos)
        << brief;
    EXPECT_EQ(brief.find("norm"), std::string::npos);
    EXPECT_NE(brief.find("warnings: 0, notes: 1 (--verbose shows them)"), std::string::npos);
    const std::string verbose = prediction_to_table(prediction, Detail::verbose);
    EXPECT_NE(verbose.find("norm"), std::string::npos);
    EXPECT_NE(verbose.find("note: HP twin: H * d_h = d"), std::string::npos);
}

TEST(PredictionTable, SaysWhyAPlanIsInfeasible) {
    Prediction prediction = sample_prediction();
    prediction.plans[0].feasible = false;
    prediction.plans[0].infeasible_because = "parameters need 90 GiB of 80 GiB";
    EXPECT_NE(prediction_to_table(prediction, Detail::brief)
                  .find("infeasible: ep: parameters need 90 GiB of 80 GiB"),
              std::string::npos);
}

}  // namespace
}  // namespace headway
