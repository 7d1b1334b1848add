// What a declaration says about one key: its name, meaning and presence, and the rule that its
// value obeys (type, unit, range, names).
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "models/scenario/quantity_text.hpp"
#include "models/vocab/units.hpp"

namespace headway::inline scenario {

enum class Presence { required, optional };

struct Key {
    std::string_view name;
    std::string_view meaning;
    Presence presence = Presence::required;
    bool is_set = true;           // the value holds something to write
    std::string_view when = {};   // "kind: zipf, power_law": the key exists only then
    bool has_no_default = false;  // left out means absent, not a value
};

struct Range {
    double low = -std::numeric_limits<double>::infinity();
    double high = std::numeric_limits<double>::infinity();
    bool above_low = false;  // low itself is outside
};
inline constexpr Range kPositive = {.low = 0.0, .above_low = true};
inline constexpr Range kNotNegative = {.low = 0.0};

struct Rule {
    enum class Kind { text, integer, number, flag, choice };
    Kind kind = Kind::text;
    UnitClass unit = UnitClass::none;  // number only
    Range range = {};
    std::span<const std::string_view> names = {};  // choice only
};

// text, integer (also: index of a choice), number (in the base unit), flag
using ScalarValue = std::variant<std::string, std::int64_t, double, bool>;

// What a key may refer to instead of holding the value inline: a file, or a preset of this folder.
enum class ReferenceKind { model, cluster, profile };
inline constexpr std::array kReferenceNames = {
    std::string_view("model"), std::string_view("cluster"), std::string_view("profile")};

template <class Q>
struct UnitOf;
template <>
struct UnitOf<Bytes> {
    static constexpr UnitClass unit_class = UnitClass::bytes;
    static constexpr Bytes base = byte;
};
template <>
struct UnitOf<Seconds> {
    static constexpr UnitClass unit_class = UnitClass::seconds;
    static constexpr Seconds base = second;
};
template <>
struct UnitOf<Bandwidth> {
    static constexpr UnitClass unit_class = UnitClass::bandwidth;
    static constexpr Bandwidth base = byte / second;
};
template <>
struct UnitOf<FlopRate> {
    static constexpr UnitClass unit_class = UnitClass::flop_rate;
    static constexpr FlopRate base = flop / second;
};

}  // namespace headway::inline scenario
