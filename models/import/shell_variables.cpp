#include "models/import/shell_variables.hpp"

#include <algorithm>
#include <utility>

namespace headway::inline importing {
const ShellVariable* ShellVariables::find(std::string_view name) const {
    if (const auto own = values_.find(name); own != values_.end()) return &own->second;
    const auto given = given_.find(name);
    if (given == given_.end()) return nullptr;
    read_.insert(given->first);
    ShellVariable& variable = from_environment_[given->first];
    if (variable.items.empty()) variable.items = {text_at(given->second, {})};
    return &variable;
}

void ShellVariables::set(const std::string& name, ShellVariable value) {
    const bool is_open = std::any_of(value.items.begin(), value.items.end(), [](const Text& item) {
        return first_gap(item.chars).has_value();
    });
    if (is_open && !value.is_array && given_.contains(name)) {
        values_.erase(name);
        (void)find(name);
        return;
    }
    values_[name] = std::move(value);
}

ShellSource::ShellSource(std::string_view text, std::string file, int number)
    : text_(text), file_(std::move(file)), number_(number), lines_{0} {
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\n') lines_.push_back(i + 1);
    }
}

Position ShellSource::at(std::size_t offset) const {
    const auto next = std::upper_bound(lines_.begin(), lines_.end(), offset);
    const auto line = next - lines_.begin();
    return {static_cast<int>(line), static_cast<int>(offset - *(next - 1)) + 1, number_};
}

void ShellSource::fail(std::size_t offset, std::string found, std::string hint) const {
    throw InputError({to_string(file_, at(std::min(offset, text_.size()))), std::move(found),
                      "a shell script that runs", std::move(hint)});
}

std::size_t ShellSource::end_of_word(std::size_t offset) const {
    std::size_t i = offset;
    while (i < text_.size()) {
        const char c = text_[i];
        if (c == '\\')
            i = std::min(i + 2, text_.size());
        else if (c == '\'' || c == '"' || c == '`')
            i = end_of_quote(i);
        else if (c == '$')
            i = end_of_dollar(i);
        else if (std::string_view(" \t\r\n;&|<>()").find(c) != std::string_view::npos)
            break;
        else
            ++i;
    }
    return i;
}

std::size_t ShellSource::end_of_quote(std::size_t offset, int depth) const {
    const char quote = text_[offset];
    std::size_t i = offset + 1;
    while (i < text_.size() && text_[i] != quote) {
        if (text_[i] == '\\' && quote != '\'')
            i += 2;
        else if (text_[i] == '$' && quote == '"')
            i = end_of_dollar(i, depth + 1);
        else
            ++i;
    }
    if (i >= text_.size()) fail(offset, "a quote that is not closed");
    return i + 1;
}

// Nesting is counted by brackets alone; quotes inside are skipped as a whole.
std::size_t ShellSource::end_of_bracket(std::size_t offset, char open, char close,
                                        int depth) const {
    int level = 0;
    std::size_t i = offset;
    while (i < text_.size()) {
        const char c = text_[i];
        if (c == '\\') {
            i += 2;
            continue;
        }
        if (c == '\'' || c == '"') {
            i = end_of_quote(i, depth + 1);
            continue;
        }
        if (c == open) ++level;
        if (c == close && --level == 0) return i + 1;
        ++i;
    }
    fail(offset, "a bracket that is not closed");
}

std::size_t ShellSource::end_of_dollar(std::size_t offset, int depth) const {
    if (depth > kMaxNesting) fail(offset, "brackets and quotes nested too deeply");
    const char next = offset + 1 < text_.size() ? text_[offset + 1] : '\0';
    if (next == '(') return end_of_bracket(offset + 1, '(', ')', depth);
    if (next == '{') return end_of_bracket(offset + 1, '{', '}', depth);
    return offset + 1;
}

}  // namespace headway::inline importing
