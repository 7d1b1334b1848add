#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "models/scenario/hugging_face_config.hpp"

namespace headway::inline scenario {
namespace {

// Keys that say nothing of a training step's work: positions, tokens, initial values, dropout,
// losses, generation, bookkeeping. Biases and norms are below 0.1 % of any model's parameters.
constexpr std::string_view kOfNoConcern =
    " aux_loss_alpha experts_per_token qkv_bias add_bos_token add_cross_attention "
    "add_swa_attention_sink_bias all2all_overlap architectures "
    "atorch_backend attention_bias attention_dropout attn_temperature_tuning auto_map "
    "bad_words_ids begin_suppress_tokens chunk_size_feed_forward clip_qkv cls_token "
    "cross_attention_hidden_size dispatcher_type diversity_penalty do_sample early_stopping "
    "emb_pdrop embedding_multiplier encoder_no_repeat_ngram_size ep_size "
    "expert_model_parallelism exponential_decay_length_penalty finetuning_task floor_scale "
    "attn_scale forced_bos_token_id group_limited_greedy hidden_dropout id2label ignore_index "
    "init_method initial_context_length initializer_range input_jitter_noise is_decoder "
    "is_scale_gradient attention_multiplier label2id last_logits_l2_alpha length_penalty "
    "lm_head_bias logits_scaling max_length max_model_len max_position_embeddings max_seq_len "
    "merge_w1_v1 min_length mlp_bias model_type moe_impl moe_norm_min mup_enabled "
    "no_repeat_ngram_size norm_head norm_min norm_softmax norm_topk_prob normalization_type "
    "num_beam_groups num_beams num_return_sequences original_max_position_embeddings "
    "output_attentions output_hidden_states output_past output_router_logits "
    "partial_rotary_factor position_embedding_type prefix pretraining_tp problem_type pruned_heads "
    "qk_head_dim qk_layernorm qk_norm_type remove_invalid_values repetition_penalty resid_pdrop "
    "residual_multiplier return_dict return_dict_in_generate rotary_dim rotary_type rotary_pct "
    "route_norm route_scale routed_scaling_factor router_dtype score_func score_function "
    "scoring_func seq_aux seq_length suppress_tokens swiglu_limit swiglu_alpha "
    "task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k "
    "top_p torchscript transformers_version typical_p unsloth_fixed use_bfloat16 use_bias "
    "use_cache "
    "use_flash_attention use_gemma_norm use_grouped_mm use_qk_norm use_qkv_bias use_rmsnorm "
    "use_rotary_pos_emb weight_init moe_drop_tokens moe_random_routing_dropped_token "
    "moe_use_aux_free capacity_factor anyres_vit_max_image_size ";

bool is_of_no_concern(std::string_view key) {
    constexpr std::array<std::string_view, 6> starts = {"rope_",   "_",      "router_",
                                                        "vision_", "image_", "video_"};
    constexpr std::array<std::string_view, 9> ends = {"_token_id", "_token_index", "_token",
                                                      "_dropout",  "_eps",         "_epsilon",
                                                      "_coef",     "_scaling",     "_jitter_noise"};
    return kOfNoConcern.find(fmt::format(" {} ", key)) != std::string_view::npos ||
           std::any_of(starts.begin(), starts.end(),
                       [&](std::string_view s) { return key.starts_with(s); }) ||
           std::any_of(ends.begin(), ends.end(),
                       [&](std::string_view s) { return key.ends_with(s); });
}

const YamlNode* item(const YamlNode& map, std::string_view key) {
    const int index = map.index_of(key);
    if (index < 0) return nullptr;
    const YamlNode& node = map.items[static_cast<std::size_t>(index)];
    return node.kind == YamlNode::Kind::null ? nullptr : &node;
}

const YamlNode* anywhere(const HuggingFaceConfig& config, std::string_view key) {
    const YamlNode* node = config.find(key);
    return node != nullptr ? node : item(config.outer(), key);
}

// A value that turns something off, as most keys that nobody set.
bool is_off(const YamlNode& node) {
    const std::string& value = node.scalar;
    return node.kind == YamlNode::Kind::scalar
               ? value.empty() || value == "0" || value == "0.0" || value == "false"
               : node.items.empty();
}

void note_dtype(const HuggingFaceConfig& config, std::vector<std::string>& notes) {
    for (const std::string_view key : {"torch_dtype", "dtype"}) {
        const YamlNode* node = anywhere(config, key);
        if (node == nullptr || node->scalar == "bfloat16") continue;
        notes.push_back(
            fmt::format("{} {} is of the stored weights; training is in bf16 unless "
                        "'dtype' of the model says otherwise",
                        key, node->scalar));
        break;
    }
    const YamlNode* quantization = anywhere(config, "quantization_config");
    if (quantization == nullptr) return;
    const YamlNode* method = item(*quantization, "quant_method");
    notes.push_back(
        fmt::format("quantization_config{} is of the stored weights; training is in bf16 unless "
                    "'dtype' of the model says otherwise",
                    method == nullptr ? "" : " (quant_method " + method->scalar + ")"));
}

// Layers that predict further tokens stand beside the model's own.
void note_prediction_layers(const HuggingFaceConfig& config, std::vector<std::string>& notes) {
    if (const auto layers = config.integer("num_nextn_predict_layers"); layers.value_or(0) > 0)
        notes.push_back(fmt::format(
            "num_nextn_predict_layers {}: layers of multi-token prediction, counted and trained, "
            "of the last layer's kind; mtp_num_layers: 0 leaves them out",
            *layers));
    for (const std::string_view key :
         {"num_mtp_modules", "num_mtp_layers", "mtp_num_hidden_layers"}) {
        const YamlNode* node = config.find(key);
        if (node == nullptr || node->scalar == "0") continue;
        notes.push_back(fmt::format(
            "{} {}: multi-token prediction layers, neither counted nor priced", key, node->scalar));
        break;
    }
    for (const char* key : {"mtp_transformer_layers", "use_mtp", "mtp_loss_scaling_factor"})
        (void)config.find(key);
}

void note_rest(const HuggingFaceConfig& config, std::vector<std::string>& notes) {
    const bool is_nested = &config.outer() != &config.root();
    std::vector<std::string> parts, unread;
    if (is_nested) {
        for (const char* key : {"vision_config", "audio_config", "vit_config", "talker_config",
                                "code2wav_config", "projector_config"}) {
            if (item(config.outer(), key)) parts.push_back(key);
        }
        notes.push_back(fmt::format(
            "the language model inside is read{}",
            parts.empty()
                ? ""
                : fmt::format(", {} is neither counted nor priced", fmt::join(parts, ", "))));
    }
    for (const std::string& key : config.root().keys) {
        const YamlNode* node = item(config.root(), key);
        if (node != nullptr && !is_off(*node) && !config.asked().contains(key) &&
            !is_of_no_concern(key))
            unread.push_back(key);
    }
    if (!unread.empty()) {
        notes.push_back(fmt::format("keys that headway does not know and leaves out: {}",
                                    fmt::join(unread, ", ")));
    }
    if (!config.defaults().empty()) {
        notes.push_back(fmt::format("missing keys have the value of the family's class: {}",
                                    fmt::join(config.defaults(), ", ")));
    }
}

}  // namespace

std::vector<std::string> hugging_face_notes(const HuggingFaceConfig& config,
                                            const std::string& file) {
    std::vector<std::string> notes;
    note_dtype(config, notes);
    note_prediction_layers(config, notes);
    if (const YamlNode* act = config.find("hidden_act"); act && act->scalar.starts_with("gelu")) {
        notes.push_back("hidden_act " + act->scalar +
                        ": gated GELU is priced as SwiGLU, which has the same matrices");
    }
    note_rest(config, notes);
    for (std::string& note : notes) note = file + ": " + note;
    return notes;
}

}  // namespace headway::inline scenario
