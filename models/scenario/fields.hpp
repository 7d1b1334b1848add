// One declaration of every key, four uses. describe(Fields&, T&) (describe.hpp) names each key of a
// value with its type, unit, range, meaning and whether it may be left out; a Fields then reads it
// from YAML (yaml_reader), writes it (yaml_writer), or records it for the documentation and the
// JSON Schema (key_docs). A key that may be left out keeps the value it has: its documented
// default.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/scenario/rule.hpp"

namespace headway::inline scenario {

class Fields {
  public:
    virtual ~Fields() = default;

    void text(std::string_view name, std::string& value, std::string_view meaning,
              Presence presence = Presence::required) {
        const Key key{.name = name,
                      .meaning = meaning,
                      .presence = presence,
                      .is_set = presence == Presence::required || !value.empty(),
                      .has_no_default = value.empty()};
        ScalarValue v = value;
        scalar(key, {.kind = Rule::Kind::text}, v);
        value = std::get<std::string>(v);
    }

    // Each returns whether the key was given.
    template <std::integral Integer>
    bool integer(std::string_view name, Integer& value, Range range, std::string_view meaning,
                 Presence presence = Presence::required, bool is_set = true) {
        ScalarValue v = static_cast<std::int64_t>(value);
        const bool given =
            scalar({.name = name, .meaning = meaning, .presence = presence, .is_set = is_set},
                   {.kind = Rule::Kind::integer, .range = range}, v);
        value = static_cast<Integer>(std::get<std::int64_t>(v));
        return given;
    }

    // A key that must be there unless another one stands for it.
    bool integer_unless(bool stands, std::string_view name, int& value, Range range,
                        std::string_view meaning) {
        ScalarValue v = std::int64_t{value};
        const bool must = is_reading() && !stands;
        const bool given = scalar({.name = name,
                                   .meaning = meaning,
                                   .presence = must ? Presence::required : Presence::optional,
                                   .has_no_default = true},
                                  {.kind = Rule::Kind::integer, .range = range}, v);
        value = static_cast<int>(std::get<std::int64_t>(v));
        return given;
    }

    void integer(std::string_view name, std::optional<int>& value, Range range,
                 std::string_view meaning) {
        int given = value.value_or(0);
        if (integer_if(name, value.has_value(), given, range, meaning)) value = given;
    }

    // A count whose 0 means "derive it"; not written when 0.
    void derived_integer(std::string_view name, int& value, Range range, std::string_view meaning) {
        integer_if(name, value != 0, value, range, meaning);
    }

    void number(std::string_view name, double& value, Range range, std::string_view meaning,
                Presence presence = Presence::required, UnitClass unit = UnitClass::none) {
        ScalarValue v = value;
        scalar({.name = name, .meaning = meaning, .presence = presence},
               {.kind = Rule::Kind::number, .unit = unit, .range = range}, v);
        value = std::get<double>(v);
    }

    void number(std::string_view name, std::optional<double>& value, Range range,
                std::string_view meaning) {
        ScalarValue v = value.value_or(0.0);
        const bool present = scalar(absent_unless(value.has_value(), name, meaning),
                                    {.kind = Rule::Kind::number, .range = range}, v);
        if (present) value = std::get<double>(v);
    }

    template <class Q>
    void quantity(std::string_view name, Q& value, Range range, std::string_view meaning,
                  Presence presence = Presence::required) {
        double base = value.in(UnitOf<Q>::base);
        number(name, base, range, meaning, presence, UnitOf<Q>::unit_class);
        value = base * UnitOf<Q>::base;
    }

    // A quantity that may be unknown; not written then.
    template <class Q>
    void quantity(std::string_view name, std::optional<Q>& value, Range range,
                  std::string_view meaning) {
        ScalarValue v = value.value_or(Q{}).in(UnitOf<Q>::base);
        const Rule rule = {
            .kind = Rule::Kind::number, .unit = UnitOf<Q>::unit_class, .range = range};
        if (scalar(absent_unless(value.has_value(), name, meaning), rule, v))
            value = std::get<double>(v) * UnitOf<Q>::base;
    }

    bool flag(std::string_view name, bool& value, std::string_view meaning,
              Presence presence = Presence::required) {
        ScalarValue v = value;
        const bool given = scalar({.name = name, .meaning = meaning, .presence = presence},
                                  {.kind = Rule::Kind::flag}, v);
        value = std::get<bool>(v);
        return given;
    }

    // Second names of keys, empty unless given: read, never written.
    void second_name(std::string_view name, std::optional<bool>& value, std::string_view meaning) {
        ScalarValue v = false;
        if (scalar(absent_unless(false, name, meaning), {.kind = Rule::Kind::flag}, v))
            value = std::get<bool>(v);
    }
    void second_name(std::string_view name, std::optional<int>& value, Range range,
                     std::string_view meaning) {
        ScalarValue v = std::int64_t{0};
        if (scalar(absent_unless(false, name, meaning),
                   {.kind = Rule::Kind::integer, .range = range}, v))
            value = static_cast<int>(std::get<std::int64_t>(v));
    }
    // The key `name` of this map was given beside what it contradicts.
    virtual void contradiction(std::string_view /*name*/, std::string_view /*found*/,
                               std::string_view /*accepted*/) {}
    // What a second name says, unless it contradicts the first.
    template <class T>
    void take(std::string_view name, const std::optional<T>& second, std::string_view first,
              bool first_given, T& value) {
        if (!second) return;
        if (first_given && *second != value)
            contradiction(name, std::string(first) + " beside it with another value",
                          "one of them, or the same value");
        value = *second;
    }

    template <class Enum, std::size_t n>
    bool choice(std::string_view name, Enum& value, const std::array<std::string_view, n>& names,
                std::string_view meaning, Presence presence = Presence::required) {
        ScalarValue v = static_cast<std::int64_t>(value);
        const bool given = scalar({.name = name, .meaning = meaning, .presence = presence},
                                  {.kind = Rule::Kind::choice, .names = names}, v);
        value = static_cast<Enum>(std::get<std::int64_t>(v));
        return given;
    }

    // One that may be left to a rule; not written then.
    template <class Enum, std::size_t n>
    void choice(std::string_view name, std::optional<Enum>& value,
                const std::array<std::string_view, n>& names, std::string_view meaning) {
        ScalarValue v = static_cast<std::int64_t>(value.value_or(Enum{}));
        if (scalar(absent_unless(value.has_value(), name, meaning),
                   {.kind = Rule::Kind::choice, .names = names}, v))
            value = static_cast<Enum>(std::get<std::int64_t>(v));
    }

    // A list of texts; a single one may stand without brackets. An empty list is not written.
    void texts(std::string_view name, std::vector<std::string>& values, std::string_view meaning,
               Presence presence = Presence::required) {
        text_list(
            {.name = name, .meaning = meaning, .presence = presence, .is_set = !values.empty()},
            {.kind = Rule::Kind::text}, values);
    }

    // A set of choices, bit i for names[i]; a single one may stand without brackets. An empty set
    // is not written.
    template <std::size_t n>
    bool choices(std::string_view name, unsigned& set, const std::array<std::string_view, n>& names,
                 std::string_view meaning) {
        std::vector<std::string> chosen;
        for (std::size_t i = 0; i < n; ++i) {
            if ((set >> i & 1u) != 0u) chosen.emplace_back(names[i]);
        }
        if (!text_list(absent_unless(set != 0u, name, meaning),
                       {.kind = Rule::Kind::choice, .names = names}, chosen))
            return false;
        set = 0u;
        for (std::size_t i = 0; i < n; ++i) {
            for (const std::string& text : chosen) set |= text == names[i] ? 1u << i : 0u;
        }
        return true;
    }

    // An older key that stands for others: read, never written.
    template <class Enum, std::size_t n>
    std::optional<Enum> older_choice(std::string_view name,
                                     const std::array<std::string_view, n>& names,
                                     std::string_view meaning) {
        ScalarValue v = std::int64_t{0};
        if (!scalar(absent_unless(false, name, meaning),
                    {.kind = Rule::Kind::choice, .names = names}, v))
            return std::nullopt;
        return static_cast<Enum>(std::get<std::int64_t>(v));
    }

    // A list of numbers; an empty one is not written.
    bool numbers(std::string_view name, std::vector<double>& values, Range range,
                 std::string_view meaning, Presence presence = Presence::required,
                 UnitClass unit = UnitClass::none) {
        return number_list(
            {.name = name, .meaning = meaning, .presence = presence, .is_set = !values.empty()},
            {.kind = Rule::Kind::number, .unit = unit, .range = range}, values);
    }

    bool matrix(std::string_view name, std::vector<std::vector<double>>& rows, Range range,
                std::string_view meaning, Presence presence = Presence::required,
                UnitClass unit = UnitClass::none) {
        return number_rows(
            {.name = name, .meaning = meaning, .presence = presence, .is_set = !rows.empty()},
            {.kind = Rule::Kind::number, .unit = unit, .range = range}, rows);
    }

    // A CSV file of numbers, relative to the file that names it. Never written: the numbers are.
    bool table_file(std::string_view name, std::vector<std::vector<double>>& rows, Range range,
                    std::string_view meaning) {
        return table({.name = name,
                      .meaning = meaning,
                      .presence = Presence::optional,
                      .has_no_default = true},
                     {.kind = Rule::Kind::number, .range = range}, rows);
    }

    // A nested map; `inner(fields, value)` declares its keys.
    template <class T, class Inner>
    void map(std::string_view name, T& value, std::string_view meaning, Inner inner,
             Presence presence = Presence::required) {
        if (!enter_map({.name = name, .meaning = meaning, .presence = presence})) return;
        inner(*this, value);
        leave_map();
    }

    template <class T, class Inner>
    void map(std::string_view name, std::optional<T>& value, std::string_view meaning,
             Inner inner) {
        if (!enter_map(absent_unless(value.has_value(), name, meaning))) return;
        if (!value) value.emplace();
        inner(*this, *value);
        leave_map();
    }

    // The same with the presence apart from the value.
    template <class T, class Inner>
    void map_if(std::string_view name, bool& is_set, T& value, std::string_view meaning,
                Inner inner) {
        if (!enter_map(absent_unless(is_set, name, meaning))) return;
        is_set = true;
        inner(*this, value);
        leave_map();
    }

    template <class T, class Inner>
    void list(std::string_view name, std::vector<T>& values, std::string_view meaning, Inner inner,
              Presence presence = Presence::required) {
        const std::optional<std::size_t> size = enter_list(
            {.name = name, .meaning = meaning, .presence = presence, .is_set = !values.empty()},
            values.size());
        if (!size) return;
        if (*size != values.size() || replaces_lists()) values.assign(*size, T{});
        for (std::size_t i = 0; i < *size; ++i) {
            if (!enter_item(i)) continue;
            inner(*this, values[i]);
            leave_item();
        }
        leave_list();
    }

    // A nested map that may also be a file or a preset with some keys overridden: `inner` runs once
    // per layer of overrides.
    template <class T, class Inner>
    void reference(std::string_view name, ReferenceKind kind, T& value, std::string_view meaning,
                   Inner inner) {
        run_reference({.name = name, .meaning = meaning}, kind, [&] { inner(*this, value); });
    }

    template <class T, class Inner>
    void reference(std::string_view name, ReferenceKind kind, std::optional<T>& value,
                   std::string_view meaning, Inner inner) {
        run_reference(absent_unless(value.has_value(), name, meaning), kind, [&] {
            if (!value) value.emplace();
            inner(*this, *value);
        });
    }

    // Keys that exist only when another key has a certain value. `when` is its text.
    template <class Inner>
    void only_when(std::string_view when, bool holds, Inner inner) {
        if (!enter_condition(when, holds)) return;
        inner();
        leave_condition();
    }

    // Exactly one of these keys, all declared optional, must be there.
    virtual void exactly_one_of(const std::vector<std::string_view>&) {}
    virtual void at_most_one_of(std::string_view, std::string_view) {}

  protected:
    // Each returns whether the value was there (reader), is written, or is recorded.
    virtual bool scalar(const Key& key, const Rule& rule, ScalarValue& value) = 0;
    virtual bool text_list(const Key& key, const Rule& rule, std::vector<std::string>& values) = 0;
    virtual bool number_list(const Key& key, const Rule& rule, std::vector<double>& values) = 0;
    virtual bool number_rows(const Key& key, const Rule& rule,
                             std::vector<std::vector<double>>& rows) = 0;
    virtual bool table(const Key& key, const Rule& rule,
                       std::vector<std::vector<double>>& rows) = 0;
    virtual bool enter_map(const Key& key) = 0;
    virtual void leave_map() = 0;
    virtual std::optional<std::size_t> enter_list(const Key& key, std::size_t size) = 0;
    virtual bool enter_item(std::size_t index) = 0;
    virtual void leave_item() = 0;
    virtual void leave_list() = 0;
    virtual bool replaces_lists() const { return false; }
    virtual bool is_reading() const { return false; }
    virtual bool enter_condition(std::string_view, bool holds) { return holds; }
    virtual void leave_condition() {}

    virtual int enter_reference(const Key& key, ReferenceKind kind) = 0;  // number of layers
    virtual void enter_layer(int index) = 0;
    virtual void leave_layer() = 0;
    virtual void leave_reference() = 0;

  private:
    bool integer_if(std::string_view name, bool is_set, int& value, Range range,
                    std::string_view meaning) {
        ScalarValue v = static_cast<std::int64_t>(value);
        const bool present = scalar(absent_unless(is_set, name, meaning),
                                    {.kind = Rule::Kind::integer, .range = range}, v);
        if (present) value = static_cast<int>(std::get<std::int64_t>(v));
        return present;
    }

    static Key absent_unless(bool is_set, std::string_view name, std::string_view meaning) {
        return {.name = name,
                .meaning = meaning,
                .presence = Presence::optional,
                .is_set = is_set,
                .has_no_default = true};
    }

    template <class Body>
    void run_reference(const Key& key, ReferenceKind kind, Body body) {
        const int num_layers = enter_reference(key, kind);
        for (int i = 0; i < num_layers; ++i) {
            enter_layer(i);
            body();
            leave_layer();
        }
        if (num_layers > 0) leave_reference();
    }
};

}  // namespace headway::inline scenario
