// A Fields that writes values as YAML: block maps, lists of numbers in one line, every default
// written out, numbers in the shortest form that reads back to the same bits.
#pragma once

#include <string>
#include <vector>

#include "models/scenario/fields.hpp"

namespace headway::inline scenario {

class YamlWriter : public Fields {
  public:
    std::string take_text() { return std::move(text_); }

  protected:
    bool scalar(const Key& key, const Rule& rule, ScalarValue& value) override;
    bool text_list(const Key& key, const Rule& rule, std::vector<std::string>& values) override;
    bool number_list(const Key& key, const Rule& rule, std::vector<double>& values) override;
    bool number_rows(const Key& key, const Rule& rule,
                     std::vector<std::vector<double>>& rows) override;
    bool table(const Key&, const Rule&, std::vector<std::vector<double>>&) override {
        return false;
    }
    bool enter_map(const Key& key) override;
    void leave_map() override;
    std::optional<std::size_t> enter_list(const Key& key, std::size_t size) override;
    bool enter_item(std::size_t index) override;
    void leave_item() override;
    void leave_list() override;
    int enter_reference(const Key& key, ReferenceKind kind) override;
    void enter_layer(int) override {}
    void leave_layer() override {}
    void leave_reference() override;

  private:
    void begin_line(std::string_view key);
    void flow_list(const std::vector<double>& values, UnitClass unit, std::size_t column);

    std::string text_;
    int indent_ = 0;
    bool has_dash_ = false;            // the next key follows "- "
    std::vector<std::size_t> opened_;  // size of the text after each opened map's line
};

// `text` as a YAML scalar: plain where that is safe, else in double quotes.
std::string yaml_text(const std::string& text);

}  // namespace headway::inline scenario
