#include "models/vocab/number_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

using Row = std::vector<NumberCell>;
constexpr std::string_view kBlank = " \t\r";

std::string_view trimmed(std::string_view text) {
    const std::size_t first = text.find_first_not_of(kBlank);
    if (first == std::string_view::npos) return {};
    text = text.substr(first, text.find_last_not_of(kBlank) - first + 1);
    const bool is_quoted = text.size() >= 2 && text.front() == '"' && text.back() == '"';
    return is_quoted ? text.substr(1, text.size() - 2) : text;
}

bool is_number(const NumberCell& cell) {
    double value = 0.0;
    const char* end = cell.text.data() + cell.text.size();
    return std::from_chars(cell.text.data(), end, value).ptr == end && !cell.text.empty();
}

// "expert_12" -> 12 and "expert_".
std::optional<long> trailing_number(std::string_view name) {
    const std::size_t last = name.find_last_not_of("0123456789");
    const std::string_view digits = name.substr(last == std::string_view::npos ? 0 : last + 1);
    long value = 0;
    const char* end = digits.data() + digits.size();
    if (std::from_chars(digits.data(), end, value).ec != std::errc{}) return std::nullopt;
    return value;
}

std::string_view stem(std::string_view name) {
    return name.substr(0, name.find_last_not_of("0123456789") + 1);
}

Row split(std::string_view line, char separator, int number) {
    const bool blanks = separator == ' ';
    Row row;
    std::size_t begin = 0;
    while (begin <= line.size()) {
        if (blanks) begin = std::min(line.find_first_not_of(kBlank, begin), line.size());
        if (blanks && begin == line.size()) break;
        const std::size_t end = std::min(
            blanks ? line.find_first_of(kBlank, begin) : line.find(separator, begin), line.size());
        row.push_back(
            {trimmed(line.substr(begin, end - begin)), number, static_cast<int>(begin) + 1});
        begin = end + 1;
    }
    return row;
}

std::vector<Row> split_lines(std::string_view text) {
    const char separator = text.find(',') != std::string_view::npos   ? ','
                           : text.find(';') != std::string_view::npos ? ';'
                                                                      : ' ';
    std::vector<Row> rows;
    int number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const std::string_view line = text.substr(begin, end - begin);
        begin = end + 1;
        ++number;
        const std::size_t first = line.find_first_not_of(kBlank);
        if (first == std::string_view::npos || line[first] == '#') continue;
        rows.push_back(split(line, separator, number));
    }
    // A separator at the end of every line ends a cell and begins none.
    const auto is_open = [](const Row& row) { return row.size() > 1 && row.back().text.empty(); };
    if (std::all_of(rows.begin(), rows.end(), is_open)) {
        for (Row& row : rows) row.pop_back();
    }
    return rows;
}

bool counts_up(const Row& names) {
    for (std::size_t i = 0; i < names.size(); ++i) {
        const auto number = trailing_number(names[i].text), first = trailing_number(names[0].text);
        if (!number || *number != *first + static_cast<long>(i)) return false;
    }
    return true;
}

// Names without numbers in them say nothing of an order.
void refuse_other_order(const Row& names, const std::string& file, std::string_view what) {
    const bool are_numbered = std::all_of(names.begin(), names.end(), [](const NumberCell& cell) {
        return trailing_number(cell.text).has_value();
    });
    if (!are_numbered || names.size() < 2 || counts_up(names)) return;
    const NumberCell& at = names.front();
    throw InputError({fmt::format("{}:{}:{}", file, at.line, at.column),
                      fmt::format("{} named '{}', '{}', ... that do not count up by one", what,
                                  names[0].text, names[1].text),
                      fmt::format("{} in order", what), ""});
}

// No cell is a number, or a name before numbers that count up: "layer,0,1,2".
bool is_header(const Row& row) {
    if (row.empty() || is_number(row[0])) return false;
    const Row rest(row.begin() + 1, row.end());
    return std::none_of(rest.begin(), rest.end(), is_number) ||
           (rest.size() > 1 && counts_up(rest) && trailing_number(rest[0].text).value_or(2) <= 1);
}

// The first column names rows: the header says so, by a first name of another kind than the rest,
// or by one name too few.
bool names_rows(const Row& header, const std::vector<Row>& rows) {
    if (header.size() + 1 == rows.front().size()) return true;
    if (header.size() < 2) return false;
    const std::string_view first = stem(header[0].text), rest = stem(header[1].text);
    const bool are_alike = std::all_of(header.begin() + 1, header.end(), [&](const NumberCell& c) {
        return stem(c.text) == rest && trailing_number(c.text);
    });
    return are_alike && (first != rest || header[0].text.empty());
}

}  // namespace

std::vector<Row> parse_number_table(std::string_view text, const std::string& file) {
    std::vector<Row> rows = split_lines(utf8_text(text, file));
    if (rows.empty()) return rows;
    const auto has_name = [](const Row& row) { return !row.empty() && !is_number(row[0]); };
    bool has_names = false;
    if (rows.size() > 1 && is_header(rows[0])) {
        Row header = std::move(rows[0]);
        rows.erase(rows.begin());
        has_names = names_rows(header, rows);
        if (has_names && header.size() == rows[0].size()) header.erase(header.begin());
        refuse_other_order(header, file, "columns");
    }
    const bool are_named = std::all_of(rows.begin(), rows.end(), [&](const Row& row) {
        return row.size() > 1 && has_name(row) && is_number(row[1]);
    });
    if (!has_names && !are_named) return rows;
    Row names;
    for (Row& row : rows) {
        names.push_back(row.front());
        row.erase(row.begin());
    }
    refuse_other_order(names, file, "rows");
    return rows;
}

namespace {

// Length of the UTF-8 sequence at `i`; 0 when it is none.
std::size_t sequence_length(std::string_view text, std::size_t i) {
    const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(text[k]); };
    const unsigned char lead = byte(i);
    const std::size_t length = lead < 0x80                   ? 1
                               : lead >= 0xc2 && lead < 0xe0 ? 2
                               : lead >= 0xe0 && lead < 0xf0 ? 3
                               : lead >= 0xf0 && lead < 0xf5 ? 4
                                                             : 0;
    if (length == 0 || i + length > text.size()) return 0;
    for (std::size_t k = i + 1; k < i + length; ++k) {
        if ((byte(k) & 0xc0) != 0x80) return 0;
    }
    return length;
}

}  // namespace

std::string_view utf8_text(std::string_view text, const std::string& file) {
    if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) {
        throw InputError({file + ":1:1", "text in UTF-16", "text in UTF-8",
                          "iconv -f UTF-16 -t UTF-8 converts it"});
    }
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    int line = 1, column = 1;
    for (std::size_t i = 0; i < text.size(); ++column) {
        const std::size_t length = sequence_length(text, i);
        if (length == 0) {
            throw InputError({fmt::format("{}:{}:{}", file, line, column),
                              fmt::format("the byte 0x{:02x}, which is not UTF-8",
                                          static_cast<unsigned char>(text[i])),
                              "text in UTF-8", "iconv -f LATIN1 -t UTF-8 converts a Latin-1 file"});
        }
        if (text[i] == '\n') {
            ++line;
            column = 0;
        }
        i += length;
    }
    return text;
}

}  // namespace headway
