#include "models/scenario/hugging_face_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "models/scenario/quantity_text.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::array<std::array<std::string_view, 5>, 3> kOtherNames = {
    {{"experts", "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"},
     {"shared", "n_shared_experts", "num_shared_experts", "num_shared_expert",
      "moe_num_shared_experts"},
     {"top_k", "num_experts_per_tok", "moe_topk", "moe_k", "experts_per_token"}}};

const YamlNode* child(const YamlNode& map, std::string_view key) {
    const int index = map.index_of(key);
    if (index < 0) return nullptr;
    const YamlNode& node = map.items[static_cast<std::size_t>(index)];
    return node.kind == YamlNode::Kind::null ? nullptr : &node;
}

// The single value of a node: a scalar, or a list of the same scalar for every layer.
const YamlNode* single(const YamlNode* node) {
    if (node == nullptr || node->kind != YamlNode::Kind::list) return node;
    const auto differs = [&](const YamlNode& item) {
        return item.kind != YamlNode::Kind::scalar || item.scalar != node->items[0].scalar;
    };
    const bool is_one =
        !node->items.empty() && std::none_of(node->items.begin(), node->items.end(), differs);
    return is_one ? &node->items[0] : node;
}

}  // namespace

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

const YamlNode* HuggingFaceConfig::find(std::string_view key) const {
    asked_.emplace(key.substr(0, key.find('.')));
    const YamlNode* node = &root_;
    for (std::string_view rest = key; node != nullptr && !rest.empty();) {
        const std::size_t end = std::min(rest.find('.'), rest.size());
        node = child(*node, rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    return node;
}

std::string HuggingFaceConfig::text(std::string_view key) const {
    const YamlNode* node = single(find(key));
    if (node != nullptr) return node->kind == YamlNode::Kind::scalar ? node->scalar : "";
    return std::string(value_in(family_.defaults, key));
}

std::optional<std::int64_t> HuggingFaceConfig::integer(std::string_view key) const {
    return parse_integer(text(key));
}

std::vector<std::int64_t> HuggingFaceConfig::integers(std::string_view key) const {
    std::vector<std::int64_t> values;
    for (const std::string& item : texts(key)) {
        values.push_back(item == "true"    ? 1
                         : item == "false" ? 0
                                           : parse_integer(item).value_or(-1));
    }
    return values;
}

std::vector<std::string> HuggingFaceConfig::texts(std::string_view key) const {
    std::vector<std::string> values;
    const YamlNode* node = find(key);
    if (node == nullptr || node->kind != YamlNode::Kind::list) return values;
    for (const YamlNode& item : node->items) values.push_back(item.scalar);
    return values;
}

std::string_view HuggingFaceConfig::key_of(std::string_view word, std::string_view usual) const {
    const std::string_view own = value_in(family_.keys, word);
    const std::string_view key = own.empty() ? usual : own;
    if (key.empty() || find(key) != nullptr) return key;
    // Configs written by other versions of a class use its other names.
    for (const auto& names : kOtherNames) {
        if (names.front() != word) continue;
        for (const std::string_view other : names) {
            if (find(other) != nullptr) return other;
        }
    }
    return key;
}

void HuggingFaceConfig::copy(YamlNode& map, std::string to, std::string_view key) const {
    if (const YamlNode* node = single(find(key))) {
        YamlNode value = *node;
        value.is_quoted = false;
        add(map, std::move(to), std::move(value));
        return;
    }
    const std::string_view otherwise = value_in(family_.defaults, key);
    if (otherwise.empty()) {
        refuse(root_.at, fmt::format("missing key '{}'", key),
               fmt::format("a config.json of model_type {}", text("model_type")));
        return;
    }
    defaults_.push_back(fmt::format("{} {}", key, otherwise));
    add(map, std::move(to), scalar_node(std::string(otherwise), root_.at));
}

void HuggingFaceConfig::refuse(Position at, std::string found, std::string accepted,
                               std::string hint) const {
    problems_.push_back(
        {to_string(file_, at), std::move(found), std::move(accepted), std::move(hint)});
}

void HuggingFaceConfig::refuse_layer(const YamlNode* at, std::string_view layer) const {
    refuse(at != nullptr ? at->at : root_.at,
           fmt::format("the model has {}, which headway does not model", layer),
           "layers of full, grouped-query, sliding-window or latent attention, with a dense "
           "feed-forward or routed and shared experts");
}

}  // namespace headway::inline scenario
