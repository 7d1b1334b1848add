#include "models/import/shell_text.hpp"

namespace headway::inline importing {
namespace {

constexpr char kGapBegin = '\x01', kGapEnd = '\x02';

bool is_name(std::string_view text) {
    for (const char c : text) {
        if (!is_in_name(c)) return false;
    }
    return !text.empty();
}

}  // namespace

void Text::add(char c, Position position) {
    if (chars.size() >= kMaxText) {
        throw InputError({"", "text that grows beyond a mebibyte", "", "a variable holds itself"});
    }
    chars += c;
    at.push_back(position);
}

void Text::add(std::string_view text, Position position) {
    for (const char c : text) add(c, position);
}

void Text::add(const Text& other) {
    for (std::size_t i = 0; i < other.chars.size(); ++i) add(other.chars[i], other.at[i]);
}

Text Text::part(std::size_t begin, std::size_t end) const {
    Text result;
    for (std::size_t i = begin; i < end && i < chars.size(); ++i) result.add(chars[i], at[i]);
    return result;
}

Text text_at(std::string_view chars, Position at) {
    Text text;
    text.add(chars, at);
    return text;
}

Text gap(std::string_view name, Position at) {
    Text text;
    text.add(kGapBegin, at);
    for (const char c : name) text.add(c == '\n' || c == kGapBegin || c == kGapEnd ? ' ' : c, at);
    text.add(kGapEnd, at);
    return text;
}

bool is_one_gap(std::string_view chars) {
    return chars.starts_with(kGapBegin) && chars.find(kGapEnd) + 1 == chars.size();
}

std::optional<std::string> first_gap(std::string_view chars) {
    const std::size_t begin = chars.find(kGapBegin);
    if (begin == std::string_view::npos) return std::nullopt;
    return std::string(chars.substr(begin + 1, chars.find(kGapEnd, begin) - begin - 1));
}

std::string shown(std::string_view chars) {
    std::string text;
    while (!chars.empty()) {
        const std::size_t begin = chars.find(kGapBegin);
        text += chars.substr(0, begin);
        if (begin == std::string_view::npos) break;
        const std::size_t end = chars.find(kGapEnd, begin);
        const std::string_view name = chars.substr(begin + 1, end - begin - 1);
        text += is_name(name) ? "${" + std::string(name) + "}" : std::string(name);
        if (end == std::string_view::npos) break;
        chars.remove_prefix(end + 1);
    }
    return text;
}

std::vector<Text> split_command(const Text& text) {
    std::vector<Text> words;
    Text word;
    bool is_open = false;
    char quote = 0;
    for (std::size_t i = 0; i < text.chars.size(); ++i) {
        const char c = text.chars[i];
        if (c == kGapBegin) {  // whole, blanks of its name included
            const std::size_t end = text.chars.find(kGapEnd, i);
            word.add(text.part(i, end + 1));
            is_open = true;
            i = end;
        } else if (quote != 0) {
            if (c == quote)
                quote = 0;
            else
                word.add(c, text.at[i]);
        } else if (c == '\'' || c == '"') {
            quote = c;
            is_open = true;
        } else if (is_blank(c) || c == '\n' || c == ';') {
            if (is_open || !word.empty()) words.push_back(std::move(word));
            word = {};
            is_open = false;
        } else if (c == '\\' && i + 1 < text.chars.size()) {
            ++i;
            if (text.chars[i] != '\n') word.add(text.chars[i], text.at[i]);
        } else {
            word.add(c, text.at[i]);
        }
    }
    if (is_open || !word.empty()) words.push_back(std::move(word));
    return words;
}

bool matches_pattern(std::string_view text, std::string_view pattern) {
    // The last star takes one more character whenever what follows it does not match.
    std::size_t t = 0, p = 0, star = std::string_view::npos, from = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            from = t;
        } else if (p < pattern.size() && (pattern[p] == text[t] || pattern[p] == '?')) {
            ++t;
            ++p;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++from;
        } else {
            return false;
        }
    }
    return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace headway::inline importing
