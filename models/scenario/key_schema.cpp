// JSON Schema (draft 7, which yaml-language-server reads) of the recorded keys. It checks
// structure, types, units and ranges; what spans several keys is left to the reader.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "models/scenario/accepted_text.hpp"
#include "models/scenario/key_docs.hpp"

namespace headway::inline scenario {
namespace {

using Json = nlohmann::ordered_json;

std::string reference_name(ReferenceKind kind) {
    return std::string(kReferenceNames[static_cast<std::size_t>(kind)]);
}

Json quantity_schema(UnitClass unit) {
    std::string units;
    for (const Unit& u : units_of(unit)) {
        units += (units.empty() ? "" : "|") + std::string(u.name);
    }
    return {{"type", "string"},
            {"pattern", fmt::format("^[0-9.]+([eE][+-]?[0-9]+)? *({})$", units)}};
}

void add_range(Json& schema, const Range& range, bool is_integer) {
    const auto number = [is_integer](double value) {
        return is_integer ? Json(static_cast<std::int64_t>(value)) : Json(value);
    };
    if (std::isfinite(range.low)) {
        schema[range.above_low ? "exclusiveMinimum" : "minimum"] = number(range.low);
    }
    if (std::isfinite(range.high)) schema["maximum"] = number(range.high);
}

Json scalar_schema(const Rule& rule) {
    switch (rule.kind) {
        case Rule::Kind::text:
            // An unquoted 13 or true is text to the reader, a number or boolean to an editor.
            return {{"type", {"string", "number", "boolean"}},
                    {"pattern", "^[^\\x00-\\x1f\\x7f]+$"}};
        case Rule::Kind::flag:
            return {{"type", "boolean"}};
        case Rule::Kind::choice: {
            Json names = Json::array();
            for (const std::string_view name : rule.names) names.push_back(std::string(name));
            return {{"enum", names}};
        }
        case Rule::Kind::integer: {
            Json schema = {{"type", "integer"}};
            add_range(schema, rule.range, true);
            return schema;
        }
        default:
            break;
    }
    if (rule.unit != UnitClass::none) return quantity_schema(rule.unit);
    Json schema = {{"type", "number"}};
    add_range(schema, rule.range, false);
    return schema;
}

Json map_schema(const KeyDoc& doc, bool is_override);

Json key_schema(const KeyDoc& key, bool is_override) {
    switch (key.kind) {
        case KeyDoc::Kind::texts: {
            const Json value = scalar_schema(key.rule);
            return {{"anyOf", {value, {{"type", "array"}, {"items", value}, {"minItems", 1}}}}};
        }
        case KeyDoc::Kind::numbers:
            return {{"type", "array"}, {"items", scalar_schema(key.rule)}, {"minItems", 1}};
        case KeyDoc::Kind::rows: {
            const Json row = {
                {"type", "array"}, {"items", scalar_schema(key.rule)}, {"minItems", 1}};
            return {{"type", "array"}, {"items", row}, {"minItems", 1}};
        }
        case KeyDoc::Kind::table:
            return {{"type", "string"}, {"minLength", 1}};
        case KeyDoc::Kind::map:
            return map_schema(key, is_override);
        case KeyDoc::Kind::list: {
            Json schema = {{"type", "array"}, {"items", map_schema(key, false)}};
            if (key.is_required) schema["minItems"] = 1;
            return schema;
        }
        case KeyDoc::Kind::reference: {
            const std::string name = reference_name(key.reference);
            return {{"anyOf",
                     {{{"type", "string"}, {"minLength", 1}},
                      {{"$ref", "#/definitions/" + name}},
                      {{"$ref", "#/definitions/" + name + "_on_preset"}}}}};
        }
        default:
            return scalar_schema(key.rule);
    }
}

// "kind: zipf, power_law" as a schema that holds exactly then.
Json condition_schema(const std::string& when) {
    const std::size_t colon = when.find(": ");
    Json values = Json::array();
    std::size_t begin = colon + 2;
    while (begin < when.size()) {
        const std::size_t end = std::min(when.find(", ", begin), when.size());
        const std::string value = when.substr(begin, end - begin);
        const bool is_truth = value == "true" || value == "false";
        values.push_back(is_truth ? Json(value == "true") : Json(value));
        begin = end + 2;
    }
    const std::string key = when.substr(0, colon);
    return {{"properties", {{key, {{"enum", values}}}}}, {"required", {key}}};
}

Json one_of(const std::vector<std::string>& names) {
    Json each = Json::array();
    for (const std::string& name : names) each.push_back({{"required", Json::array({name})}});
    return {{"oneOf", each}};
}

// The demands on keys that exist only under a condition, and on choices.
Json demands(const KeyDoc& doc) {
    Json all = Json::array();
    for (const KeyDoc& key : doc.children) {
        if (key.when.empty()) continue;
        Json then = Json::object();
        if (key.is_required) then["required"] = {key.name};
        all.push_back({{"if", condition_schema(key.when)},
                       {"then", then},
                       {"else", {{"not", {{"required", {key.name}}}}}}});
    }
    for (const KeyDoc::Choice& choice : doc.exactly_one_of) {
        if (choice.when.empty()) {
            all.push_back(one_of(choice.names));
        } else {
            all.push_back({{"if", condition_schema(choice.when)}, {"then", one_of(choice.names)}});
        }
    }
    for (const KeyDoc::Choice& choice : doc.at_most_one_of)
        all.push_back({{"not", {{"required", choice.names}}}});
    return all;
}

Json map_schema(const KeyDoc& doc, bool is_override) {
    Json properties = Json::object(), required = Json::array();
    for (const KeyDoc& key : doc.children) {
        // The same file may be named under two conditions; one entry serves both.
        if (properties.contains(key.name)) continue;
        Json schema = key_schema(key, is_override);
        std::string text = key.meaning;
        if (key.kind == KeyDoc::Kind::scalar) text += ". Accepts " + accepted_text(key.rule);
        if (key.default_text) text += ". Default: " + *key.default_text;
        schema["description"] = text;
        properties[key.name] = schema;
        if (key.is_required && key.when.empty()) required.push_back(key.name);
    }
    Json schema = {{"type", "object"}};
    const bool is_demanding = !is_override && doc.has_required_key();
    if (!is_demanding) schema["type"] = {"object", "null"};
    schema["properties"] = properties;
    schema["additionalProperties"] = false;
    if (is_demanding && !required.empty()) schema["required"] = required;
    Json all = is_override ? Json::array() : demands(doc);
    if (!all.empty()) schema["allOf"] = all;
    return schema;
}

Json definitions(const KeyDoc& root) {
    Json result = Json::object();
    for (const KeyDoc& key : root.children) {
        if (key.kind != KeyDoc::Kind::reference) continue;
        const std::string name = reference_name(key.reference);
        result[name] = map_schema(key, false);
        Json on_preset = map_schema(key, true);
        on_preset["type"] = "object";
        on_preset["properties"]["preset"] = {
            {"type", "string"},
            {"minLength", 1},
            {"description", "a name from `headway list`; the other keys replace its values"}};
        on_preset["required"] = {"preset"};
        result[name + "_on_preset"] = on_preset;
    }
    return result;
}

}  // namespace

std::string scenario_schema() {
    const KeyDoc root = record_scenario_keys();
    Json schema = {{"$schema", "http://json-schema.org/draft-07/schema#"},
                   {"title", "headway scenario"}};
    schema.update(map_schema(root, false));
    schema["definitions"] = definitions(root);
    return schema.dump(1) + '\n';
}

std::string part_schema(ReferenceKind kind) {
    const std::string name = reference_name(kind);
    const std::string definitions = "scenario.schema.json#/definitions/" + name;
    const Json schema = {
        {"$schema", "http://json-schema.org/draft-07/schema#"},
        {"title", "headway " + name},
        {"anyOf", {{{"$ref", definitions}}, {{"$ref", definitions + "_on_preset"}}}}};
    return schema.dump(1) + '\n';
}

}  // namespace headway::inline scenario
