// The TOML that torchtitan's configurations are written in: tables, and values on one line or in
// lists over several.
#include <fmt/format.h>

#include <algorithm>

#include "models/import/settings.hpp"

namespace headway::inline importing {
namespace {

class Toml {
  public:
    Toml(std::string_view text, const std::string& file) : text_(text), file_(file) {}

    std::vector<Setting> read() {
        while (true) {
            skip_all();
            if (at_end()) return std::move(settings_);
            if (peek() == '[')
                table();
            else
                pair();
        }
    }

  private:
    bool at_end() const { return pos_ >= text_.size(); }
    char peek() const { return at_end() ? '\0' : text_[pos_]; }
    Position here() const { return {line_, static_cast<int>(pos_ - begin_) + 1}; }
    void next() {
        if (text_[pos_] == '\n') {
            ++line_;
            begin_ = pos_ + 1;
        }
        ++pos_;
    }
    [[noreturn]] void fail(Position at, std::string found, std::string accepted) const {
        throw InputError({to_string(file_, at), std::move(found), std::move(accepted), ""});
    }

    void skip_blanks() {
        while (peek() == ' ' || peek() == '\t' || peek() == '\r') next();
        if (peek() == '#')
            while (!at_end() && peek() != '\n') next();
    }
    void skip_all() {
        skip_blanks();
        while (peek() == '\n') {
            next();
            skip_blanks();
        }
    }

    std::string key() {
        std::string name;
        while (!at_end() && std::string_view(" \t\r\n=]#").find(peek()) == std::string_view::npos) {
            if (peek() != '"' && peek() != '\'') name += peek();
            next();
        }
        return name;
    }

    void table() {
        const Position at = here();
        next();
        if (peek() == '[') fail(at, "a list of tables ([[...]])", "tables such as [parallelism]");
        skip_blanks();
        table_ = key();
        skip_blanks();
        if (peek() != ']' || table_.empty())
            fail(at, "a table's name that is not closed", "[parallelism]");
        next();
        end_line();
    }

    void pair() {
        const Position at = here();
        const std::string name = key();
        skip_blanks();
        if (name.empty() || peek() != '=') fail(at, "a line without '='", "name = value");
        next();
        skip_blanks();
        const std::string full = table_.empty() ? name : table_ + '.' + name;
        settings_.push_back({full, full, value(0), at});
        end_line();
    }

    void end_line() {
        skip_blanks();
        if (!at_end() && peek() != '\n') fail(here(), "text behind a value", "one value a line");
    }

    std::vector<std::string> value(int depth) {
        constexpr int max_depth = 20;
        const Position at = here();
        if (peek() == '[') {
            if (depth > max_depth) fail(at, "lists nested too deeply", "a list of values");
            return list(depth);
        }
        if (peek() == '"' || peek() == '\'') return {quoted()};
        std::string text;
        while (!at_end() && std::string_view("\n,]#").find(peek()) == std::string_view::npos) {
            text += peek();
            next();
        }
        const std::size_t last = text.find_last_not_of(" \t\r");
        text.resize(last == std::string::npos ? 0 : last + 1);
        if (text.empty()) fail(at, "a name without a value", "name = value");
        if (text.starts_with('{')) fail(at, "an inline table", "plain values and lists");
        const bool is_number = text.find_first_not_of("0123456789_+-") == std::string::npos;
        if (is_number) std::erase(text, '_');
        return {text};
    }

    std::vector<std::string> list(int depth) {
        const Position at = here();
        next();
        std::vector<std::string> values;
        while (true) {
            skip_all();
            if (at_end()) fail(at, "a list that is not closed", "[value, value]");
            if (peek() == ']') break;
            if (peek() == ',') {
                next();
                continue;
            }
            for (std::string& one : value(depth + 1)) values.push_back(std::move(one));
        }
        next();
        if (values.empty()) values.emplace_back("[]");
        return values;
    }

    std::string quoted() {
        const Position at = here();
        const char quote = peek();
        if (text_.substr(pos_).starts_with("\"\"\"") || text_.substr(pos_).starts_with("'''"))
            fail(at, "text over several lines", "text between single quotes on one line");
        next();
        std::string text;
        while (!at_end() && peek() != quote && peek() != '\n') {
            if (peek() == '\\' && quote == '"') next();
            if (at_end()) break;
            text += peek();
            next();
        }
        if (peek() != quote) fail(at, "a quote that is not closed", "\"text\"");
        next();
        return text;
    }

    std::string_view text_;
    const std::string& file_;
    std::size_t pos_ = 0, begin_ = 0;
    int line_ = 1;
    std::string table_;
    std::vector<Setting> settings_;
};

}  // namespace

JobFile read_torchtitan_toml(std::string_view text, const std::string& file) {
    JobFile job{file, "TOML of torchtitan"};
    job.dialect = Dialect::torchtitan;
    job.settings = Toml(text, file).read();
    return job;
}

}  // namespace headway::inline importing
