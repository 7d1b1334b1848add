#include "models/import/shell_cursor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace headway::inline importing {

void ShellCursor::skip_blanks() {
    while (!at_end()) {
        const bool ends_line = peek(1) == '\n' || (peek(1) == '\r' && peek(2) == '\n');
        if (is_blank(peek())) {
            ++pos_;
        } else if (peek() == '\\' && ends_line) {
            pos_ += peek(1) == '\n' ? 2 : 3;
        } else if (peek() == '#') {
            comment();
        } else {
            return;
        }
    }
}

// "#SBATCH --nodes=4" and "#SBATCH --nodes 4" are read.
void ShellCursor::comment() {
    const std::size_t end = std::min(text_.find('\n', pos_), text_.size());
    const std::string_view line = text_.substr(pos_, end - pos_);
    pos_ = end;
    const std::size_t option = line.find("--");
    if (!line.starts_with("#SBATCH") || option == std::string_view::npos) return;
    const std::string_view words = line.substr(option + 2);
    const std::size_t equals = words.find_first_of("= \t");
    if (equals == std::string_view::npos) return;
    const std::string_view value = words.substr(equals + 1);
    const std::size_t first = std::min(value.find_first_not_of(" \t"), value.size());
    const std::size_t last = value.find_first_of(" \t#\r", first);
    directives_.emplace(words.substr(0, equals), value.substr(first, last - first));
}

void ShellCursor::newline() {
    ++pos_;
    for (const HereDocument& document : std::exchange(documents_, {})) read_document(document);
}

void ShellCursor::read_document(const HereDocument& document) {
    const std::size_t begin = pos_;
    std::size_t end = begin;
    while (!at_end()) {
        end = pos_;
        const std::size_t stop = std::min(text_.find('\n', pos_), text_.size());
        std::string_view line = text_.substr(pos_, stop - pos_);
        pos_ = std::min(stop + 1, text_.size());
        while (!line.empty() && (line.front() == '\t' || line.back() == '\r'))
            line.front() == '\t' ? line.remove_prefix(1) : line.remove_suffix(1);
        if (line == document.delimiter) break;
        end = pos_;
    }
    on_document_(document, {begin, end});
}

void ShellCursor::skip_separators() {
    while (true) {
        skip_blanks();
        if (peek() == '\n')
            newline();
        else if (peek() == ';' && peek(1) != ';')
            ++pos_;
        else
            return;
    }
}

ShellSpan ShellCursor::raw_word() {
    skip_blanks();
    const ShellSpan word{pos_, source_.end_of_word(pos_)};
    pos_ = word.end;
    return word;
}

std::string_view ShellCursor::peek_word() {
    skip_blanks();
    return raw({pos_, source_.end_of_word(pos_)});
}

bool ShellCursor::take_word(std::string_view word) {
    if (peek_word() != word) return false;
    pos_ += word.size();
    return true;
}

void ShellCursor::expect_word(std::string_view word, std::size_t begun) {
    skip_separators();
    if (!take_word(word))
        source_.fail(begun, fmt::format("a command that '{}' does not end", word));
}

}  // namespace headway::inline importing
