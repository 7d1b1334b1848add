// Numbers and quantities as text: "450 GB/s", "2 us", "4 %". A unit is a power of ten times a power
// of two of its base unit, and the decimal shift is done on the text, so that "14.8 us" is the
// double nearest to 14.8e-6 and what is printed reads back to the same bits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace headway::inline scenario {

enum class UnitClass { none, bytes, seconds, flops, bandwidth, flop_rate, percent };

struct Unit {
    std::string_view name;
    int ten = 0;  // 10^ten * 2^two of the base unit: byte, second, FLOP, byte/s, FLOP/s, 1
    int two = 0;
};

std::span<const Unit> units_of(UnitClass unit_class);
// "a bandwidth", with an example: "a bandwidth such as '450 GB/s' or '400 Gbps'".
std::string_view unit_class_example(UnitClass unit_class);
std::string unit_list(UnitClass unit_class);

std::optional<std::int64_t> parse_integer(std::string_view text);
// A finite decimal number, shifted by 10^ten; nullopt for anything else, overflow included.
std::optional<double> parse_number(std::string_view text, int ten = 0);

struct ParsedQuantity {
    std::optional<double> value;  // in the base unit
    std::string found;            // when there is no value: what is wrong
    std::string hint;
};
ParsedQuantity parse_quantity(std::string_view text, UnitClass unit_class);

// The shortest text that reads back to exactly `value` (base unit).
std::string number_to_text(double value);
std::string quantity_to_text(double value, UnitClass unit_class);

// Text for a message: one line, no control characters, at most so many bytes; names of files whole.
inline constexpr std::size_t kLongestPath = 4096;
std::string in_quotes(std::string_view text, std::size_t most = 60);

}  // namespace headway::inline scenario
