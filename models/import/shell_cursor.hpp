// A place in a shell script, and what is read from there as a whole: blanks and comments, words,
// line ends with the here-documents behind them.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/import/shell_variables.hpp"

namespace headway::inline importing {

struct HereDocument {
    std::string delimiter;
    bool is_quoted = false;
    bool is_live = false;  // its command would run
};

class ShellCursor {
  protected:
    using OnDocument = std::function<void(const HereDocument&, ShellSpan)>;

    ShellCursor(std::string_view text, const std::string& file, int number, OnDocument on_document)
        : source_(text, file, number), text_(text), on_document_(std::move(on_document)) {}

    bool at_end() const { return pos_ >= text_.size(); }
    char peek(std::size_t ahead = 0) const {
        return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : '\0';
    }
    bool looking_at(std::string_view word) const { return text_.substr(pos_).starts_with(word); }

    void skip_blanks();      // comments and continued lines too
    void skip_separators();  // line ends and semicolons as well
    void newline();

    std::string_view raw(ShellSpan span) const {
        return text_.substr(span.begin, span.end - span.begin);
    }
    ShellSpan raw_word();
    std::string_view peek_word();
    bool take_word(std::string_view word);
    void expect_word(std::string_view word, std::size_t begun);

    // Its text begins behind the next line end.
    void expect_document(HereDocument document) { documents_.push_back(std::move(document)); }
    const std::map<std::string, std::string, std::less<>>& directives() const {
        return directives_;
    }

    ShellSource source_;
    std::string_view text_;
    std::size_t pos_ = 0;

  private:
    void comment();
    void read_document(const HereDocument& document);

    OnDocument on_document_;
    std::vector<HereDocument> documents_;
    std::map<std::string, std::string, std::less<>> directives_;
};

}  // namespace headway::inline importing
