#include <fmt/format.h>

#include <cctype>
#include <charconv>

#include "models/import/shell_variables.hpp"

namespace headway::inline importing {
namespace {

// Words under construction. Without splitting everything goes into one.
struct Words {
    bool splits = true;
    std::vector<Text> done;
    Text current;
    bool is_open = false;

    void put(char c, Position at) {
        current.add(c, at);
        is_open = true;
    }
    void cut() {
        if (is_open) done.push_back(std::move(current));
        current = {};
        is_open = false;
    }
    // A variable's value: cut at blanks unless it is quoted.
    void put_value(const Text& value, bool is_quoted) {
        for (std::size_t i = 0; i < value.chars.size(); ++i) {
            const char c = value.chars[i];
            if (c == '\x01') {  // a gap is one piece, whatever its name has
                const std::size_t end = value.chars.find('\x02', i);
                for (; i <= end && i < value.chars.size(); ++i) put(value.chars[i], value.at[i]);
                --i;
            } else if (!is_quoted && splits && (is_blank(c) || c == '\n')) {
                cut();
            } else {
                put(c, value.at[i]);
            }
        }
        if (is_quoted) is_open = true;
    }
    void put_items(const std::vector<Text>& items, bool is_quoted) {
        for (std::size_t i = 0; i < items.size(); ++i) {
            if (i > 0 && splits) cut();
            if (i > 0 && !splits) put(' ', items[i].where());
            put_value(items[i], is_quoted);
        }
    }
};

class Expansion {
  public:
    Expansion(const ShellSource& source, ShellVariables& variables, bool splits)
        : source_(source), variables_(variables) {
        words_.splits = splits;
    }

    void expand(ShellSpan span, bool is_quoted, int depth = 0) {
        if (depth > kMaxNesting) source_.fail(span.begin, "quotes nested too deeply");
        const std::string_view text = source_.text();
        std::size_t i = span.begin;
        while (i < span.end) {
            const char c = text[i];
            if (c == '\\') {
                i = escaped(i, span.end, is_quoted);
            } else if (c == '\'' && !is_quoted) {
                const std::size_t end = source_.end_of_quote(i);
                words_.put_value(raw({i + 1, end - 1}), true);
                i = end;
            } else if (c == '"') {
                const std::size_t end = is_quoted ? i + 1 : source_.end_of_quote(i);
                if (!is_quoted) expand({i + 1, end - 1}, true, depth + 1);
                words_.is_open = true;
                i = end;
            } else if (c == '`') {
                const std::size_t end = source_.end_of_quote(i);
                words_.put_value(gap(text.substr(i, end - i), source_.at(i)), true);
                i = end;
            } else if (c == '$') {
                i = dollar(i, span.end, is_quoted, depth);
            } else if (!is_quoted && words_.splits && (is_blank(c) || c == '\n')) {
                words_.cut();
                ++i;
            } else {
                words_.put(c == '\x01' || c == '\x02' ? '?' : c, source_.at(i));
                ++i;
            }
        }
    }

    std::vector<Text> take_words() {
        words_.cut();
        return std::move(words_.done);
    }
    Text take_text() { return std::move(words_.current); }

  private:
    Text raw(ShellSpan span) const {
        Text text;
        for (std::size_t i = span.begin; i < span.end; ++i)
            text.add(source_.text()[i], source_.at(i));
        return text;
    }

    std::size_t escaped(std::size_t i, std::size_t end, bool is_quoted) {
        if (i + 1 >= end) return end;
        const char next = source_.text()[i + 1];
        if (next == '\n') return i + 2;
        const bool keeps = is_quoted && std::string_view("$`\"\\").find(next) == std::string::npos;
        if (keeps) words_.put('\\', source_.at(i));
        words_.put(next, source_.at(i + 1));
        return i + 2;
    }

    Text inner(ShellSpan span, int depth) {
        Expansion expansion(source_, variables_, false);
        expansion.expand(span, true, depth + 1);
        return expansion.take_text();
    }

    std::size_t dollar(std::size_t i, std::size_t end, bool is_quoted, int depth) {
        const std::string_view text = source_.text();
        const Position at = source_.at(i);
        const char next = i + 1 < end ? text[i + 1] : '\0';
        if (next == '(') {
            const std::size_t close = source_.end_of_dollar(i);
            const bool is_sum = text.substr(i, 3) == "$((" && text.substr(close - 2, 2) == "))";
            if (is_sum) {
                words_.put_value(evaluate_arithmetic(inner({i + 3, close - 2}, depth), variables_),
                                 true);
                return close;
            }
            const std::optional<Text> output =
                source_.output_of ? source_.output_of({i + 2, close - 1}) : std::nullopt;
            words_.put_value(output.value_or(gap(text.substr(i, close - i), at)),
                             is_quoted || !output);
            return close;
        }
        if (next == '{') {
            const std::size_t close = source_.end_of_dollar(i);
            parameter({i + 2, close - 1}, is_quoted, depth);
            return close;
        }
        std::size_t stop = i + 1;
        if (begins_name(next)) {
            while (stop < end && is_in_name(text[stop])) ++stop;
        } else if (std::isdigit(static_cast<unsigned char>(next)) != 0 ||
                   std::string_view("@*#?$!-").find(next) != std::string_view::npos) {
            stop = next == '\0' ? stop : i + 2;
        }
        if (stop == i + 1) {
            words_.put('$', at);
            return stop;
        }
        put_variable(text.substr(i + 1, stop - i - 1), "", at, is_quoted);
        return stop;
    }

    // What a name stands for; no value: it is not set.
    std::optional<std::vector<Text>> items_of(std::string_view name, Position at) const {
        const auto& arguments = variables_.arguments;
        if (name == "@" || name == "*") {
            std::vector<Text> items;
            for (const std::string& word : arguments) items.push_back(text_at(word, at));
            return items;
        }
        if (name == "#") return std::vector{text_at(fmt::format("{}", arguments.size()), at)};
        if (name == "0" || name == "BASH_SOURCE")
            return std::vector{text_at(variables_.script, at)};
        if (name == "?") return std::vector{text_at("0", at)};
        if (!name.empty() && std::isdigit(static_cast<unsigned char>(name[0])) != 0) {
            std::size_t number = 0;
            std::from_chars(name.data(), name.data() + name.size(), number);
            if (number == 0 || number > arguments.size()) return std::nullopt;
            return std::vector{text_at(arguments[number - 1], at)};
        }
        const ShellVariable* variable = variables_.find(name);
        if (variable == nullptr) return std::nullopt;
        std::vector<Text> items = variable->items;
        for (Text& item : items) {
            if (item.where().line == 1 && item.where().column == 1) {  // from the environment
                for (Position& position : item.at) position = at;
            }
        }
        return items;
    }

    void put_variable(std::string_view name, std::string_view index, Position at, bool is_quoted) {
        const auto items = items_of(name, at);
        if (!items) return words_.put_value(gap(name, at), true);
        const bool is_one = is_quoted && (index == "*" || name == "*");
        const bool is_list = index == "@" || index == "*" || name == "@" || name == "*";
        if (is_one) return words_.put_value(joined(*items, at), true);
        if (is_list) return words_.put_items(*items, is_quoted);
        std::size_t number = 0;
        std::from_chars(index.data(), index.data() + index.size(), number);
        words_.put_value(number < items->size() ? (*items)[number] : Text{}, is_quoted);
    }

    // "${name[*]}": one word, with the first character of IFS between.
    Text joined(const std::vector<Text>& items, Position at) const {
        const ShellVariable* separators = variables_.find("IFS");
        const bool is_set = separators != nullptr && !separators->items.empty();
        const std::string between = is_set ? separators->items.front().chars.substr(0, 1) : " ";
        Text all;
        for (const Text& item : items) {
            if (&item != &items.front()) all.add(between, at);
            all.add(item);
        }
        return all;
    }

    // ${name}, ${name[i]}, ${#name}, ${name:-word} and its kin; anything else is a gap.
    void parameter(ShellSpan span, bool is_quoted, int depth) {
        const std::string_view all = source_.text().substr(span.begin, span.end - span.begin);
        const Position at = source_.at(span.begin);
        std::size_t i = all.starts_with('#') && all.size() > 1 ? 1 : 0;
        const bool is_count = i == 1;
        const std::size_t begin = i;
        if (i < all.size() && begins_name(all[i]))
            while (i < all.size() && is_in_name(all[i])) ++i;
        else if (i < all.size() && std::isdigit(static_cast<unsigned char>(all[i])) != 0)
            while (i < all.size() && std::isdigit(static_cast<unsigned char>(all[i])) != 0) ++i;
        else if (i < all.size() && std::string_view("@*#?").find(all[i]) != std::string::npos)
            ++i;
        const std::string_view name = all.substr(begin, i - begin);
        std::string_view index;
        if (i < all.size() && all[i] == '[') {
            const std::size_t close = all.find(']', i);
            if (close == std::string_view::npos) return put_gap(all, at);
            index = all.substr(i + 1, close - i - 1);
            i = close + 1;
        }
        const std::string_view rest = all.substr(i);
        if (name.empty()) return put_gap(all, at);
        if (is_count) return put_count(name, index, at);
        if (rest.empty()) return put_variable(name, index, at, is_quoted);
        const bool minds_empty = rest[0] == ':';
        const char kind = rest.size() > (minds_empty ? 1 : 0) ? rest[minds_empty ? 1 : 0] : '\0';
        if (std::string_view("-=+?").find(kind) == std::string_view::npos || kind == '\0')
            return put_gap(all, at);
        const auto items = items_of(name, at);
        const bool is_there = items && !(minds_empty && (items->empty() || items->front().empty()));
        const std::size_t word = span.begin + i + (minds_empty ? 2 : 1);
        if (kind == '+') {
            if (is_there) expand({word, span.end}, is_quoted, depth + 1);
        } else if (is_there || kind == '?') {
            put_variable(name, index, at, is_quoted);
        } else {
            expand({word, span.end}, is_quoted, depth + 1);
            if (kind == '=') variables_.set(std::string(name), {{inner({word, span.end}, depth)}});
        }
    }

    void put_gap(std::string_view all, Position at) {
        words_.put_value(gap("${" + std::string(all) + "}", at), true);
    }

    void put_count(std::string_view name, std::string_view index, Position at) {
        const auto items = items_of(name, at);
        const std::size_t length = !items || items->empty() ? 0 : items->front().chars.size();
        const std::size_t count = index.empty() ? length : items ? items->size() : 0;
        words_.put_value(text_at(fmt::format("{}", count), at), true);
    }

    const ShellSource& source_;
    ShellVariables& variables_;
    Words words_;
};

}  // namespace

std::vector<Text> expand_words(const ShellSource& source, ShellSpan span,
                               ShellVariables& variables) {
    Expansion expansion(source, variables, true);
    expansion.expand(span, false);
    return expansion.take_words();
}

Text expand_text(const ShellSource& source, ShellSpan span, ShellVariables& variables,
                 bool is_quoted) {
    Expansion expansion(source, variables, false);
    expansion.expand(span, is_quoted);
    return expansion.take_text();
}

}  // namespace headway::inline importing
