#include "models/scenario/quantity_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "models/vocab/error.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::array kBytes = {Unit{"B", 0, 0},    Unit{"KB", 3, 0},   Unit{"MB", 6, 0},
                               Unit{"GB", 9, 0},   Unit{"TB", 12, 0},  Unit{"KiB", 0, 10},
                               Unit{"MiB", 0, 20}, Unit{"GiB", 0, 30}, Unit{"TiB", 0, 40}};
constexpr std::array kSeconds = {Unit{"s", 0, 0}, Unit{"ms", -3, 0}, Unit{"us", -6, 0},
                                 Unit{"ns", -9, 0}, Unit{"ps", -12, 0}};
constexpr std::array kFlops = {Unit{"FLOP", 0, 0},  Unit{"KFLOP", 3, 0},  Unit{"MFLOP", 6, 0},
                               Unit{"GFLOP", 9, 0}, Unit{"TFLOP", 12, 0}, Unit{"PFLOP", 15, 0}};
// Gbps counts bits: 10^9 / 8 bytes a second.
constexpr std::array kBandwidthUnits = {
    Unit{"B/s", 0, 0},    Unit{"KB/s", 3, 0},   Unit{"MB/s", 6, 0},   Unit{"GB/s", 9, 0},
    Unit{"TB/s", 12, 0},  Unit{"KiB/s", 0, 10}, Unit{"MiB/s", 0, 20}, Unit{"GiB/s", 0, 30},
    Unit{"TiB/s", 0, 40}, Unit{"bps", 0, -3},   Unit{"Mbps", 6, -3},  Unit{"Gbps", 9, -3},
    Unit{"Tbps", 12, -3}};
constexpr std::array kFlopRate = {Unit{"FLOP/s", 0, 0},   Unit{"KFLOP/s", 3, 0},
                                  Unit{"MFLOP/s", 6, 0},  Unit{"GFLOP/s", 9, 0},
                                  Unit{"TFLOP/s", 12, 0}, Unit{"PFLOP/s", 15, 0}};
constexpr std::array kPercent = {Unit{"%", -2, 0}};

constexpr std::array kClasses = {UnitClass::bytes,     UnitClass::seconds,   UnitClass::flops,
                                 UnitClass::bandwidth, UnitClass::flop_rate, UnitClass::percent};

std::string_view class_noun(UnitClass unit_class) {
    switch (unit_class) {
        case UnitClass::bytes:
            return "an amount of bytes";
        case UnitClass::seconds:
            return "a time";
        case UnitClass::flops:
            return "a number of FLOPs";
        case UnitClass::bandwidth:
            return "a bandwidth";
        case UnitClass::flop_rate:
            return "a FLOP rate";
        case UnitClass::percent:
            return "a percentage";
        default:
            return "a plain number";
    }
}

const Unit* find_unit(std::string_view name, UnitClass unit_class) {
    for (const Unit& unit : units_of(unit_class)) {
        if (unit.name == name) return &unit;
    }
    return nullptr;
}

std::string lower(std::string_view text) {
    std::string result(text);
    for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    return result;
}

// NOTE: an edit distance would answer 'GBps' with 'Gbps', eight times less; so bits and bytes are
// told apart by the case of the b.
std::string unit_hint(std::string_view name, UnitClass unit_class) {
    if (unit_class == UnitClass::bandwidth && name.ends_with("ps") && name.size() <= 5) {
        return "GB/s is bytes per second, Gbps is bits per second";
    }
    if (name.ends_with("FLOPS") || name.ends_with("FLOPs")) {
        const std::string stem(name.substr(0, name.size() - 1));
        const std::string rate = unit_class == UnitClass::flop_rate ? stem + "/s" : stem;
        if (find_unit(rate, unit_class)) return "did you mean '" + rate + "'?";
    }
    for (const Unit& unit : units_of(unit_class)) {
        if (lower(unit.name) == lower(name)) {
            return fmt::format("did you mean '{}'?", unit.name);
        }
    }
    return "";
}

std::string unit_problem(std::string_view name, UnitClass wanted) {
    for (const UnitClass other : kClasses) {
        if (other != wanted && find_unit(name, other)) {
            return fmt::format("is {}, not {}", class_noun(other), class_noun(wanted));
        }
    }
    return fmt::format("has unknown unit {}", in_quotes(name));
}

// Shortest decimal digits of `value` times 10^-ten: "1.48e-05" and -6 give "14.8".
std::string shifted_text(double value, int ten) {
    std::array<char, 64> buffer;
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                   std::chars_format::scientific)
                         .ptr;
    const std::string_view all(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
    const std::size_t e = all.find('e');
    int exponent = 0;
    const std::size_t digits_of_exponent = all[e + 1] == '+' ? e + 2 : e + 1;
    std::from_chars(all.data() + digits_of_exponent, all.data() + all.size(), exponent);
    exponent -= ten;
    std::string digits;
    for (const char c : all.substr(0, e)) {
        if (c >= '0' && c <= '9') digits += c;
    }
    const std::string sign = value < 0 ? "-" : "";
    const int size = static_cast<int>(digits.size());
    if (exponent < -4 || exponent > 15) {
        std::string mantissa = digits.substr(0, 1);
        if (size > 1) mantissa += "." + digits.substr(1);
        return fmt::format("{}{}e{}", sign, mantissa, exponent);
    }
    if (exponent < 0) return sign + "0." + std::string(-exponent - 1, '0') + digits;
    if (exponent >= size - 1) return sign + digits + std::string(exponent - size + 1, '0');
    return sign + digits.substr(0, exponent + 1) + "." + digits.substr(exponent + 1);
}

// Digits with at most one point, then perhaps an exponent. from_chars alone would also take "inf",
// "nan" and more; the length limit keeps hostile digits cheap.
bool is_decimal(std::string_view text) {
    if (text.size() > 64) return false;
    const auto skip_digits = [&text] {
        const std::size_t count = std::min(text.find_first_not_of("0123456789"), text.size());
        text.remove_prefix(count);
        return count;
    };
    if (text.starts_with('-')) text.remove_prefix(1);
    std::size_t num_digits = skip_digits();
    if (text.starts_with('.')) {
        text.remove_prefix(1);
        num_digits += skip_digits();
    }
    if (num_digits == 0 || text.empty()) return num_digits > 0;
    if (text.front() != 'e' && text.front() != 'E') return false;
    text.remove_prefix(1);
    if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
    return skip_digits() > 0 && text.empty();
}

}  // namespace

std::span<const Unit> units_of(UnitClass unit_class) {
    switch (unit_class) {
        case UnitClass::bytes:
            return kBytes;
        case UnitClass::seconds:
            return kSeconds;
        case UnitClass::flops:
            return kFlops;
        case UnitClass::bandwidth:
            return kBandwidthUnits;
        case UnitClass::flop_rate:
            return kFlopRate;
        case UnitClass::percent:
            return kPercent;
        default:
            return {};
    }
}

std::string_view unit_class_example(UnitClass unit_class) {
    switch (unit_class) {
        case UnitClass::bytes:
            return "an amount of bytes such as '80 GiB' or '64 MB'";
        case UnitClass::seconds:
            return "a time such as '2 us' or '1.5 ms'";
        case UnitClass::flops:
            return "a number of FLOPs such as '2 GFLOP'";
        case UnitClass::bandwidth:
            return "a bandwidth such as '450 GB/s' (bytes) or '400 Gbps' (bits)";
        case UnitClass::flop_rate:
            return "a FLOP rate such as '989 TFLOP/s'";
        case UnitClass::percent:
            return "a percentage such as '4 %'";
        default:
            return "a number";
    }
}

std::string unit_list(UnitClass unit_class) {
    std::string text;
    for (const Unit& unit : units_of(unit_class)) {
        if (!text.empty()) text += ' ';
        text += unit.name;
    }
    return text;
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || text.empty()) return {};
    return value;
}

std::optional<double> parse_number(std::string_view text, int ten) {
    if (!is_decimal(text)) return {};
    const std::size_t e = text.find_first_of("eE");
    std::int64_t exponent = 0;
    if (e != std::string_view::npos) {
        std::string_view digits = text.substr(e + 1);
        if (digits.starts_with('+')) digits.remove_prefix(1);
        const std::optional<std::int64_t> parsed = parse_integer(digits);
        if (!parsed || *parsed > 10000 || *parsed < -10000) return {};
        exponent = *parsed;
    }
    const std::string shifted = fmt::format("{}e{}", text.substr(0, e), exponent + ten);
    double value = 0.0;
    const auto [end, error] =
        std::from_chars(shifted.data(), shifted.data() + shifted.size(), value);
    if (error != std::errc() || end != shifted.data() + shifted.size()) return {};
    if (!std::isfinite(value)) return {};
    return value;
}

ParsedQuantity parse_quantity(std::string_view text, UnitClass unit_class) {
    const std::size_t digits_end = std::min(text.find_first_not_of("0123456789.eE+-"), text.size());
    std::size_t unit_begin = digits_end;
    while (unit_begin < text.size() && text[unit_begin] == ' ') ++unit_begin;
    const std::string_view number = text.substr(0, digits_end);
    const std::string_view unit_name = text.substr(unit_begin);
    if (!is_decimal(number)) {
        return {{}, fmt::format("{} is not a number with a unit", in_quotes(text)), ""};
    }
    if (unit_name.empty()) return {{}, fmt::format("{} has no unit", in_quotes(text)), ""};
    const Unit* unit = find_unit(unit_name, unit_class);
    if (!unit) {
        return {{},
                fmt::format("{} {}", in_quotes(text), unit_problem(unit_name, unit_class)),
                unit_hint(unit_name, unit_class)};
    }
    const std::optional<double> value = parse_number(number, unit->ten);
    if (!value || !std::isfinite(std::ldexp(*value, unit->two))) {
        return {{}, fmt::format("{} is beyond double precision", in_quotes(text)), ""};
    }
    return {std::ldexp(*value, unit->two), "", ""};
}

std::string number_to_text(double value) {
    return value == 0.0 ? "0" : shifted_text(value, 0);
}

std::string quantity_to_text(double value, UnitClass unit_class) {
    if (unit_class == UnitClass::none) return number_to_text(value);
    if (value == 0.0) return fmt::format("0 {}", units_of(unit_class).front().name);
    std::string best;
    for (const Unit& unit : units_of(unit_class)) {
        const std::string number = shifted_text(std::ldexp(value, -unit.two), unit.ten);
        const std::string text = fmt::format("{} {}", number, unit.name);
        if (parse_quantity(text, unit_class).value != value) continue;
        if (best.empty() || text.size() < best.size()) best = text;
    }
    return best;
}

std::string in_quotes(std::string_view text, std::size_t most) {
    std::string result = "'";
    for (const char c : text.substr(0, most)) {
        const unsigned char code = static_cast<unsigned char>(c);
        if (code < 0x20 || code >= 0x7f) {
            result += fmt::format("\\x{:02x}", code);
        } else {
            result += c;
        }
    }
    return result + (text.size() > most ? "...'" : "'");
}

}  // namespace headway::inline scenario
