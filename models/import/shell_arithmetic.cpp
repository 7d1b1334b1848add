#include <fmt/format.h>

#include <array>
#include <cctype>
#include <charconv>

#include "models/import/shell_variables.hpp"

namespace headway::inline importing {
namespace {

struct Operator {
    std::string_view text;
    int rank;  // the higher, the tighter
};
// The longer ones first.
constexpr std::array<Operator, 13> kOperators = {{{"||", 1},
                                                  {"&&", 2},
                                                  {"==", 3},
                                                  {"!=", 3},
                                                  {"<=", 4},
                                                  {">=", 4},
                                                  {"<", 4},
                                                  {">", 4},
                                                  {"+", 5},
                                                  {"-", 5},
                                                  {"*", 6},
                                                  {"/", 6},
                                                  {"%", 6}}};

// A name without a value, by which the whole expression is open; empty: not a number at all.
struct NoValue {
    std::string name;
};

class Arithmetic {
  public:
    Arithmetic(std::string_view text, const ShellVariables& variables)
        : text_(text), variables_(variables) {}

    std::int64_t whole() {
        const std::int64_t value = choice(0);
        skip_blanks();
        if (at_ < text_.size()) throw NoValue{};
        return value;
    }

  private:
    void skip_blanks() {
        while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0)
            ++at_;
    }
    bool take(std::string_view word) {
        skip_blanks();
        if (!text_.substr(at_).starts_with(word)) return false;
        at_ += word.size();
        return true;
    }

    std::int64_t choice(int depth) {
        const std::int64_t condition = operation(0, depth);
        if (!take("?")) return condition;
        const std::int64_t yes = choice(depth + 1);
        if (!take(":")) throw NoValue{};
        const std::int64_t no = choice(depth + 1);
        return condition != 0 ? yes : no;
    }

    const Operator* peek() {
        skip_blanks();
        for (const Operator& candidate : kOperators) {
            if (text_.substr(at_).starts_with(candidate.text)) return &candidate;
        }
        return nullptr;
    }

    std::int64_t operation(int rank, int depth) {
        std::int64_t left = operand(depth + 1);
        while (const Operator* found = peek()) {
            if (found->rank <= rank) break;
            at_ += found->text.size();
            left = apply(found->text, left, operation(found->rank, depth + 1));
        }
        return left;
    }

    static std::int64_t apply(std::string_view by, std::int64_t a, std::int64_t b) {
        std::int64_t result = 0;
        bool fails = false;
        if (by == "+")
            fails = __builtin_add_overflow(a, b, &result);
        else if (by == "-")
            fails = __builtin_sub_overflow(a, b, &result);
        else if (by == "*")
            fails = __builtin_mul_overflow(a, b, &result);
        else if (by == "/" || by == "%") {
            fails = b == 0 || (b == -1 && a < -std::int64_t{0x7fffffffffffffff});
            if (!fails) result = by == "/" ? a / b : a % b;
        } else
            result = by == "||"   ? a != 0 || b != 0
                     : by == "&&" ? a != 0 && b != 0
                     : by == "==" ? a == b
                     : by == "!=" ? a != b
                     : by == "<"  ? a < b
                     : by == ">"  ? a > b
                     : by == "<=" ? a <= b
                                  : a >= b;
        if (fails) throw NoValue{};
        return result;
    }

    std::int64_t operand(int depth) {
        constexpr int max_depth = 100;
        if (depth > max_depth) throw NoValue{};
        if (take("(")) {
            const std::int64_t value = choice(depth + 1);
            if (!take(")")) throw NoValue{};
            return value;
        }
        if (take("-")) return apply("-", 0, operand(depth + 1));
        if (take("+")) return operand(depth + 1);
        if (take("!")) return operand(depth + 1) == 0 ? 1 : 0;
        skip_blanks();
        if (const auto open = first_gap(text_.substr(at_)); open && text_[at_] == '\x01')
            throw NoValue{*open};
        std::size_t end = at_;
        while (end < text_.size() &&
               (std::isalnum(static_cast<unsigned char>(text_[end])) != 0 || text_[end] == '_'))
            ++end;
        const std::string_view word = text_.substr(at_, end - at_);
        at_ = end;
        return value_of(word);
    }

    std::int64_t value_of(std::string_view word) const {
        if (word.empty()) throw NoValue{};
        std::string digits(word);
        if (std::isdigit(static_cast<unsigned char>(word[0])) == 0) {
            const ShellVariable* variable = variables_.find(word);
            if (variable == nullptr || variable->items.empty()) throw NoValue{std::string(word)};
            digits = variable->items.front().chars;
            if (const auto open = first_gap(digits)) throw NoValue{*open};
        }
        std::int64_t value = 0;
        const char* const end = digits.data() + digits.size();
        const auto [stop, error] = std::from_chars(digits.data(), end, value);
        if (error != std::errc() || stop != end) throw NoValue{};
        return value;
    }

    std::string_view text_;
    const ShellVariables& variables_;
    std::size_t at_ = 0;
};

}  // namespace

Text evaluate_arithmetic(const Text& text, const ShellVariables& variables) {
    const Position at = text.where();
    try {
        return text_at(fmt::format("{}", Arithmetic(text.chars, variables).whole()), at);
    } catch (const NoValue& open) {
        return gap(open.name.empty() ? "$((" + shown(text.chars) + "))" : open.name, at);
    }
}

bool assign_arithmetic(const Text& text, ShellVariables& variables) {
    std::string_view rest = text.chars;
    const auto trim = [&] {
        while (!rest.empty() && std::isspace(static_cast<unsigned char>(rest.front())) != 0)
            rest.remove_prefix(1);
        while (!rest.empty() && std::isspace(static_cast<unsigned char>(rest.back())) != 0)
            rest.remove_suffix(1);
    };
    trim();
    const bool is_before = rest.starts_with("++") || rest.starts_with("--");
    const std::string_view step = is_before ? rest.substr(0, 2) : std::string_view();
    if (is_before) rest.remove_prefix(2);
    trim();
    std::size_t end = 0;
    while (end < rest.size() && is_in_name(rest[end])) ++end;
    if (end == 0 || !begins_name(rest.front())) return false;
    const std::string name(rest.substr(0, end));
    rest.remove_prefix(end);
    trim();
    std::string value;
    if ((is_before && rest.empty()) || rest == "++" || rest == "--")
        value = fmt::format("{} {} 1", name, (is_before ? step : rest).substr(0, 1));
    else if (is_before)
        return false;
    else if (rest.size() > 2 && rest[1] == '=' &&
             std::string_view("+-*/%").find(rest[0]) != rest.npos)
        value = fmt::format("{} {} ({})", name, rest[0], rest.substr(2));
    else if (rest.size() > 1 && rest[0] == '=' && rest[1] != '=')
        value = rest.substr(1);
    else
        return false;
    variables.set(name, {{evaluate_arithmetic(text_at(value, text.where()), variables)}});
    return true;
}

}  // namespace headway::inline importing
