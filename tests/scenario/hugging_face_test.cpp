// A Hugging Face config.json gives the model that the preset of the same name holds.
#include "models/scenario/hugging_face.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "models/scenario/read_scenario.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;

// What the published config.json files say about shapes; other keys are left out, some kept to show
// that they do not disturb.
constexpr const char* kMixtral =
    R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
 "attention_dropout": 0.0, "bos_token_id": 1, "hidden_act": "silu", "hidden_size": 4096,
 "intermediate_size": 14336, "num_attention_heads": 32, "num_experts_per_tok": 2,
 "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "rope_theta": 1e6,
 "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
 "vocab_size": 32000})";
constexpr const char* kDeepseekV3 = R"({"model_type": "deepseek_v3", "first_k_dense_replace": 3,
 "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
 "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
 "n_shared_experts": 1, "num_attention_heads": 128, "num_experts_per_tok": 8,
 "num_hidden_layers": 61, "num_key_value_heads": 128, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
 "qk_rope_head_dim": 64, "topk_group": 4, "topk_method": "noaux_tc", "tie_word_embeddings": false,
 "quantization_config": {"quant_method": "fp8"}, "torch_dtype": "bfloat16", "v_head_dim": 128,
 "vocab_size": 129280})";
constexpr const char* kQwen3 =
    R"({"model_type": "qwen3_moe", "decoder_sparse_step": 1, "head_dim": 128,
 "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144, "mlp_only_layers": [],
 "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128,
 "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
 "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
 "use_sliding_window": false, "vocab_size": 151936})";
constexpr const char* kOlmoe = R"({"model_type": "olmoe", "hidden_act": "silu", "hidden_size": 2048,
 "intermediate_size": 1024, "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
 "num_hidden_layers": 16, "num_key_value_heads": 16, "tie_word_embeddings": false,
 "torch_dtype": "bfloat16", "vocab_size": 50304})";
constexpr const char* kGptOss = R"({"model_type": "gpt_oss", "head_dim": 64, "hidden_act": "silu",
 "hidden_size": 2880, "intermediate_size": 2880, "num_attention_heads": 64,
 "num_experts_per_tok": 4, "num_hidden_layers": 36, "num_key_value_heads": 8,
 "num_local_experts": 128, "sliding_window": 128, "tie_word_embeddings": false,
 "vocab_size": 201088})";

fs::path config_file(const std::string& name, const std::string& text) {
    const fs::path folder =
        fs::path(testing::TempDir()) / ("headway_hf_" + std::to_string(::getpid())) / name;
    fs::create_directories(folder);
    std::ofstream(folder / "config.json") << text;
    return folder / "config.json";
}

std::string refusal(const std::string& text) {
    try {
        read_model(config_file("refused", text));
    } catch (const InputError& error) {
        return error.what();
    }
    return "read";
}

TEST(HuggingFace, ConfigsEqualThePresets) {
    const std::pair<const char*, const char*> cases[] = {{"mixtral_8x7b", kMixtral},
                                                         {"deepseek_v3", kDeepseekV3},
                                                         {"qwen3_30b_a3b", kQwen3},
                                                         {"olmoe_1b_7b", kOlmoe},
                                                         {"gpt_oss_120b", kGptOss}};
    for (const auto& [name, text] : cases) {
        ModelSpec model = read_model(config_file(name, text));
        ModelSpec preset = read_model(find_preset("models", name));
        EXPECT_EQ(model.name, name);  // the folder names the model
        model.source = preset.source = "x";
        // Unused by a model without dense or shared layers.
        preset.dense_width = model.dense_width;
        preset.moe.shared_expert_width = model.moe.shared_expert_width;
        EXPECT_EQ(to_yaml(model), to_yaml(preset)) << name;
    }
}

TEST(HuggingFace, AScenarioMayNameAConfig) {
    const fs::path config = config_file("mixtral", kMixtral);
    const Scenario scenario =
        read_scenario_text("model: " + config.string() +
                               "\ncluster: {preset: dgx_h100}\nbatch: {sequence_length: 4096}\n"
                               "plans: [{name: ep, expert_parallel: {}, group_size: 8}]\n",
                           "s.yaml", "");
    EXPECT_EQ(scenario.model.moe.expert_width, 14336);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
}

ModelSpec model_of(const std::string& text, std::vector<std::string>* notes = nullptr) {
    return read_model(config_file("model", text), {builtin_preset_dirs()}, notes);
}

std::string notes_of(const std::string& text) {
    std::vector<std::string> notes;
    model_of(text, &notes);
    std::string all;
    for (const std::string& note : notes) all += note + "\n";
    return all;
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(HuggingFace, RefusesWhatItDoesNotKnow) {
    EXPECT_HAS(refusal(R"({"model_type": "llama"})"),
               "config.json:1:16: model_type 'llama' is not supported: a dense model");
    EXPECT_HAS(refusal(R"({"model_type": "new_moe", "num_experts": 4})"),
               "model_type 'new_moe' is not supported; accepted: one of: mixtral, phimoe,");
    EXPECT_HAS(refusal(R"({"hidden_size": 4})"), "not a Hugging Face config.json");
    EXPECT_HAS(refusal(R"({"model_type": "qwen3_next", "num_experts": 512})"),
               "the model has linear attention (gated delta net), which headway does not model");
    EXPECT_HAS(refusal(R"({"model_type": "deepseek"})"), "missing key 'n_routed_experts'");
}

// Each is one message that says what the file is.
TEST(HuggingFace, RefusesOtherFilesOfAModelsFolder) {
    EXPECT_HAS(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 7\n"),
               "a pointer of Git LFS");
    EXPECT_HAS(refusal("<!doctype html>\n<html></html>\n"), "a web page");
    EXPECT_HAS(refusal(R"({"model_type": "olmoe", "hidden_size": 20)"), "that breaks off");
    EXPECT_HAS(refusal(""), "an empty file");
    EXPECT_HAS(refusal("[1, 2]"), "no JSON object");
    EXPECT_HAS(refusal(R"({"tokenizer_class": "T", "model_max_length": 4})"),
               "a tokenizer's config");
    EXPECT_HAS(refusal(R"({"metadata": {"total_size": 4}, "weight_map": {}})"),
               "the index of a checkpoint's files");
    EXPECT_HAS(refusal(R"({"peft_type": "LORA", "r": 4})"), "an adapter");
}

TEST(HuggingFace, MissingKeysHaveTheClassDefault) {
    const std::string text = R"({"model_type": "olmoe", "intermediate_size": 1024})";
    const ModelSpec model = model_of(text);
    EXPECT_EQ(model.hidden, 2048);
    EXPECT_EQ(model.attention.num_kv_heads, model.attention.num_heads);
    EXPECT_HAS(notes_of(text),
               "missing keys have the value of the family's class: vocab_size 50304");
}

// Every n-th layer from the first has experts; n = 2 of 48 layers: 24 of each kind.
TEST(HuggingFace, MoeLayersMayAlternateWithDenseOnes) {
    const ModelSpec model =
        model_of(replaced(kQwen3, "\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": 2"));
    EXPECT_EQ(model.moe_every, 2);
    EXPECT_EQ(model.num_moe_layers(), 24);
    EXPECT_EQ(model.dense_width, 6144);
    EXPECT_FALSE(model.is_moe_layer(0));
    EXPECT_EQ(model.moe_layer(0), 1);
    EXPECT_EQ(model.moe_layer(23), 47);
    const ModelSpec first =
        model_of(replaced(kQwen3, "\"mlp_only_layers\": []", "\"mlp_only_layers\": [0, 1]"));
    EXPECT_EQ(first.num_dense_layers, 2);
    EXPECT_HAS(refusal(replaced(kQwen3, "\"mlp_only_layers\": []", "\"mlp_only_layers\": [5]")),
               "MoE layers in no regular order");
}

TEST(HuggingFace, WindowsByLayer) {
    const std::string types = R"(, "layer_types": ["sliding_attention", "sliding_attention",
        "full_attention", "sliding_attention"], "num_hidden_layers": 4})";
    const std::string short_model = replaced(kGptOss, "\"num_hidden_layers\": 36, ", "");
    const ModelSpec model = model_of(replaced(short_model, "201088}", "201088" + types));
    EXPECT_EQ(model.attention.full_every, 3);
    EXPECT_FALSE(model.attention.has_window(2));
    EXPECT_TRUE(model.attention.has_window(3));
    EXPECT_HAS(
        refusal(replaced(short_model, "201088}",
                         "201088" + replaced(types, "\"full_attention", "\"linear_attention"))),
        "layers of type 'linear_attention'");
}

TEST(HuggingFace, TheTypeOfStoredWeightsIsNotTheTrainingType) {
    for (const char* type : {"float32", "float16", "float8_e4m3fn"}) {
        const std::string text = replaced(kMixtral, "\"torch_dtype\": \"bfloat16\"",
                                          "\"torch_dtype\": \"" + std::string(type) + "\"");
        EXPECT_EQ(model_of(text).dtype, Dtype::bf16);
        EXPECT_HAS(notes_of(text),
                   "torch_dtype " + std::string(type) + " is of the stored weights");
    }
    EXPECT_EQ(notes_of(kMixtral), "");
    EXPECT_HAS(notes_of(kDeepseekV3), "quantization_config (quant_method fp8)");
}

TEST(HuggingFace, WhatIsLeftOutIsNamed) {
    EXPECT_HAS(notes_of(replaced(kMixtral, "\"rope_theta\": 1e6", "\"expert_skip\": 2")),
               "keys that headway does not know and leaves out: expert_skip");
    EXPECT_HAS(notes_of(replaced(kDeepseekV3, "\"v_head_dim\": 128",
                                 "\"v_head_dim\": 128, \"num_mtp_modules\": 1")),
               "num_mtp_modules 1: multi-token prediction layers, neither counted");
}

TEST(HuggingFace, LayersThatPredictFurtherTokensAreRead) {
    const std::string text = replaced(kDeepseekV3, "\"v_head_dim\": 128",
                                      "\"v_head_dim\": 128, \"num_nextn_predict_layers\": 1");
    EXPECT_EQ(model_of(text).mtp_num_layers, 1);
    EXPECT_HAS(notes_of(text), "num_nextn_predict_layers 1: layers of multi-token prediction");
    EXPECT_EQ(model_of(kDeepseekV3).mtp_num_layers, 0);
}

TEST(HuggingFace, TheLanguageModelMayBeAMapInTheFile) {
    const std::string text = R"({"model_type": "some_vl", "vision_config": {"hidden_size": 7},
        "text_config": )" + std::string(kQwen3) +
                             "}";
    EXPECT_EQ(model_of(text).moe.num_experts, 128);
    EXPECT_HAS(notes_of(text), "vision_config is neither counted nor priced");
}

TEST(HuggingFace, AFolderAndOverridesBesideAConfig) {
    const fs::path folder = config_file("beside", kMixtral).parent_path();
    const auto model_in = [&](const std::string& model) {
        return read_scenario_text(
                   "model: " + model +
                       "\ncluster: {preset: dgx_h100}\nbatch: {sequence_length: 4096}\n"
                       "plans: [{name: ep, expert_parallel: {}, group_size: 8}]\n",
                   "s.yaml", "")
            .model;
    };
    EXPECT_EQ(model_in(folder.string()).num_layers, 32);
    const ModelSpec changed = model_in("{preset: " + folder.string() +
                                       "/config.json, num_layers: 4, dtype: fp8, moe: {top_k: 1}}");
    EXPECT_EQ(changed.num_layers, 4);
    EXPECT_EQ(changed.moe.top_k, 1);
    EXPECT_EQ(changed.moe.num_experts, 8);
    EXPECT_EQ(changed.dtype, Dtype::fp8);
}

TEST(HuggingFace, OutOfRangeValuesPointIntoTheConfig) {
    std::string text(kOlmoe);
    text.replace(text.find("\"num_experts\": 64"), 17, "\n\"num_experts\": -1");
    EXPECT_NE(refusal(text).find("config.json:3:16: '-1' is out of range for 'num_experts'"),
              std::string::npos)
        << refusal(text);
}

}  // namespace
}  // namespace headway
