#include "models/scenario/parse_scalar.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/vocab/error.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::size_t kMaxText = 4096;

ParsedScalar rejected(std::string found, std::string hint = "") {
    return {{}, std::move(found), std::move(hint)};
}

ParsedScalar out_of_range(const std::string& text) {
    return rejected(in_quotes(text) + " is out of range");
}

ParsedScalar parse_text(const std::string& text) {
    if (text.empty()) return rejected("empty text");
    if (text.size() > kMaxText) return rejected(fmt::format("text of {} bytes", text.size()));
    const bool has_control = std::any_of(text.begin(), text.end(), [](char c) {
        return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    });
    if (has_control) return rejected(in_quotes(text) + " has control characters");
    return {text, "", ""};
}

ParsedScalar parse_flag(const YamlNode& node) {
    if (node.scalar == "true" || node.scalar == "false") {
        if (node.is_quoted)
            return rejected(in_quotes(node.scalar) + " is text", "remove the quotes");
        return {node.scalar == "true", "", ""};
    }
    return rejected(in_quotes(node.scalar) + " is neither true nor false");
}

ParsedScalar parse_choice(const std::string& text, const Rule& rule) {
    const auto found = std::find(rule.names.begin(), rule.names.end(), text);
    if (found != rule.names.end()) {
        return {static_cast<std::int64_t>(found - rule.names.begin()), "", ""};
    }
    const std::string near = did_you_mean(text, {rule.names.begin(), rule.names.end()});
    return rejected("unknown value " + in_quotes(text),
                    near.empty() ? "" : "did you mean '" + near + "'?");
}

ParsedScalar parse_whole(const YamlNode& node, const Rule& rule) {
    const std::optional<std::int64_t> value = parse_integer(node.scalar);
    if (!value) {
        const std::optional<double> number = parse_number(node.scalar);
        if (number && std::abs(*number) >= 9.2e18) return out_of_range(node.scalar);
        return rejected(in_quotes(node.scalar) + " is not an integer");
    }
    if (node.is_quoted) return rejected(in_quotes(node.scalar) + " is text", "remove the quotes");
    if (!is_in_range(static_cast<double>(*value), rule.range)) return out_of_range(node.scalar);
    return {*value, "", ""};
}

ParsedScalar parse_real(const YamlNode& node, const Rule& rule) {
    const std::optional<double> value = parse_number(node.scalar);
    if (!value) return rejected(in_quotes(node.scalar) + " is not a finite number");
    if (node.is_quoted) return rejected(in_quotes(node.scalar) + " is text", "remove the quotes");
    if (!is_in_range(*value, rule.range)) return out_of_range(node.scalar);
    return {*value, "", ""};
}

}  // namespace

bool is_in_range(double value, const Range& range) {
    return value <= range.high && (range.above_low ? value > range.low : value >= range.low);
}

ParsedScalar parse_scalar(const YamlNode& node, const Rule& rule) {
    switch (rule.kind) {
        case Rule::Kind::text:
            return parse_text(node.scalar);
        case Rule::Kind::flag:
            return parse_flag(node);
        case Rule::Kind::choice:
            return parse_choice(node.scalar, rule);
        case Rule::Kind::integer:
            return parse_whole(node, rule);
        default:
            break;
    }
    if (rule.unit == UnitClass::none) return parse_real(node, rule);
    ParsedQuantity parsed = parse_quantity(node.scalar, rule.unit);
    if (!parsed.value) return rejected(std::move(parsed.found), std::move(parsed.hint));
    if (!is_in_range(*parsed.value, rule.range)) return out_of_range(node.scalar);
    return {*parsed.value, "", ""};
}

}  // namespace headway::inline scenario
