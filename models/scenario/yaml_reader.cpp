#include "models/scenario/yaml_reader.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <span>

#include "models/scenario/accepted_text.hpp"
#include "models/scenario/parse_scalar.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::size_t kMaxProblems = 100;

std::string_view kind_noun(const YamlNode& node) {
    switch (node.kind) {
        case YamlNode::Kind::null:
            return "no value";
        case YamlNode::Kind::list:
            return "a list";
        case YamlNode::Kind::map:
            return "a map";
        default:
            return "a single value";
    }
}

}  // namespace

std::string YamlReader::path_of(std::string_view key) const {
    if (path_.empty()) return std::string(key);
    if (key.empty()) return path_;
    return path_ + '.' + std::string(key);
}

void YamlReader::problem(std::string_view key, Position at, std::string found, std::string accepted,
                         std::string hint) {
    dirty_.push_back(path_of(key));
    if (problems_.size() > kMaxProblems) return;
    if (problems_.size() == kMaxProblems) {
        problems_.push_back({frame().file->name, "more problems, not shown", "", ""});
        return;
    }
    problems_.push_back({to_string(frame().file->name, at), std::move(found), std::move(accepted),
                         std::move(hint)});
}

void YamlReader::adopt(const InputError& error) {
    dirty_.push_back(path_);
    problems_.insert(problems_.end(), error.problems().begin(), error.problems().end());
}

void YamlReader::wrong_kind(const YamlNode& node, std::string_view wanted, std::string_view key) {
    problem(key, node.at, fmt::format("{} for '{}'", kind_noun(node), key), std::string(wanted));
}

const YamlNode* YamlReader::find(const Key& key, const Rule* rule, std::string_view noun) {
    Frame& f = frame();
    f.declared.push_back(key.name);
    const int index = f.node->index_of(key.name);
    if (index < 0) {
        if (key.presence == Presence::required && !f.is_overlay) {
            problem(key.name, f.node->at,
                    fmt::format("missing key '{}'{}", key.name,
                                path_.empty() ? "" : " in '" + path_ + "'"),
                    rule ? std::string(noun) + accepted_text(*rule) : std::string(noun));
        }
        return nullptr;
    }
    const auto i = static_cast<std::size_t>(index);
    places_[path_of(key.name)] = {f.file, f.node->key_at[i]};
    return &f.node->items[i];
}

bool YamlReader::is_map(const YamlNode& node) {
    if (node.kind == YamlNode::Kind::map || node.kind == YamlNode::Kind::null) return true;
    problem("", node.at,
            fmt::format("{}{}", kind_noun(node),
                        path_.empty() ? " instead of a map" : " for '" + path_ + "'"),
            "a map of keys");
    return false;
}

void YamlReader::push(const YamlNode& node, bool is_overlay, std::string_view path_part) {
    const SourceFile* file = frame().file;
    const std::size_t size = path_.size();
    path_ = path_of(path_part);
    frames_.push_back({&node, file, is_overlay, size, {}, {}});
}

void YamlReader::push_layer(const Layer& layer) {
    frames_.push_back({layer.node, layer.file, layer.is_overlay, path_.size(), {}, {}});
    if (layer.is_overlay) frame().declared.push_back("preset");
}

void YamlReader::pop() {
    report_unknown_keys();
    path_.resize(frame().path_size);
    frames_.pop_back();
}

void YamlReader::report_unknown_keys() {
    const Frame& f = frame();
    if (f.node->kind != YamlNode::Kind::map) return;
    // Which keys there may be depends on a key that could not be read.
    if (!f.depends_on.empty() && !is_clean(path_of(f.depends_on))) return;
    const std::vector<std::string> known(f.declared.begin(), f.declared.end());
    for (std::size_t i = 0; i < f.node->keys.size(); ++i) {
        const std::string& key = f.node->keys[i];
        if (std::find(known.begin(), known.end(), key) != known.end()) continue;
        if (problems_.size() > kMaxProblems) return;
        std::string near = did_you_mean(key, known);
        if (!near.empty()) near = "did you mean '" + near + "'?";
        problem(key, f.node->key_at[i],
                fmt::format("unknown key {}{}", in_quotes(key),
                            path_.empty() ? "" : " in '" + path_ + "'"),
                fmt::format("{}", fmt::join(known, ", ")), near);
    }
}

bool YamlReader::scalar(const Key& key, const Rule& rule, ScalarValue& value) {
    const YamlNode* node = find(key, &rule, "");
    if (!node) return false;
    if (node->kind != YamlNode::Kind::scalar) {
        wrong_kind(*node, accepted_text(rule), key.name);
        return false;
    }
    ParsedScalar parsed = parse_scalar(*node, rule);
    if (!parsed.value) {
        problem(key.name, node->at, fmt::format("{} for '{}'", parsed.found, key.name),
                accepted_text(rule), std::move(parsed.hint));
        return false;
    }
    value = std::move(*parsed.value);
    return true;
}

bool YamlReader::text_list(const Key& key, const Rule& rule, std::vector<std::string>& values) {
    const bool any = rule.kind == Rule::Kind::text;
    const std::string accepted = any ? "a value, or a list of values"
                                     : "a value, or a list of values, each " + accepted_text(rule);
    const YamlNode* node = find(key, nullptr, accepted);
    if (!node) return false;
    const bool is_single = node->kind == YamlNode::Kind::scalar;
    if (!is_single && (node->kind != YamlNode::Kind::list || node->items.empty())) {
        wrong_kind(*node, accepted, key.name);
        return false;
    }
    std::vector<std::string> parsed;
    for (const YamlNode& item : is_single ? std::span(node, 1) : std::span(node->items)) {
        if (item.kind != YamlNode::Kind::scalar) {
            wrong_kind(item, "a value", key.name);
            return false;
        }
        ParsedScalar scalar = parse_scalar(item, rule);
        if (!scalar.value) {
            problem(key.name, item.at, fmt::format("{} in '{}'", scalar.found, key.name),
                    accepted_text(rule), std::move(scalar.hint));
            return false;
        }
        parsed.push_back(default_text(rule, *scalar.value));
    }
    values = std::move(parsed);
    return true;
}

bool YamlReader::parse_list(const YamlNode& node, const Key& key, const Rule& rule,
                            std::vector<double>& values) {
    if (node.kind != YamlNode::Kind::list || node.items.empty()) {
        const bool is_empty = node.kind == YamlNode::Kind::list;
        problem(key.name, node.at,
                fmt::format("{} for '{}'", is_empty ? "an empty list" : kind_noun(node), key.name),
                "a list, each " + accepted_text(rule));
        return false;
    }
    std::vector<double> parsed;
    parsed.reserve(node.items.size());
    for (const YamlNode& item : node.items) {
        if (item.kind != YamlNode::Kind::scalar) {
            wrong_kind(item, accepted_text(rule), key.name);
            return false;
        }
        ParsedScalar scalar = parse_scalar(item, rule);
        if (!scalar.value) {
            problem(key.name, item.at, fmt::format("{} in '{}'", scalar.found, key.name),
                    accepted_text(rule), std::move(scalar.hint));
            return false;
        }
        parsed.push_back(std::get<double>(*scalar.value));
    }
    values = std::move(parsed);
    return true;
}

bool YamlReader::number_list(const Key& key, const Rule& rule, std::vector<double>& values) {
    const YamlNode* node = find(key, &rule, "a list, each ");
    return node && parse_list(*node, key, rule, values);
}

bool YamlReader::number_rows(const Key& key, const Rule& rule,
                             std::vector<std::vector<double>>& rows) {
    const YamlNode* node = find(key, &rule, "a list of rows, each entry ");
    if (!node) return false;
    if (node->kind != YamlNode::Kind::list || node->items.empty()) {
        wrong_kind(*node, "a list of rows, each entry " + accepted_text(rule), key.name);
        return false;
    }
    std::vector<std::vector<double>> parsed(node->items.size());
    for (std::size_t i = 0; i < parsed.size(); ++i) {
        if (!parse_list(node->items[i], key, rule, parsed[i])) return false;
    }
    rows = std::move(parsed);
    return true;
}

bool YamlReader::table(const Key& key, const Rule& rule, std::vector<std::vector<double>>& rows) {
    const YamlNode* node = find(key, nullptr, "path of a CSV file");
    if (!node) return false;
    if (node->kind != YamlNode::Kind::scalar) {
        wrong_kind(*node, "path of a CSV file", key.name);
        return false;
    }
    try {
        const std::filesystem::path path = frame().file->base_dir / node->scalar;
        const std::string name = path.lexically_normal().string();
        std::vector<InputProblem> problems;
        const std::string text = read_text_file(path, to_string(frame().file->name, node->at));
        if (options_.read != nullptr) options_.read->push_back(path);
        std::vector<std::vector<double>> parsed = parse_csv(text, name, rule.range, problems);
        if (!problems.empty()) throw InputError(std::move(problems));
        rows = std::move(parsed);
        return true;
    } catch (const InputError& error) {
        adopt(error);
        return false;
    }
}

bool YamlReader::enter_map(const Key& key) {
    const YamlNode* node = find(key, nullptr, "a map of keys");
    if (!node) return false;
    if (node->kind != YamlNode::Kind::map && node->kind != YamlNode::Kind::null) {
        wrong_kind(*node, "a map of keys", key.name);
        return false;
    }
    // Over a preset that lacks this map, the map must be complete.
    push(*node, frame().is_overlay && key.is_set, key.name);
    return true;
}

void YamlReader::leave_map() {
    pop();
}

std::optional<std::size_t> YamlReader::enter_list(const Key& key, std::size_t) {
    const YamlNode* node = find(key, nullptr, "a list");
    if (!node) return std::nullopt;
    const bool is_list = node->kind == YamlNode::Kind::list;
    if (!is_list || (node->items.empty() && key.presence == Presence::required)) {
        problem(key.name, node->at,
                fmt::format("{} for '{}'", is_list ? "an empty list" : kind_noun(*node), key.name),
                "a list of maps");
        return std::nullopt;
    }
    push(*node, false, key.name);
    return node->items.size();
}

bool YamlReader::enter_item(std::size_t index) {
    const YamlNode& item = frame().node->items[index];
    const std::size_t size = path_.size();
    path_ += fmt::format("[{}]", index);
    places_[path_] = {frame().file, item.at};
    if (!is_map(item)) {
        path_.resize(size);
        return false;
    }
    frames_.push_back({&item, frame().file, false, size, {}, {}});
    return true;
}

void YamlReader::leave_item() {
    pop();
}

void YamlReader::leave_list() {
    pop();
}

bool YamlReader::enter_condition(std::string_view when, bool holds) {
    frame().depends_on = when.substr(0, when.find(':'));
    return holds;
}

void YamlReader::contradiction(std::string_view name, std::string_view found,
                               std::string_view accepted) {
    const Frame& f = frame();
    const int index = f.node->index_of(name);
    const Position at = index < 0 ? f.node->at : f.node->key_at[static_cast<std::size_t>(index)];
    problem(name, at, fmt::format("'{}' and {}", name, found), std::string(accepted));
}

void YamlReader::exactly_one_of(const std::vector<std::string_view>& names) {
    const Frame& f = frame();
    std::vector<std::string_view> present;
    std::ranges::copy_if(names, std::back_inserter(present),
                         [&](std::string_view name) { return f.node->index_of(name) >= 0; });
    if (present.size() == 1 || (present.empty() && f.is_overlay)) return;
    const std::string found = present.empty()
                                  ? fmt::format("neither '{}'", fmt::join(names, "' nor '"))
                                  : fmt::format("both '{}'", fmt::join(present, "' and '"));
    problem("", f.node->at, fmt::format("{} in '{}'", found, path_),
            fmt::format("exactly one of: {}", fmt::join(names, ", ")));
}

void YamlReader::at_most_one_of(std::string_view a, std::string_view b) {
    const Frame& f = frame();
    const int of_b = f.node->index_of(b);
    if (f.node->index_of(a) < 0 || of_b < 0) return;
    problem(b, f.node->key_at[static_cast<std::size_t>(of_b)],
            fmt::format("both '{}' and '{}' in '{}'", a, b, path_),
            fmt::format("at most one of: {}, {}", a, b));
}

}  // namespace headway::inline scenario
