#include "models/scenario/key_path.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

#include "models/scenario/describe.hpp"
#include "models/scenario/key_docs.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::size_t kMaxPath = 200;

[[noreturn]] void refuse_path(std::string found, std::string accepted, std::string hint = "") {
    throw InputError(
        {.found = std::move(found), .accepted = std::move(accepted), .hint = std::move(hint)});
}

std::vector<std::string> names_of(const KeyDoc& doc) {
    std::vector<std::string> names;
    for (const KeyDoc& key : doc.children) {
        if (std::find(names.begin(), names.end(), key.name) == names.end()) {
            names.push_back(key.name);
        }
    }
    return names;
}

// Paths of single values, for hints: "k" may be meant as the k of a meaning, "top_k" may stand
// below another map.
void collect(const KeyDoc& doc, const std::string& prefix, const std::string& word,
             std::vector<std::string>& paths) {
    for (const KeyDoc& key : doc.children) {
        const std::string path = prefix.empty() ? key.name : prefix + '.' + key.name;
        if (key.kind == KeyDoc::Kind::scalar) {
            const bool is_symbol =
                word.size() == 1 &&
                fmt::format(" {},", key.meaning).find(" " + word + ",") != std::string::npos;
            if (is_symbol || key.name == word) paths.push_back(path);
        }
        if (key.name != "profile") collect(key, path, word, paths);
    }
}

std::string hint_for(const std::string& word, const KeyDoc& doc, const std::string& before,
                     const KeyDoc& root) {
    const std::string near = did_you_mean(word, names_of(doc));
    if (!near.empty()) return "did you mean '" + before + near + "'?";
    std::vector<std::string> paths;
    collect(doc, before.substr(0, before.empty() ? 0 : before.size() - 1), word, paths);
    if (paths.empty()) collect(root, "", word, paths);
    return paths.empty() ? "" : "did you mean '" + paths.front() + "'?";
}

// "plans[0]" -> "plans", 0
struct Part {
    std::string name;
    std::optional<std::size_t> index;
};

Part split_index(const std::string& text) {
    const std::size_t open = text.find('[');
    if (open == std::string::npos) return {text, std::nullopt};
    const std::optional<std::int64_t> index =
        text.back() == ']' ? parse_integer(text.substr(open + 1, text.size() - open - 2))
                           : std::nullopt;
    if (!index || *index < 0) {
        refuse_path("'" + text + "' in a path", "NAME[0], NAME[1] ... for one item of a list");
    }
    return {text.substr(0, open), static_cast<std::size_t>(*index)};
}

std::vector<std::string> parts_of(const std::string& path) {
    std::vector<std::string> parts;
    std::size_t begin = 0;
    for (std::size_t end = path.find('.'); end != std::string::npos; end = path.find('.', begin)) {
        parts.push_back(path.substr(begin, end - begin));
        begin = end + 1;
    }
    parts.push_back(path.substr(begin));
    return parts;
}

const KeyDoc* child(const KeyDoc& doc, const std::string& name) {
    const auto found = std::find_if(doc.children.begin(), doc.children.end(),
                                    [&](const KeyDoc& key) { return key.name == name; });
    return found == doc.children.end() ? nullptr : &*found;
}

// The plan that `word` names, when it is no key of a plan.
std::optional<std::size_t> plan_index(const Scenario& scenario, const KeyDoc& plans,
                                      const std::string& word) {
    if (plans.name != "plans" || child(plans, word)) return std::nullopt;
    for (std::size_t i = 0; i < scenario.plans.size(); ++i) {
        if (scenario.plans[i].name == word) return i;
    }
    std::vector<std::string> names = names_of(plans);
    for (const Plan& plan : scenario.plans) names.push_back(plan.name);
    const std::string near = did_you_mean(word, names);
    refuse_path(fmt::format("no plan and no key of a plan {}", in_quotes(word)),
                fmt::format("{}", fmt::join(names, ", ")),
                near.empty() ? "" : "did you mean 'plans." + near + "'?");
}

// Walks describe() along the path and sets what is at its end.
class KeySetter : public Fields {
  public:
    KeySetter(const KeyPath& path, const ScalarValue& value) : path_(path), value_(value) {}
    bool is_done() const { return is_done_; }

  protected:
    bool scalar(const Key& key, const Rule&, ScalarValue& value) override {
        if (depth_ + 1 != path_.steps.size() || !is_next(key)) return false;
        value = value_;
        is_done_ = true;
        return true;
    }
    bool text_list(const Key&, const Rule&, std::vector<std::string>&) override { return false; }
    bool number_list(const Key&, const Rule&, std::vector<double>&) override { return false; }
    bool number_rows(const Key&, const Rule&, std::vector<std::vector<double>>&) override {
        return false;
    }
    bool table(const Key&, const Rule&, std::vector<std::vector<double>>&) override {
        return false;
    }
    bool enter_map(const Key& key) override {
        const bool enters = depth_ + 1 < path_.steps.size() && is_next(key) && key.is_set;
        if (enters) ++depth_;
        return enters;
    }
    void leave_map() override { --depth_; }
    std::optional<std::size_t> enter_list(const Key& key, std::size_t size) override {
        if (!enter_map(key)) return std::nullopt;
        return size;
    }
    bool enter_item(std::size_t index) override {
        const auto& item = path_.steps[depth_ - 1].item;
        return !item || *item == index;
    }
    void leave_item() override {}
    void leave_list() override { --depth_; }
    int enter_reference(const Key& key, ReferenceKind) override { return enter_map(key) ? 1 : 0; }
    void enter_layer(int) override {}
    void leave_layer() override {}
    void leave_reference() override { --depth_; }

  private:
    bool is_next(const Key& key) const { return path_.steps[depth_].name == key.name; }

    const KeyPath& path_;
    const ScalarValue& value_;
    std::size_t depth_ = 0;
    bool is_done_ = false;
};

}  // namespace

KeyPath find_key(const Scenario& scenario, const std::string& path) {
    if (path.size() > kMaxPath) {
        refuse_path(fmt::format("a path of {} bytes", path.size()),
                    fmt::format("at most {}", kMaxPath));
    }
    const KeyDoc root = record_scenario_keys();
    const KeyDoc* doc = &root;
    KeyPath result;
    std::string before;
    for (const std::string& text : parts_of(path)) {
        const Part part = split_index(text);
        if (doc->kind == KeyDoc::Kind::list && !result.steps.back().item) {
            result.steps.back().item = plan_index(scenario, *doc, part.name);
            if (result.steps.back().item) {
                before += text + '.';
                continue;
            }
        }
        const KeyDoc* next = child(*doc, part.name);
        if (!next) {
            refuse_path(
                fmt::format("unknown key {}", in_quotes(before + part.name)),
                fmt::format(
                    "{}{}",
                    before.empty() ? "" : "below '" + before.substr(0, before.size() - 1) + "': ",
                    fmt::join(names_of(*doc), ", ")),
                hint_for(part.name, *doc, before, root));
        }
        const bool is_list = next->kind == KeyDoc::Kind::list;
        if (part.index && !is_list)
            refuse_path(in_quotes(before + part.name) + " is not a list", "");
        result.steps.push_back({part.name, is_list, part.index});
        before += text + '.';
        doc = next;
    }
    if (doc->kind == KeyDoc::Kind::reference) {
        result.reference = doc->reference;
    } else if (doc->kind == KeyDoc::Kind::scalar && root.children.front().name != path &&
               result.steps.front().name != "sweep") {
        result.rule = doc->rule;
    } else {
        refuse_path(fmt::format("{} holds no single value", in_quotes(path)),
                    doc->children.empty()
                        ? "the path of a number, text, choice or flag"
                        : fmt::format("a key below it: {}", fmt::join(names_of(*doc), ", ")));
    }
    return result;
}

bool set_key(Scenario& scenario, const KeyPath& path, const ScalarValue& value) {
    KeySetter setter(path, value);
    describe(setter, scenario);
    return setter.is_done();
}

}  // namespace headway::inline scenario
