// One config.json, by key: class defaults for what is missing, and what was asked for, so that
// nothing else passes in silence. Private to hugging_face*.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "models/scenario/hugging_face_families.hpp"
#include "models/scenario/yaml_tree.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline scenario {

class HuggingFaceConfig {
  public:
    // `outer` holds the config of the language model, or is it.
    HuggingFaceConfig(const YamlNode& outer, const YamlNode& root, const HuggingFaceFamily& family,
                      const std::string& file, std::vector<InputProblem>& problems)
        : outer_(outer), root_(root), family_(family), file_(file), problems_(problems) {}

    // The node of a key, "a.b" in a nested map; nullptr when absent or null.
    const YamlNode* find(std::string_view key) const;
    // Its text, or the class default; empty without either. A list of equal values is one value.
    std::string text(std::string_view key) const;
    std::optional<std::int64_t> integer(std::string_view key) const;
    bool is_true(std::string_view key) const { return text(key) == "true"; }
    // Whole numbers of a list: flags (true, 1) and numbers; empty when there is no such list.
    std::vector<std::int64_t> integers(std::string_view key) const;
    std::vector<std::string> texts(std::string_view key) const;

    // The family's name for headway's word.
    std::string_view key_of(std::string_view word, std::string_view usual) const;

    // Adds `key` under the name `to`; a problem when it has no value at all.
    void copy(YamlNode& map, std::string to, std::string_view key) const;
    void refuse(Position at, std::string found, std::string accepted, std::string hint = "") const;
    // The model has layers of a kind that headway lacks.
    void refuse_layer(const YamlNode* at, std::string_view layer) const;

    Position at() const { return root_.at; }
    const YamlNode& root() const { return root_; }
    const YamlNode& outer() const { return outer_; }
    const HuggingFaceFamily& family() const { return family_; }
    const std::set<std::string, std::less<>>& asked() const { return asked_; }
    const std::vector<std::string>& defaults() const { return defaults_; }  // "hidden_size 4096"

  private:
    const YamlNode& outer_;
    const YamlNode& root_;
    const HuggingFaceFamily& family_;
    const std::string& file_;
    std::vector<InputProblem>& problems_;
    mutable std::set<std::string, std::less<>> asked_;
    mutable std::vector<std::string> defaults_;
};

YamlNode scalar_node(std::string text, Position at);
YamlNode map_node(Position at);
void add(YamlNode& map, std::string key, YamlNode value);

// What is said of a config: its types, its quantization, what is not modelled or not read.
std::vector<std::string> hugging_face_notes(const HuggingFaceConfig& config,
                                            const std::string& file);

}  // namespace headway::inline scenario
