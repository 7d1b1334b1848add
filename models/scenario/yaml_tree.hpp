// A YAML (or JSON) document as a plain tree of values with their positions, within stated limits.
// The only code that sees yaml-cpp is yaml_tree.cpp; anchors, aliases, tags, several documents and
// duplicate keys are refused there, so that a tree costs what its text costs.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/vocab/error.hpp"

namespace headway::inline scenario {

struct YamlLimits {
    std::size_t max_bytes = std::size_t{16} << 20;
    int max_depth = 32;
    std::size_t max_nodes = 500'000;
};

struct Position {
    int line = 1, column = 1;
    int file = 0;  // 0: the file that is read; else the n-th that it takes in
};

// "file:line:column"
std::string to_string(const std::string& file, Position at);

struct YamlNode {
    enum class Kind { null, scalar, list, map };

    Kind kind = Kind::null;
    bool is_quoted = false;
    Position at;
    std::string scalar;
    std::vector<std::string> keys;  // map only, parallel to items; unique
    std::vector<Position> key_at;   // map only: where each key is
    std::vector<YamlNode> items;    // list and map

    // Index of `key`, or -1.
    int index_of(std::string_view key) const;
};

// Throws InputError when the text is not one well-formed document within the limits; duplicate keys
// go to `problems`, the first one counts.
YamlNode parse_yaml(std::string_view text, const std::string& file,
                    std::vector<InputProblem>& problems, const YamlLimits& limits = {});

}  // namespace headway::inline scenario
