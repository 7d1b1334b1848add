#include "models/scenario/accepted_text.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

namespace headway::inline scenario {
namespace {

std::string range_text(const Rule& rule) {
    const auto number = [&](double value) {
        return rule.kind == Rule::Kind::integer ? fmt::format("{:.0f}", value)
                                                : quantity_to_text(value, rule.unit);
    };
    const bool has_low = std::isfinite(rule.range.low), has_high = std::isfinite(rule.range.high);
    std::string text;
    if (has_low && rule.range.above_low) {
        text = " above " + number(rule.range.low);
        if (has_high) text += " and at most " + number(rule.range.high);
    } else if (has_low && has_high) {
        text = fmt::format(" from {} to {}", number(rule.range.low), number(rule.range.high));
    } else if (has_low) {
        text = " of at least " + number(rule.range.low);
    }
    return text;
}

}  // namespace

std::string accepted_text(const Rule& rule) {
    switch (rule.kind) {
        case Rule::Kind::text:
            return "text";
        case Rule::Kind::flag:
            return "true or false";
        case Rule::Kind::choice:
            return fmt::format("one of: {}", fmt::join(rule.names, ", "));
        case Rule::Kind::integer:
            return "an integer" + range_text(rule);
        default:
            return std::string(unit_class_example(rule.unit)) + range_text(rule);
    }
}

std::string default_text(const Rule& rule, const ScalarValue& value) {
    switch (rule.kind) {
        case Rule::Kind::text:
            return std::get<std::string>(value);
        case Rule::Kind::flag:
            return std::get<bool>(value) ? "true" : "false";
        case Rule::Kind::choice:
            return std::string(rule.names[static_cast<std::size_t>(std::get<std::int64_t>(value))]);
        case Rule::Kind::integer:
            return fmt::format("{}", std::get<std::int64_t>(value));
        default:
            return quantity_to_text(std::get<double>(value), rule.unit);
    }
}

}  // namespace headway::inline scenario
