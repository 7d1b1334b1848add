#include "models/scenario/source_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <system_error>

#include "models/scenario/parse_scalar.hpp"
#include "models/scenario/quantity_text.hpp"
#include "models/vocab/number_table.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::size_t kMaxFileProblems = 100;

}  // namespace

std::string read_text_file(const std::filesystem::path& path, const std::string& where) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (error || status.type() == std::filesystem::file_type::not_found) {
        throw InputError({where, fmt::format("no file {}", in_quotes(path.string(), kLongestPath)),
                          "a file that exists", ""});
    }
    if (status.type() != std::filesystem::file_type::regular) {
        throw InputError(
            {where, fmt::format("{} is not a regular file", in_quotes(path.string(), kLongestPath)),
             "a file", ""});
    }
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    const std::size_t limit = YamlLimits{}.max_bytes;
    if (!error && size > limit) {
        throw InputError(
            {where, fmt::format("{} has {} bytes", in_quotes(path.string(), kLongestPath), size),
             fmt::format("at most {} bytes", limit), ""});
    }
    // Special files claim to be small; never read past the limit.
    std::ifstream stream(path, std::ios::binary);
    std::string text(std::min<std::uintmax_t>(error ? 0 : size + 1, limit + 1), '\0');
    stream.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (error || stream.bad() || !stream.eof()) {
        throw InputError({where,
                          fmt::format("cannot read {}", in_quotes(path.string(), kLongestPath)),
                          "a readable file", ""});
    }
    text.resize(static_cast<std::size_t>(stream.gcount()));
    return std::string(utf8_text(text, path.lexically_normal().string()));
}

std::vector<std::vector<double>> parse_csv(std::string_view text, const std::string& file,
                                           const Range& range,
                                           std::vector<InputProblem>& problems) {
    constexpr std::string_view accepted =
        "numbers separated by commas, semicolons or blanks; a header line and a column that names "
        "the rows may stand before them; '#' begins a comment line";
    std::vector<std::vector<double>> rows;
    for (const std::vector<NumberCell>& cells : parse_number_table(text, file)) {
        std::vector<double>& row = rows.emplace_back();
        for (const NumberCell& cell : cells) {
            const std::optional<double> value = parse_number(std::string(cell.text));
            if ((!value || !is_in_range(*value, range)) && problems.size() < kMaxFileProblems) {
                problems.push_back({to_string(file, {cell.line, cell.column}),
                                    fmt::format("{} is {}", in_quotes(std::string(cell.text)),
                                                value ? "out of range" : "not a number"),
                                    std::string(accepted), ""});
            }
            row.push_back(value.value_or(0.0));
        }
    }
    // Columns numbered 0, 1, 2 in a header look like counts of the first layer.
    const auto is_numbering = [](const std::vector<double>& row) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            if (row[i] != row[0] + static_cast<double>(i)) return false;
        }
        return row.size() > 2 && row[0] == 0.0;
    };
    if (rows.size() > 1 && is_numbering(rows.front())) {
        problems.push_back({file, "a first row 0, 1, 2 ...: numbers of columns, or data?",
                            "a header with a name in it, such as 'layer,0,1,2', or none",
                            "begin the line with '#' if it numbers the columns"});
    }
    return rows;
}

}  // namespace headway::inline scenario
