#include "models/scenario/hugging_face.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <optional>
#include <string_view>

#include "models/scenario/quantity_text.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::array kFamilies = {std::string_view("mixtral"),     std::string_view("deepseek_v2"),
                                  std::string_view("deepseek_v3"), std::string_view("qwen3_moe"),
                                  std::string_view("olmoe"),       std::string_view("gpt_oss")};

YamlNode scalar_node(std::string text, Position at) {
    YamlNode node;
    node.kind = YamlNode::Kind::scalar;
    node.at = at;
    node.scalar = std::move(text);
    return node;
}

YamlNode map_node(Position at) {
    YamlNode node;
    node.kind = YamlNode::Kind::map;
    node.at = at;
    return node;
}

void add(YamlNode& map, std::string key, YamlNode value) {
    map.key_at.push_back(value.at);
    map.keys.push_back(std::move(key));
    map.items.push_back(std::move(value));
}

// One config.json; look-ups note what is missing.
class Config {
  public:
    Config(const YamlNode& root, const std::string& file, std::vector<InputProblem>& problems)
        : root_(root), file_(file), problems_(problems) {}

    const YamlNode* find(std::string_view key) const {
        const int index = root_.index_of(key);
        if (index < 0) return nullptr;
        const YamlNode& node = root_.items[static_cast<std::size_t>(index)];
        return node.kind == YamlNode::Kind::null ? nullptr : &node;
    }

    std::string text(std::string_view key) const {
        const YamlNode* node = find(key);
        return node ? node->scalar : std::string();
    }

    // Copies `from` to `to`; when absent, `otherwise` is written, and without one it is a problem.
    void copy(YamlNode& map, std::string to, std::string_view from,
              std::optional<std::string> otherwise = {}) const {
        const YamlNode* node = find(from);
        if (node) {
            YamlNode value = *node;
            value.is_quoted = false;
            headway::add(map, std::move(to), std::move(value));
        } else if (otherwise) {
            headway::add(map, std::move(to), scalar_node(*otherwise, root_.at));
        } else {
            refuse(root_.at, fmt::format("missing key '{}'", from),
                   fmt::format("a config.json of model_type {}", text("model_type")));
        }
    }

    // The key must be absent, null or one of these; anything else changes the model's shape.
    void require(std::string_view key, std::initializer_list<std::string_view> accepted) const {
        const YamlNode* node = find(key);
        if (!node) return;
        for (const std::string_view value : accepted) {
            const bool is_empty_list = node->kind == YamlNode::Kind::list && node->items.empty();
            if (is_empty_list ? value == "[]" : node->scalar == value) return;
        }
        refuse(node->at,
               fmt::format(
                   "{} for '{}' is not supported",
                   node->kind == YamlNode::Kind::scalar ? in_quotes(node->scalar) : "a list", key),
               fmt::format("one of: {}", fmt::join(accepted, ", ")));
    }

    void refuse(Position at, std::string found, std::string accepted) const {
        problems_.push_back({to_string(file_, at), std::move(found), std::move(accepted), ""});
    }

    Position at() const { return root_.at; }
    const std::string& file() const { return file_; }

  private:
    const YamlNode& root_;
    const std::string& file_;
    std::vector<InputProblem>& problems_;
};

// hidden_size / num_attention_heads, for the families whose head_dim may be left out.
std::optional<std::string> quotient_head_width(const Config& config) {
    const auto hidden = parse_integer(config.text("hidden_size"));
    const auto heads = parse_integer(config.text("num_attention_heads"));
    if (!hidden || !heads || *heads <= 0) return std::nullopt;
    return fmt::format("{}", *hidden / *heads);
}

YamlNode latent_attention(const Config& config) {
    YamlNode latent = map_node(config.at());
    config.copy(latent, "query_rank", "q_lora_rank", "0");
    config.copy(latent, "kv_rank", "kv_lora_rank");
    config.copy(latent, "nope_width", "qk_nope_head_dim");
    config.copy(latent, "rope_width", "qk_rope_head_dim");
    config.copy(latent, "value_width", "v_head_dim");
    return latent;
}

YamlNode attention(const Config& config, std::string_view family) {
    YamlNode map = map_node(config.at());
    config.copy(map, "num_heads", "num_attention_heads");
    config.copy(map, "num_kv_heads", "num_key_value_heads", config.text("num_attention_heads"));
    if (family.starts_with("deepseek")) {
        const auto nope = parse_integer(config.text("qk_nope_head_dim"));
        const auto rope = parse_integer(config.text("qk_rope_head_dim"));
        if (nope && rope) {
            add(map, "head_width", scalar_node(fmt::format("{}", *nope + *rope), config.at()));
        }
        add(map, "latent", latent_attention(config));
        return map;
    }
    config.copy(map, "head_width", "head_dim", quotient_head_width(config));
    const bool has_window =
        family == "gpt_oss" || config.text("use_sliding_window") == "true" || family == "mixtral";
    if (has_window && config.find("sliding_window")) {
        config.copy(map, "window", "sliding_window");
        if (family == "gpt_oss") add(map, "window_every", scalar_node("2", config.at()));
    }
    return map;
}

void add_deepseek_moe(const Config& config, YamlNode& moe) {
    config.require("moe_layer_freq", {"1"});
    config.copy(moe, "num_experts", "n_routed_experts");
    config.copy(moe, "expert_width", "moe_intermediate_size");
    config.copy(moe, "num_shared_experts", "n_shared_experts", "0");
    config.copy(moe, "shared_expert_width", "moe_intermediate_size");
    const std::string method = config.text("topk_method");
    if (method != "greedy") {
        config.copy(moe, "num_expert_groups", "n_group", "1");
        config.copy(moe, "top_groups", "topk_group", "1");
    }
    const bool is_v3 = config.text("model_type") == "deepseek_v3";
    const bool has_bias = method == "noaux_tc" || (is_v3 && method.empty());
    add(moe, "aux_free_bias", scalar_node(has_bias ? "true" : "false", config.at()));
}

YamlNode moe(const Config& config, std::string_view family) {
    YamlNode map = map_node(config.at());
    if (family.starts_with("deepseek")) {
        add_deepseek_moe(config, map);
    } else if (family == "qwen3_moe") {
        config.require("decoder_sparse_step", {"1"});
        config.require("mlp_only_layers", {"[]"});
        config.copy(map, "num_experts", "num_experts");
        config.copy(map, "expert_width", "moe_intermediate_size");
    } else {
        config.copy(map, "num_experts", family == "olmoe" ? "num_experts" : "num_local_experts");
        config.copy(map, "expert_width", "intermediate_size");
    }
    config.copy(map, "top_k", "num_experts_per_tok");
    config.require("hidden_act", {"silu", "swiglu"});
    add(map, "activation", scalar_node("swiglu", config.at()));
    return map;
}

void add_dtype(const Config& config, YamlNode& model) {
    const std::string_view key = config.find("torch_dtype") ? "torch_dtype" : "dtype";
    config.require(key, {"bfloat16", "float16", "float32"});
    const std::string text = config.text(key);
    const std::string dtype = text == "float16" ? "fp16" : text == "float32" ? "fp32" : "bf16";
    add(model, "dtype", scalar_node(dtype, config.at()));
}

std::string stem(const std::string& file) {
    // The folder names the model: .../Mixtral-8x7B/config.json
    const std::size_t slash = file.find_last_of('/');
    if (slash == std::string::npos || slash == 0) return "";
    const std::size_t before = file.find_last_of('/', slash - 1);
    return file.substr(before == std::string::npos ? 0 : before + 1,
                       slash - (before == std::string::npos ? 0 : before + 1));
}

}  // namespace

YamlNode model_from_hugging_face(const YamlNode& root, const std::string& file,
                                 std::vector<InputProblem>& problems) {
    const Config config(root, file, problems);
    const std::string family = config.text("model_type");
    bool is_known = false;
    for (const std::string_view known : kFamilies) is_known = is_known || known == family;
    if (!is_known) {
        const YamlNode* node = config.find("model_type");
        config.refuse(node ? node->at : root.at,
                      family.empty() ? "no 'model_type': not a Hugging Face config.json"
                                     : "model_type " + in_quotes(family) + " is not supported",
                      fmt::format("one of: {}", fmt::join(kFamilies, ", ")));
        return root;
    }
    YamlNode model = map_node(root.at);
    const std::string folder = stem(file);
    add(model, "name", scalar_node(folder.empty() || folder == ".." ? family : folder, root.at));
    config.copy(model, "vocab_size", "vocab_size");
    config.copy(model, "hidden", "hidden_size");
    config.copy(model, "num_layers", "num_hidden_layers");
    if (family.starts_with("deepseek")) {
        config.copy(model, "num_dense_layers", "first_k_dense_replace", "0");
        config.copy(model, "dense_width", "intermediate_size");
    }
    add(model, "attention", attention(config, family));
    add(model, "moe", moe(config, family));
    config.copy(model, "tied_embeddings", "tie_word_embeddings", "false");
    add_dtype(config, model);
    add(model, "source", scalar_node("Hugging Face " + file, root.at));
    return model;
}

}  // namespace headway::inline scenario
