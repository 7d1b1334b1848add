#include "models/scenario/source_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <system_error>

#include "models/scenario/parse_scalar.hpp"
#include "models/scenario/quantity_text.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::size_t kMaxFileProblems = 100;

std::string_view trimmed_cell(std::string_view text) {
    const std::size_t begin = text.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

}  // namespace

std::string read_text_file(const std::filesystem::path& path, const std::string& where) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (error || status.type() == std::filesystem::file_type::not_found) {
        throw InputError(
            {where, fmt::format("no file {}", in_quotes(path.string())), "a file that exists", ""});
    }
    if (status.type() != std::filesystem::file_type::regular) {
        throw InputError({where, fmt::format("{} is not a regular file", in_quotes(path.string())),
                          "a file", ""});
    }
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    const std::size_t limit = YamlLimits{}.max_bytes;
    if (!error && size > limit) {
        throw InputError({where, fmt::format("{} has {} bytes", in_quotes(path.string()), size),
                          fmt::format("at most {} bytes", limit), ""});
    }
    // Special files claim to be small; never read past the limit.
    std::ifstream stream(path, std::ios::binary);
    std::string text(std::min<std::uintmax_t>(error ? 0 : size + 1, limit + 1), '\0');
    stream.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (error || stream.bad() || !stream.eof()) {
        throw InputError({where, fmt::format("cannot read {}", in_quotes(path.string())),
                          "a readable file", ""});
    }
    text.resize(static_cast<std::size_t>(stream.gcount()));
    return text;
}

std::vector<std::vector<double>> parse_csv(std::string_view text, const std::string& file,
                                           const Range& range,
                                           std::vector<InputProblem>& problems) {
    std::vector<std::vector<double>> rows;
    int line_number = 0;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        ++line_number;
        if (trimmed_cell(line).empty() || trimmed_cell(line).front() == '#') continue;
        std::vector<double> row;
        std::size_t begin = 0;
        while (begin <= line.size()) {
            const std::size_t comma = std::min(line.find(',', begin), line.size());
            const std::string_view cell = trimmed_cell(line.substr(begin, comma - begin));
            const std::optional<double> value = parse_number(cell);
            if ((!value || !is_in_range(*value, range)) && problems.size() < kMaxFileProblems) {
                problems.push_back({to_string(file, {line_number, static_cast<int>(begin) + 1}),
                                    fmt::format("{} is {}", in_quotes(cell),
                                                value ? "out of range" : "not a number"),
                                    "numbers separated by commas; '#' begins a comment line", ""});
            }
            row.push_back(value.value_or(0.0));
            begin = comma + 1;
        }
        rows.push_back(std::move(row));
    }
    return rows;
}

}  // namespace headway::inline scenario
