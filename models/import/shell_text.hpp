// Text of a shell script that remembers where each character was written, through any number of
// variables, so that an argument is reported at its own line. What the script does not say (a
// variable from outside, the output of a command) stands in the text as a gap with a name.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/scenario/yaml_tree.hpp"

namespace headway::inline importing {

inline constexpr std::size_t kMaxText = std::size_t{1} << 20;

constexpr bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}
constexpr bool begins_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
constexpr bool is_in_name(char c) {
    return begins_name(c) || (c >= '0' && c <= '9');
}

// How deep quotes, brackets and commands may nest.
inline constexpr int kMaxNesting = 60;

struct Text {
    std::string chars;
    std::vector<Position> at;  // of each character

    Position where() const { return at.empty() ? Position{} : at.front(); }
    bool empty() const { return chars.empty(); }
    // InputError beyond kMaxText: variables that double themselves.
    void add(char c, Position position);
    void add(std::string_view text, Position position);
    void add(const Text& other);
    Text part(std::size_t begin, std::size_t end) const;
};

Text text_at(std::string_view chars, Position at);

// A gap: what the script leaves open, by the name of a variable or the text of a command.
Text gap(std::string_view name, Position at);
bool is_one_gap(std::string_view chars);
// The name of the first gap.
std::optional<std::string> first_gap(std::string_view chars);
// With gaps as a reader writes them: "${TP}" or "$(nproc)".
std::string shown(std::string_view chars);

// As a shell splits a string that it runs: at blanks outside quotes, which are taken off.
std::vector<Text> split_command(const Text& text);

// Shell patterns of `case` and [[ == ]]: '*' and '?'.
bool matches_pattern(std::string_view text, std::string_view pattern);

}  // namespace headway::inline importing
