#include "models/scenario/key_docs.hpp"

#include <algorithm>

#include "models/scenario/accepted_text.hpp"
#include "models/scenario/describe.hpp"

namespace headway::inline scenario {
namespace {

class KeyRecorder : public Fields {
  public:
    explicit KeyRecorder(KeyDoc& root) : open_{&root} {}

    void exactly_one_of(const std::vector<std::string_view>& names) override {
        open_.back()->exactly_one_of.push_back({{names.begin(), names.end()}, when_});
    }
    void at_most_one_of(std::string_view a, std::string_view b) override {
        open_.back()->at_most_one_of.push_back({{std::string(a), std::string(b)}, when_});
    }

  protected:
    bool scalar(const Key& key, const Rule& rule, ScalarValue& value) override {
        KeyDoc& doc = add(key, KeyDoc::Kind::scalar);
        doc.rule = rule;
        if (!doc.is_required && !key.has_no_default) doc.default_text = default_text(rule, value);
        return false;
    }
    bool text_list(const Key& key, const Rule& rule, std::vector<std::string>&) override {
        add(key, KeyDoc::Kind::texts).rule = rule;
        return false;
    }
    bool number_list(const Key& key, const Rule& rule, std::vector<double>&) override {
        add(key, KeyDoc::Kind::numbers).rule = rule;
        return false;
    }
    bool number_rows(const Key& key, const Rule& rule, std::vector<std::vector<double>>&) override {
        add(key, KeyDoc::Kind::rows).rule = rule;
        return false;
    }
    bool table(const Key& key, const Rule& rule, std::vector<std::vector<double>>&) override {
        add(key, KeyDoc::Kind::table).rule = rule;
        return false;
    }
    bool enter_map(const Key& key) override {
        open_.push_back(&add(key, KeyDoc::Kind::map));
        return true;
    }
    void leave_map() override { open_.pop_back(); }
    std::optional<std::size_t> enter_list(const Key& key, std::size_t) override {
        open_.push_back(&add(key, KeyDoc::Kind::list));
        return 1;
    }
    bool enter_item(std::size_t) override { return true; }
    void leave_item() override {}
    void leave_list() override { open_.pop_back(); }
    int enter_reference(const Key& key, ReferenceKind kind) override {
        KeyDoc& doc = add(key, KeyDoc::Kind::reference);
        doc.reference = kind;
        open_.push_back(&doc);
        return 1;
    }
    void enter_layer(int) override {}
    void leave_layer() override {}
    void leave_reference() override { open_.pop_back(); }
    bool enter_condition(std::string_view when, bool) override {
        when_ = when;
        return true;
    }
    void leave_condition() override { when_.clear(); }

  private:
    // NOTE: the pointer to an open map stays valid, because its siblings come after it is closed.
    KeyDoc& add(const Key& key, KeyDoc::Kind kind) {
        KeyDoc doc;
        doc.name = key.name;
        doc.meaning = key.meaning;
        doc.kind = kind;
        doc.is_required = key.presence == Presence::required;
        doc.when = when_;
        open_.back()->children.push_back(std::move(doc));
        return open_.back()->children.back();
    }

    std::vector<KeyDoc*> open_;
    std::string when_;
};

}  // namespace

bool KeyDoc::has_required_key() const {
    return !exactly_one_of.empty() ||
           std::any_of(children.begin(), children.end(),
                       [](const KeyDoc& child) { return child.is_required && child.when.empty(); });
}

KeyDoc record_scenario_keys() {
    KeyDoc root;
    root.kind = KeyDoc::Kind::map;
    KeyRecorder recorder(root);
    Scenario scenario;
    describe(recorder, scenario);
    return root;
}

}  // namespace headway::inline scenario
