#include "models/scenario/axis_values.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <string_view>

#include "models/scenario/quantity_text.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline scenario {
namespace {

[[noreturn]] void refuse_values(std::string found, std::string accepted) {
    throw InputError({.found = std::move(found), .accepted = std::move(accepted)});
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

std::vector<std::string_view> split_at_commas(std::string_view text) {
    std::vector<std::string_view> parts;
    for (std::size_t comma = text.find(','); comma != text.npos; comma = text.find(',')) {
        parts.push_back(trimmed(text.substr(0, comma)));
        text.remove_prefix(comma + 1);
    }
    parts.push_back(trimmed(text));
    return parts;
}

struct Measured {
    double number = 0.0;
    std::string_view unit;
};

Measured read_number(std::string_view text, std::string_view range) {
    text = trimmed(text);
    double number = 0.0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || !std::isfinite(number)) {
        refuse_values(fmt::format("{} in the range {}", in_quotes(text), in_quotes(range)),
                      "FIRST..LAST:STEP or FIRST..LAST:*FACTOR");
    }
    return {number, trimmed(text.substr(static_cast<std::size_t>(end - text.data())))};
}

struct NumberRange {
    double first = 0.0, last = 0.0, step = 1.0;
    bool is_geometric = false;
    std::string unit;
};

NumberRange read_range(std::string_view text, std::size_t dots) {
    const std::size_t colon = text.find(':', dots);
    std::string_view step_text = "1";
    if (colon != text.npos) step_text = trimmed(text.substr(colon + 1));
    const bool is_geometric = step_text.starts_with('*');
    if (is_geometric) step_text.remove_prefix(1);
    const Measured first = read_number(text.substr(0, dots), text);
    const std::size_t last_size = colon == text.npos ? text.npos : colon - dots - 2;
    const Measured last = read_number(text.substr(dots + 2, last_size), text);
    const Measured step = read_number(step_text, text);
    std::string_view unit;
    for (const Measured& m : {first, last, step}) {
        if (m.unit.empty()) continue;
        if (!unit.empty() && unit != m.unit) {
            refuse_values(
                fmt::format("units {} and {} in one range", in_quotes(unit), in_quotes(m.unit)),
                "one unit");
        }
        unit = m.unit;
    }
    if (last.number < first.number) {
        refuse_values(fmt::format("the range {} falls", in_quotes(text)), "FIRST at most LAST");
    }
    if (!(step.number > (is_geometric ? 1.0 : 0.0)) || (is_geometric && !(first.number > 0.0))) {
        refuse_values(fmt::format("the step of the range {}", in_quotes(text)),
                      is_geometric ? "a factor above 1, and FIRST above 0" : "a step above 0");
    }
    return {first.number, last.number, step.number, is_geometric, std::string(unit)};
}

void add_range(const NumberRange& r, std::string_view text, std::vector<std::string>& values) {
    // A value that rounding puts a hair above the last one still counts.
    constexpr double kHair = 1e-9;
    const double steps = r.is_geometric ? std::log(r.last / r.first) / std::log(r.step)
                                        : (r.last - r.first) / r.step;
    if (!(steps < static_cast<double>(kMaxAxisValues - values.size()))) {
        refuse_values(fmt::format("about {:.3g} values in the range {}", steps, in_quotes(text)),
                      fmt::format("at most {}", kMaxAxisValues));
    }
    const auto last = static_cast<std::size_t>(std::floor(steps + kHair));
    for (std::size_t i = 0; i <= last; ++i) {
        const double n = static_cast<double>(i);
        const double value = r.is_geometric ? r.first * std::pow(r.step, n) : r.first + n * r.step;
        // Twelve digits: 0.1 * 3 is 0.3.
        values.push_back(r.unit.empty() ? fmt::format("{:.12g}", value)
                                        : fmt::format("{:.12g} {}", value, r.unit));
    }
}

}  // namespace

std::vector<std::string> expand_values(const std::vector<std::string>& texts, Ranges ranges) {
    std::vector<std::string> values;
    for (const std::string& text : texts) {
        for (const std::string_view part : split_at_commas(text)) {
            if (part.empty())
                refuse_values(fmt::format("an empty value in {}", in_quotes(text)), "");
            const std::size_t dots = ranges == Ranges::allowed ? part.find("..") : part.npos;
            if (dots == part.npos) {
                values.emplace_back(part);
            } else {
                add_range(read_range(part, dots), part, values);
            }
            if (values.size() > kMaxAxisValues) {
                refuse_values("too many values", fmt::format("at most {}", kMaxAxisValues));
            }
        }
    }
    return values;
}

}  // namespace headway::inline scenario
