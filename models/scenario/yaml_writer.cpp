#include "models/scenario/yaml_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "models/scenario/accepted_text.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::size_t kColumns = 100;

bool is_word_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '/' || c == '-' || c == ' ';
}

}  // namespace

std::string yaml_text(const std::string& text) {
    static constexpr std::array kReserved = {"true", "false", "yes", "no", "on",
                                             "off",  "null",  "y",   "n"};
    std::string lower = text;
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    const bool begins_like_word =
        !text.empty() && ((lower.front() >= 'a' && lower.front() <= 'z') || text.front() == '_');
    const bool is_plain = begins_like_word && text.back() != ' ' &&
                          std::all_of(text.begin(), text.end(), is_word_character) &&
                          std::find(kReserved.begin(), kReserved.end(), lower) == kReserved.end();
    if (is_plain) return text;
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') result += '\\';
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        } else {
            result += c;
        }
    }
    return result + '"';
}

void YamlWriter::begin_line(std::string_view key) {
    if (has_dash_) {
        has_dash_ = false;
    } else {
        text_.append(static_cast<std::size_t>(indent_) * 2, ' ');
    }
    text_ += key;
    text_ += ':';
}

bool YamlWriter::scalar(const Key& key, const Rule& rule, ScalarValue& value) {
    if (!key.is_set) return false;
    begin_line(key.name);
    const std::string text = default_text(rule, value);
    text_ += ' ' + (rule.kind == Rule::Kind::text ? yaml_text(text) : text) + '\n';
    return true;
}

void YamlWriter::flow_list(const std::vector<double>& values, UnitClass unit, std::size_t column) {
    text_ += '[';
    std::size_t line_begin = text_.size() - column;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const std::string item = quantity_to_text(values[i], unit);
        if (i > 0) text_ += ',';
        if (i > 0 && text_.size() - line_begin + item.size() + 2 > kColumns) {
            text_ += '\n';
            line_begin = text_.size();
            text_.append(column, ' ');
        } else if (i > 0) {
            text_ += ' ';
        }
        text_ += item;
    }
    text_ += "]\n";
}

bool YamlWriter::text_list(const Key& key, const Rule&, std::vector<std::string>& values) {
    if (!key.is_set) return false;
    begin_line(key.name);
    text_ += " [";
    for (std::size_t i = 0; i < values.size(); ++i) {
        text_ += (i > 0 ? ", " : "") + yaml_text(values[i]);
    }
    text_ += "]\n";
    return true;
}

bool YamlWriter::number_list(const Key& key, const Rule& rule, std::vector<double>& values) {
    if (!key.is_set) return false;
    begin_line(key.name);
    text_ += ' ';
    flow_list(values, rule.unit, static_cast<std::size_t>(indent_) * 2 + key.name.size() + 3);
    return true;
}

bool YamlWriter::number_rows(const Key& key, const Rule& rule,
                             std::vector<std::vector<double>>& rows) {
    if (!key.is_set) return false;
    begin_line(key.name);
    text_ += '\n';
    for (const std::vector<double>& row : rows) {
        const std::size_t column = static_cast<std::size_t>(indent_) * 2 + 4;
        text_.append(column - 2, ' ');
        text_ += "- ";
        flow_list(row, rule.unit, column + 1);
    }
    return true;
}

bool YamlWriter::enter_map(const Key& key) {
    if (!key.is_set) return false;
    begin_line(key.name);
    text_ += '\n';
    opened_.push_back(text_.size());
    ++indent_;
    return true;
}

void YamlWriter::leave_map() {
    // A map without keys would read as null.
    if (text_.size() == opened_.back()) text_.insert(text_.size() - 1, " {}");
    opened_.pop_back();
    --indent_;
}

std::optional<std::size_t> YamlWriter::enter_list(const Key& key, std::size_t size) {
    if (!key.is_set) return std::nullopt;
    begin_line(key.name);
    text_ += '\n';
    ++indent_;
    return size;
}

bool YamlWriter::enter_item(std::size_t) {
    text_.append(static_cast<std::size_t>(indent_) * 2, ' ');
    text_ += "- ";
    has_dash_ = true;
    ++indent_;
    return true;
}

void YamlWriter::leave_item() {
    --indent_;
}

void YamlWriter::leave_list() {
    --indent_;
}

int YamlWriter::enter_reference(const Key& key, ReferenceKind) {
    return enter_map(key) ? 1 : 0;
}

void YamlWriter::leave_reference() {
    leave_map();
}

}  // namespace headway::inline scenario
