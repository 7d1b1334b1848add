#include "models/text/csv_text.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

namespace headway::inline texts {
namespace {

// Long enough for any row of ours; a file of one endless line must not fill the memory.
constexpr std::size_t kMaxLine = 1 << 16;

std::string shortened(std::string_view text) {
    return text.size() <= 60 ? one_line(text) : one_line(text.substr(0, 57)) + "...";
}

template <class T>
bool parse_whole(std::string_view text, T& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
}

std::string_view nth_name(std::string_view columns, std::size_t n) {
    for (; n > 0; --n) columns.remove_prefix(columns.find(',') + 1);
    return columns.substr(0, columns.find(','));
}

}  // namespace

std::string one_line(std::string_view text) {
    std::string line(text);
    for (char& c : line) {
        if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    }
    return line;
}

std::string csv_field(std::string_view text) {
    std::string line = one_line(text);
    if (line.find_first_of(",\"") == std::string::npos) return line;
    std::string quoted = "\"";
    for (const char c : line) quoted.append(c == '"' ? 2 : 1, c);
    return quoted + '"';
}

LineReader::LineReader(std::istream& stream, std::string file_name)
    : stream_(stream), file_name_(std::move(file_name)) {}

bool LineReader::next() {
    line_.clear();
    ++number_;
    std::streambuf& buffer = *stream_.rdbuf();
    constexpr int kEnd = std::char_traits<char>::eof();
    for (int c = buffer.sbumpc(); c != kEnd; c = buffer.sbumpc()) {
        if (c == '\n') {
            if (!line_.empty() && line_.back() == '\r') line_.pop_back();
            return true;
        }
        if (line_.size() == kMaxLine) {
            throw InputError(
                {.where = where(), .found = fmt::format("a line of more than {} bytes", kMaxLine)});
        }
        line_ += static_cast<char>(c);
    }
    return false;
}

std::string LineReader::where() const {
    return fmt::format("{}:{}", file_name_, number_);
}

void LineReader::expect(std::string_view text, std::string_view what) {
    next();
    expect_line(text, what);
}

void LineReader::expect_line(std::string_view text, std::string_view what) const {
    if (line_ == text) return;
    throw InputError({.where = where(),
                      .found = fmt::format("'{}'", shortened(line_)),
                      .accepted = fmt::format("'{}' ({})", text, what)});
}

void LineReader::expect_end() {
    if (!next() && line_.empty()) return;
    throw InputError(
        {.where = where(), .found = fmt::format("'{}' after the end mark", shortened(line_))});
}

std::string LineReader::value_of(std::string_view label) {
    next();
    if (line_.starts_with(label)) return line_.substr(label.size());
    throw InputError({.where = where(),
                      .found = fmt::format("'{}'", shortened(line_)),
                      .accepted = fmt::format("a line '{}...'", label)});
}

std::uint64_t LineReader::whole_number(const std::string& text) const {
    std::uint64_t value = 0;
    if (parse_whole(std::string_view(text), value)) return value;
    throw InputError({.where = where(),
                      .found = fmt::format("'{}'", shortened(text)),
                      .accepted = "a whole number"});
}

CsvRow::CsvRow(std::string_view line, std::string_view columns, std::string where)
    : columns_(columns), where_(std::move(where)) {
    fields_.emplace_back();
    bool quoted = false;
    for (std::size_t i = 0; i < line.size(); ++i) {
        const char c = line[i];
        if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
            fields_.back() += '"';
            ++i;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (c == ',' && !quoted) {
            fields_.emplace_back();
        } else {
            fields_.back() += c;
        }
    }
    if (quoted) throw InputError({.where = where_, .found = "a quote that is not closed"});
}

void CsvRow::expect_size(std::size_t num_columns) const {
    if (fields_.size() == num_columns) return;
    throw InputError({.where = where_,
                      .found = fmt::format("{} fields", fields_.size()),
                      .accepted = fmt::format("{}: {}", num_columns, columns_)});
}

int CsvRow::integer(std::size_t column, int minimum) const {
    int value = 0;
    if (parse_whole(text(column), value) && value >= minimum) return value;
    throw error(column, fmt::format("a whole number of at least {}", minimum));
}

double CsvRow::non_negative(std::size_t column) const {
    double value = 0.0;
    if (parse_whole(text(column), value) && std::isfinite(value) && value >= 0.0) return value;
    throw error(column, "a number of at least 0");
}

InputError CsvRow::error(std::size_t column, const std::string& accepted) const {
    return InputError({.where = where_,
                       .found = fmt::format("'{}' in column {}", shortened(text(column)),
                                            nth_name(columns_, column)),
                       .accepted = accepted});
}

}  // namespace headway::inline texts
