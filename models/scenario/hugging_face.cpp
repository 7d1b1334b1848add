#include "models/scenario/hugging_face.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>

#include "models/scenario/hugging_face_config.hpp"
#include "models/scenario/layer_rules.hpp"
#include "models/scenario/quantity_text.hpp"

namespace headway::inline scenario {
namespace {

using Config = HuggingFaceConfig;
constexpr std::int64_t kMaxLayers = 10000;

void add_number(const Config& config, YamlNode& map, std::string key, std::int64_t value) {
    add(map, std::move(key), scalar_node(fmt::format("{}", value), config.at()));
}

void add_flag(const Config& config, YamlNode& map, std::string key, bool value) {
    add(map, std::move(key), scalar_node(value ? "true" : "false", config.at()));
}

// ---- Which layers have a window, and which are MoE: a flag a layer, then the rule that gives
// them.

// The window of each layer by the config's lists and periods; empty: no layer has one.
std::vector<bool> windowed_layers(const Config& config, int layers) {
    std::vector<bool> windowed;
    const std::vector<std::string> types = config.texts("layer_types");
    if (!types.empty()) {
        for (const std::string& type : types) {
            const bool window = type == "sliding_attention" || type == "chunked_attention";
            if (!window && type != "full_attention" && type != "attention") {
                config.refuse_layer(config.find("layer_types"),
                                    "layers of type " + in_quotes(type));
                return {};
            }
            windowed.push_back(window);
        }
        // Checkpoints cut down by hand keep the longer list.
        windowed.resize(static_cast<std::size_t>(layers), windowed.back());
        return windowed;
    }
    const std::vector<std::int64_t> rope = config.integers("no_rope_layers");  // 0: sees all
    const std::int64_t from = config.integer("max_window_layers").value_or(0);
    std::int64_t full_every = config.integer("global_attn_every_n_layers").value_or(0);
    const std::string pattern = config.text("sliding_window_pattern");  // 4, or "LLLG"
    if (const auto n = parse_integer(pattern)) full_every = *n;
    if (pattern.find_first_not_of('L') + 1 == pattern.size() && !pattern.empty())
        full_every = static_cast<std::int64_t>(pattern.size());
    if (const auto n = config.integer("no_rope_layer_interval")) full_every = *n;
    const bool alternates = config.text("window_every") == "2";
    for (int i = 0; i < layers; ++i) {
        const auto k = static_cast<std::size_t>(i);
        const bool sees_all = k < rope.size()  ? rope[k] == 0
                              : full_every > 0 ? (i + 1) % full_every == 0
                                               : alternates && i % 2 == 1;
        windowed.push_back(i >= from && !sees_all);
    }
    return windowed;
}

void add_window(const Config& config, YamlNode& attention, int layers) {
    const bool has_flag = !config.text("use_sliding_window").empty();
    const bool is_off = has_flag && !config.is_true("use_sliding_window");
    const bool is_chunked = config.family().model_types.starts_with("llama4");
    const std::string_view key = is_chunked ? "attention_chunk_size" : "sliding_window";
    const std::int64_t window = config.integer(key).value_or(0);
    const std::vector<bool> windowed = windowed_layers(config, layers);
    const bool is_somewhere = std::find(windowed.begin(), windowed.end(), true) != windowed.end();
    if (is_off || window <= 0 || !is_somewhere) return;
    const std::optional<WindowRule> rule = window_rule(windowed);
    if (!rule) {
        config.refuse_layer(config.find("layer_types"),
                            "sliding windows on layers in no regular order");
        return;
    }
    config.copy(attention, "window", key);
    if (is_chunked) add(attention, "window_kind", scalar_node("chunked", config.at()));
    if (!rule->key.empty()) add_number(config, attention, std::string(rule->key), rule->every);
}

std::vector<bool> moe_layers(const Config& config, int layers) {
    const auto number = [&](std::string_view key, std::int64_t otherwise) {
        return config.integer(key).value_or(otherwise);
    };
    const std::vector<std::string> kinds = config.texts("mlp_layer_types");
    std::vector<std::int64_t> flags = config.integers("moe_layer_freq");
    if (flags.empty()) flags = config.integers("is_moe_layer");
    const std::vector<std::int64_t> listed = config.integers("moe_layers"),
                                    dense = config.integers("mlp_only_layers");
    const std::int64_t first =
        std::max(number(config.key_of("dense_layers", "first_k_dense_replace"), 0),
                 number("moe_layer_start_index", 0));
    const std::int64_t end = number("moe_layer_end_index", -1);
    const std::int64_t last = end < 0 ? layers - 1 : end;
    // Every n-th layer: deepseek counts from layer 0, the others from 1.
    const std::int64_t from_zero = flags.empty() ? number("moe_layer_freq", 1) : 1;
    const std::int64_t from_one =
        std::max({number("decoder_sparse_step", 1), number("interleave_moe_layer_step", 1),
                  number("moe_layer_interval", 1), number("moe_layer_frequency", 1)});
    const auto holds = [](const auto& list, auto value) {
        return std::find(list.begin(), list.end(), value) != list.end();
    };
    std::vector<bool> is_moe;
    for (std::int64_t i = 0; i < layers; ++i) {
        const auto k = static_cast<std::size_t>(i);
        if (k < kinds.size()) {
            is_moe.push_back(kinds[k] == "sparse");
        } else if (k < flags.size()) {
            is_moe.push_back(flags[k] == 1);
        } else if (!listed.empty()) {
            is_moe.push_back(holds(listed, i));
        } else {
            is_moe.push_back(i >= first && i <= last && !holds(dense, i) && from_one > 0 &&
                             (i + 1) % from_one == 0 && from_zero > 0 && i % from_zero == 0);
        }
    }
    return is_moe;
}

void add_layers(const Config& config, YamlNode& model) {
    const std::string_view key = config.key_of("layers", "num_hidden_layers");
    config.copy(model, "num_layers", key);
    const std::int64_t layers = config.integer(key).value_or(0);
    if (layers < 1 || layers > kMaxLayers) return;  // the reader says what is accepted
    const std::vector<bool> is_moe = moe_layers(config, static_cast<int>(layers));
    const auto rule = moe_rule(is_moe);
    if (!rule) {
        config.refuse_layer(nullptr, "MoE layers in no regular order, or none");
        return;
    }
    add_number(config, model, "num_dense_layers", (*rule)[0]);
    add_number(config, model, "moe_every", (*rule)[1]);
    if (config.integer("num_nextn_predict_layers").value_or(0) > 0)
        config.copy(model, "mtp_num_layers", "num_nextn_predict_layers");
    // Asked for without need too: a width of no layer is nothing that was left out.
    const std::string_view usual =
        config.find("dense_intermediate_size") ? "dense_intermediate_size" : "intermediate_size";
    const std::string_view width = config.key_of("dense_width", usual);
    (void)config.find(width);
    const bool has_dense = std::find(is_moe.begin(), is_moe.end(), false) != is_moe.end();
    if (has_dense) config.copy(model, "dense_width", width);
}

// ---- Attention and experts

YamlNode latent_attention(const Config& config) {
    YamlNode latent = map_node(config.at());
    const bool is_null = config.find("q_lora_rank") == nullptr &&
                         config.root().index_of("q_lora_rank") >= 0;  // queries are direct
    if (is_null)
        add_number(config, latent, "query_rank", 0);
    else
        config.copy(latent, "query_rank", "q_lora_rank");
    config.copy(latent, "kv_rank", "kv_lora_rank");
    config.copy(latent, "nope_width", "qk_nope_head_dim");
    config.copy(latent, "rope_width", "qk_rope_head_dim");
    config.copy(latent, "value_width", "v_head_dim");
    return latent;
}

YamlNode attention(const Config& config) {
    YamlNode map = map_node(config.at());
    const std::string_view heads_key = config.key_of("heads", "num_attention_heads"),
                           kv_key = config.key_of("kv_heads", "num_key_value_heads");
    config.copy(map, "num_heads", heads_key);
    const std::string kv = config.text(kv_key);
    const bool is_latent = config.is_true("latent") || config.find("kv_lora_rank") != nullptr;
    // No number, or 0, of key and value heads means one for each query head.
    if (kv.empty() || kv == "0" || is_latent)
        add(map, "num_kv_heads", scalar_node(config.text(heads_key), config.at()));
    else
        config.copy(map, "num_kv_heads", kv_key);
    if (is_latent) {
        const auto nope = config.integer("qk_nope_head_dim"),
                   rope = config.integer("qk_rope_head_dim");
        if (nope && rope) add_number(config, map, "head_width", *nope + *rope);
        (void)config.find("head_dim");
        add(map, "latent", latent_attention(config));
    } else if (config.find("head_dim") || config.find("attention_head_dim")) {
        config.copy(map, "head_width", config.find("head_dim") ? "head_dim" : "attention_head_dim");
    } else {
        const auto hidden = config.integer(config.key_of("hidden", "hidden_size")),
                   heads = config.integer(heads_key), width = config.integer("head_dim");
        if (width || (hidden && heads && *heads > 0))
            add_number(config, map, "head_width",
                       width.value_or(0) > 0 ? *width : *hidden / *heads);
        else
            config.copy(map, "head_width", "head_dim");
    }
    if (config.is_true("output_gate")) add_flag(config, map, "output_gate", true);
    const std::int64_t layers =
        config.integer(config.key_of("layers", "num_hidden_layers")).value_or(0);
    if (layers > 0 && layers <= kMaxLayers) add_window(config, map, static_cast<int>(layers));
    return map;
}

// Experts that every token passes: a number of them, or one by its width alone.
void add_shared_experts(const Config& config, YamlNode& moe) {
    const std::string_view count_key = config.key_of("shared", ""),
                           width_key = config.find("moe_shared_expert_intermediate_size")
                                           ? "moe_shared_expert_intermediate_size"
                                           : config.key_of("shared_width", "");
    if (width_key.empty()) return;
    const bool is_residual = config.family().model_types == "arctic";
    const std::int64_t width = config.integer(width_key).value_or(0);
    std::int64_t count = width > 0 ? 1 : 0;
    if (is_residual && !config.is_true("use_residual")) count = 0;
    if (!count_key.empty()) {
        const YamlNode* node = config.find(count_key);
        count = node == nullptr && config.root().index_of(count_key) >= 0
                    ? 0  // null
                    : config.integer(count_key).value_or(0);
        if (node != nullptr && !config.integer(count_key))
            return config.copy(moe, "num_shared_experts", count_key);
    }
    if (const YamlNode* mixed = config.find("use_mixed_mlp_moe"); mixed && mixed->scalar == "false")
        count = 0;
    if (count == 0) return;
    add_number(config, moe, "num_shared_experts", count);
    config.copy(moe, "shared_expert_width", width_key);
}

void add_activation(const Config& config, YamlNode& moe) {
    for (const std::string_view key : {"hidden_act", "ffn_config.ffn_act_fn.name"}) {
        const YamlNode* node = config.find(key);
        if (node == nullptr) continue;
        constexpr std::array gated = {"silu", "swiglu",   "swigluoai",
                                      "gelu", "gelu_new", "gelu_pytorch_tanh"};
        if (std::find(gated.begin(), gated.end(), node->scalar) == gated.end()) {
            config.refuse_layer(node, "experts with the activation " + in_quotes(node->scalar));
        }
    }
    // GPT-OSS says so by its class, not by a key.
    const bool is_gpt_oss = config.family().model_types == "gpt_oss";
    add(moe, "activation", scalar_node(is_gpt_oss ? "quick_geglu" : "swiglu", config.at()));
    add_flag(config, moe, "add_bias_linear", is_gpt_oss);
}

void add_routing(const Config& config, YamlNode& moe) {
    const std::string method = config.text("topk_method");
    // A group for all, and `false` in some files, is routing without groups.
    const std::int64_t groups = config.integer("n_group").value_or(1);
    if (method != "greedy" && groups > 1) {
        config.copy(moe, "num_expert_groups", "n_group");
        config.copy(moe, "top_groups", "topk_group");
        // DeepSeek-V2 keeps the groups of the best experts, V3 those of the best two of a group.
        if (method == "group_limited_greedy")
            add(moe, "group_score", scalar_node("max", config.at()));
    }
    add_flag(config, moe, "aux_free_bias",
             method == "noaux_tc" || config.is_true("use_routing_bias") ||
                 config.is_true("moe_router_enable_expert_bias"));
}

YamlNode moe(const Config& config) {
    YamlNode map = map_node(config.at());
    config.copy(map, "num_experts", config.key_of("experts", "num_experts"));
    config.copy(map, "top_k", config.key_of("top_k", "num_experts_per_tok"));
    const std::string_view usual = "moe_intermediate_size";
    config.copy(map, "expert_width",
                config.find(usual) ? usual : config.key_of("expert_width", usual));
    add_shared_experts(config, map);
    add_activation(config, map);
    add_routing(config, map);
    return map;
}

// Keys that turn layers of a family that is read into others.
void refuse_other_layers(const Config& config) {
    const auto refuse_if = [&](std::string_view key, bool holds, std::string_view layer) {
        if (const YamlNode* node = config.find(key); node && holds)
            config.refuse_layer(node, layer);
    };
    const std::vector<std::int64_t> kinds = config.integers("attn_type_list");
    refuse_if("attn_type_list", std::find(kinds.begin(), kinds.end(), 0) != kinds.end(),
              "linear attention");
    refuse_if("use_cla", config.is_true("use_cla"), "keys and values shared between layers");
    refuse_if("index_topk", true, "sparse attention (DSA with its indexer)");
    refuse_if("sparse_attention_config", true, "sparse attention");
    refuse_if("linear_attn_config", true, "linear attention");
    refuse_if("hybrid_override_pattern", true, "Mamba-2 layers");
    refuse_if("swa_num_key_value_heads", true, "attention of another shape on some layers");
    refuse_if("zero_expert_num", config.integer("zero_expert_num").value_or(0) > 0,
              "experts without computation");
    refuse_if("is_encoder_decoder", config.is_true("is_encoder_decoder"),
              "an encoder beside the decoder");
}

// ---- What the file is

std::string stem(const std::string& file) {
    // The folder names the model: .../Mixtral-8x7B/config.json
    const std::size_t slash = file.find_last_of('/');
    if (slash == std::string::npos || slash == 0) return "";
    const std::size_t before = file.find_last_of('/', slash - 1);
    return file.substr(before == std::string::npos ? 0 : before + 1,
                       slash - (before == std::string::npos ? 0 : before + 1));
}

const YamlNode* map_in(const YamlNode& map, std::string_view key) {
    const int index = map.index_of(key);
    if (index < 0) return nullptr;
    const YamlNode& node = map.items[static_cast<std::size_t>(index)];
    return node.kind == YamlNode::Kind::map ? &node : nullptr;
}

// The part that describes the language model: the file, or a map in it.
const YamlNode& language_model(const YamlNode& root) {
    for (const std::string_view key :
         {"text_config", "llm_config", "language_config", "thinker_config"}) {
        if (const YamlNode* inner = map_in(root, key)) return language_model(*inner);
    }
    return root;
}

std::string model_type_of(const YamlNode& root) {
    const int index = root.index_of("model_type");
    return index < 0 ? "" : root.items[static_cast<std::size_t>(index)].scalar;
}

// Another file of a model's folder, known by a key that only it has.
std::string_view other_file(const YamlNode& root) {
    constexpr std::array<std::array<std::string_view, 2>, 8> kinds = {
        {{"tokenizer_class", "a tokenizer's config"},
         {"added_tokens_decoder", "a tokenizer's config"},
         {"weight_map", "the index of a checkpoint's files"},
         {"peft_type", "the config of an adapter"},
         {"image_processor_type", "the config of a preprocessor"},
         {"processor_class", "the config of a preprocessor"},
         {"do_sample", "a generation config"},
         {"producer", "a quantization config"}}};
    for (const auto& [key, what] : kinds) {
        if (root.index_of(key) >= 0) return what;
    }
    return "";
}

void refuse_file(const YamlNode& root, const std::string& file, const std::string& model_type,
                 std::vector<InputProblem>& problems) {
    const std::string where = to_string(file, root.at);
    if (!model_type.empty()) {
        const bool has_experts =
            std::any_of(root.keys.begin(), root.keys.end(),
                        [](const std::string& key) { return key.find("expert") != key.npos; });
        const int index = root.index_of("model_type");
        problems.push_back(
            {index < 0 ? where : to_string(file, root.items[static_cast<std::size_t>(index)].at),
             fmt::format("model_type {} is not supported{}", in_quotes(model_type),
                         has_experts ? "" : ": a dense model, without experts"),
             "one of: " + hugging_face_model_types(), ""});
        return;
    }
    const std::string_view other = other_file(root);
    problems.push_back({where,
                        other.empty() ? "no 'model_type': not a Hugging Face config.json"
                                      : std::string(other) + ", not of a model",
                        "the config.json of a model", ""});
}

}  // namespace

void expect_json_text(std::string_view text, const std::string& file) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    const std::string_view body = first == std::string_view::npos ? "" : text.substr(first);
    const auto refuse = [&](std::string found, std::string hint) {
        throw InputError({file, std::move(found), "the config.json of a model", std::move(hint)});
    };
    if (body.starts_with("version https://git-lfs"))
        refuse("a pointer of Git LFS, not the file itself", "git lfs pull fetches it");
    if (body.starts_with('<'))
        refuse("a web page", "download the file itself ('raw'), not its page");
    if (body.empty()) refuse("an empty file", "");
    if (!body.starts_with('{')) refuse("text that is no JSON object", "");
    const std::size_t last = body.find_last_not_of(" \t\r\n");
    if (body[last] != '}') refuse("a JSON object that breaks off", "download the file again");
}

YamlNode model_from_hugging_face(const YamlNode& root, const std::string& file,
                                 std::vector<InputProblem>& problems,
                                 std::vector<std::string>& notes) {
    const YamlNode& inner = language_model(root);
    std::string model_type = model_type_of(inner);
    const HuggingFaceFamily* family = find_hugging_face_family(model_type);
    if (family == nullptr && &inner != &root) {
        family = find_hugging_face_family(model_type_of(root));
        if (model_type.empty()) model_type = model_type_of(root);
    }
    if (family == nullptr) {
        refuse_file(inner, file, model_type, problems);
        return root;
    }
    const Config config(root, inner, *family, file, problems);
    if (!family->lacks.empty()) {
        config.refuse_layer(config.find("model_type"), family->lacks);
        return root;
    }
    YamlNode model = map_node(inner.at);
    const std::string folder = stem(file);
    add(model, "name",
        scalar_node(folder.empty() || folder == ".." ? model_type : folder, root.at));
    config.copy(model, "vocab_size", "vocab_size");
    config.copy(model, "hidden", config.key_of("hidden", "hidden_size"));
    add_layers(config, model);
    add(model, "attention", attention(config));
    add(model, "moe", moe(config));
    // transformers 5 asks the outer config; a text_config beside it often has a default of its
    // class.
    const int outer_tie = root.index_of("tie_word_embeddings");
    const std::string tie = outer_tie >= 0 ? root.items[static_cast<std::size_t>(outer_tie)].scalar
                                           : config.text("tie_word_embeddings");
    const std::string tied = tie.empty() ? "false" : tie;
    add(model, "tied_embeddings", scalar_node(tied, config.at()));
    add(model, "source", scalar_node("Hugging Face " + file, root.at));
    refuse_other_layers(config);
    if (problems.empty()) notes = hugging_face_notes(config, file);
    return model;
}

}  // namespace headway::inline scenario
