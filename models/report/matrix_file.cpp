#include "models/report/matrix_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <vector>

#include "models/report/input_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline report {
namespace {

constexpr double kLargest = 9007199254740992.0;  // 2^53: whole in a double
constexpr std::string_view kBlank = " \t\r";

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

std::string_view trimmed(std::string_view text) {
    const std::size_t first = text.find_first_not_of(kBlank);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

std::vector<std::int64_t> parse_row(std::string_view line, bool commas, const Position& at) {
    std::vector<std::int64_t> row;
    std::size_t begin = 0;
    while (begin <= line.size()) {
        if (!commas) begin = std::min(line.find_first_not_of(kBlank, begin), line.size());
        if (!commas && begin == line.size()) break;
        const std::size_t end = std::min(
            commas ? line.find(',', begin) : line.find_first_of(kBlank, begin), line.size());
        row.push_back(parse_bytes(trimmed(line.substr(begin, end - begin)), at, begin + 1));
        begin = end + 1;
    }
    return row;
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
    const bool commas = text.find(',') != std::string_view::npos;
    TrafficMatrix matrix;
    std::size_t num_rows = 0;
    Position at{file_name};
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const std::string_view line = text.substr(begin, end - begin);
        begin = end + 1;
        ++at.line;
        if (trimmed(line).empty() || trimmed(line)[0] == '#') continue;
        const std::vector<std::int64_t> row = parse_row(line, commas, at);
        if (num_rows == 0) matrix = TrafficMatrix(static_cast<int>(row.size()));
        const auto width = static_cast<std::size_t>(matrix.num_ranks);
        if (row.size() != width) {
            throw error(at, 1, fmt::format("{} numbers", row.size()),
                        fmt::format("{}, as in the first row", width));
        }
        if (num_rows == width) {
            throw error(at, 1, fmt::format("a row more than the {} columns", width),
                        "a square: row i holds what rank i sends to each rank");
        }
        std::copy(row.begin(), row.end(),
                  matrix.bytes.begin() + static_cast<std::ptrdiff_t>(num_rows++ * width));
    }
    if (num_rows == 0 || num_rows < static_cast<std::size_t>(matrix.num_ranks)) {
        throw error(at, 1, fmt::format("{} rows, {} columns", num_rows, matrix.num_ranks),
                    "a square: row i holds what rank i sends to each rank");
    }
    return matrix;
}

TrafficMatrix read_matrix(const std::filesystem::path& file) {
    return parse_matrix(read_input_file(file, "a matrix of bytes, CSV or nccl-tests"),
                        file.string());
}

}  // namespace headway::inline report
