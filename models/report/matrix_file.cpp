#include "models/report/matrix_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <vector>

#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/number_table.hpp"

namespace headway::inline report {
namespace {

constexpr double kLargest = 9007199254740992.0;  // 2^53: whole in a double

struct Position {
    const std::string& file;
    std::size_t line = 0;
};

InputError error(const Position& at, std::size_t column, std::string found, std::string accepted) {
    return InputError(InputProblem{.where = fmt::format("{}:{}:{}", at.file, at.line, column),
                                   .found = std::move(found),
                                   .accepted = std::move(accepted),
                                   .hint = ""});
}

// nccl-tests reads numbers with strtod, so "1e6" is one.
std::int64_t parse_bytes(std::string_view cell, const Position& at, std::size_t column) {
    double value = 0.0;
    const auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    const bool is_number = code == std::errc{} && end == cell.data() + cell.size();
    if (!is_number || !(value >= 0.0 && value <= kLargest) || value != std::floor(value)) {
        throw error(at, column, "'" + std::string(cell) + "'", "a whole number of bytes >= 0");
    }
    return static_cast<std::int64_t>(value);
}

}  // namespace

std::string to_text(const TrafficMatrix& matrix, MatrixFormat format) {
    std::string text;
    for (int i = 0; i < matrix.num_ranks; ++i) {
        for (int j = 0; j < matrix.num_ranks; ++j) {
            if (j > 0) text += format == MatrixFormat::csv ? ',' : ' ';
            fmt::format_to(std::back_inserter(text), "{}", matrix.at(i, j));
        }
        text += '\n';
    }
    return text;
}

TrafficMatrix parse_matrix(std::string_view text, const std::string& file_name) {
    const std::vector<std::vector<NumberCell>> rows = parse_number_table(text, file_name);
    const std::size_t width = rows.empty() ? 0 : rows.front().size();
    const auto refuse = [&](std::size_t line, std::string found, std::string accepted) {
        throw error({file_name, line}, 1, std::move(found), std::move(accepted));
    };
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto line = static_cast<std::size_t>(rows[i].empty() ? 1 : rows[i].front().line);
        if (rows[i].size() != width) {
            refuse(line, fmt::format("{} numbers", rows[i].size()),
                   fmt::format("{}, as in the first row", width));
        }
        if (i == width) {
            refuse(line, fmt::format("a row more than the {} columns", width),
                   "a square: row i holds what rank i sends to each rank");
        }
    }
    if (rows.empty() || rows.size() < width) {
        const auto last = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
        refuse(last, fmt::format("{} rows, {} columns", rows.size(), width),
               "a square: row i holds what rank i sends to each rank");
    }
    TrafficMatrix matrix(static_cast<int>(width));
    auto bytes = matrix.bytes.begin();
    for (const std::vector<NumberCell>& row : rows) {
        for (const NumberCell& cell : row) {
            *bytes++ = parse_bytes(cell.text, {file_name, static_cast<std::size_t>(cell.line)},
                                   static_cast<std::size_t>(cell.column));
        }
    }
    return matrix;
}

TrafficMatrix read_matrix(const std::filesystem::path& file) {
    return parse_matrix(read_input_file(file, "a matrix of bytes, CSV or nccl-tests"),
                        file.string());
}

}  // namespace headway::inline report
