#include "models/text/text_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

namespace headway::inline texts {
namespace {

void append_row(std::string& text, const std::vector<std::string>& row,
                const std::vector<std::size_t>& widths) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
        line += i == 0 ? fmt::format("{:<{}}", row[i], widths[i])
                       : fmt::format("  {:>{}}", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
}

}  // namespace

std::string TextTable::to_string() const {
    std::vector<std::size_t> widths(head.size(), 0);
    const auto widen = [&](const std::vector<std::string>& row) {
        if (row.size() == 1 && head.size() > 1) return;
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    };
    widen(head);
    for (const auto& row : rows) widen(row);
    std::string text;
    append_row(text, head, widths);
    for (const auto& row : rows) append_row(text, row, widths);
    return text;
}

}  // namespace headway::inline texts
