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

TEST(HuggingFace, RefusesWhatItDoesNotKnow) {
    EXPECT_NE(refusal(R"({"model_type": "llama"})").find("model_type 'llama' is not supported"),
              std::string::npos);
    EXPECT_NE(refusal("[1, 2]").find("not a Hugging Face config.json"), std::string::npos);
    EXPECT_NE(refusal(R"({"model_type": "olmoe"})").find("missing key 'hidden_size'"),
              std::string::npos);
    // Every other layer sparse: a shape that ModelSpec cannot hold.
    std::string sparse(kQwen3);
    sparse.replace(sparse.find("\"decoder_sparse_step\": 1"), 24, "\"decoder_sparse_step\": 2");
    EXPECT_NE(refusal(sparse).find("'2' for 'decoder_sparse_step' is not supported"),
              std::string::npos);
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
