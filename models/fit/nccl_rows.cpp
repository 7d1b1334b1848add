#include "models/fit/nccl_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <sstream>

#include "models/vocab/error.hpp"

namespace headway::inline fit {
namespace {

// Old versions print the largest relative error of floating-point sums instead of a count.
constexpr double kLargestError = 0.01;

std::optional<double> number(std::string_view word) {
    double value = 0.0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
    return value;
}

// -T prints "2026-04-19 03:09:07" behind the numbers.
void drop_timestamp(std::vector<std::string>& words) {
    const std::size_t n = words.size();
    if (n > 2 && words[n - 1].find(':') != std::string::npos &&
        words[n - 2].find('-') != std::string::npos && words[n - 2].size() == 10)
        words.resize(n - 2);
}

}  // namespace

void reject_log(const std::string& where, std::string found, std::string accepted) {
    throw InputError({.where = where, .found = std::move(found), .accepted = std::move(accepted)});
}

std::optional<Collective> nccl_program(std::string_view text, const std::string& where) {
    if (text.find("alltoallv") != std::string_view::npos)
        reject_log(where, "a log of alltoallv_perf", "alltoall_perf, whose parts are equal");
    for (const auto& [program, collective] : kNcclPrograms) {
        if (text.find(program) != std::string_view::npos) return collective;
    }
    return std::nullopt;
}

std::vector<std::string> split_words(std::string_view line) {
    std::istringstream stream{std::string(line)};
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    return words;
}

bool is_whole(std::string_view word) {
    return !word.empty() &&
           std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
}

void check_wrong(std::string_view column, const std::string& text, const std::string& where) {
    if (text == "N/A") return;
    const std::optional<double> wrong = number(text);
    if (!wrong) reject_log(where, fmt::format("{} '{}'", column, text), "a number or N/A");
    if (*wrong <= (column == "#wrong" ? 0.0 : kLargestError)) return;
    reject_log(where, fmt::format("{} {}: the collective gave wrong results", column, text),
               "a log without wrong results");
}

NcclRow read_row(std::vector<std::string> words, const std::vector<std::string>& columns,
                 const std::string& where) {
    drop_timestamp(words);
    const auto first_time = std::find(columns.begin(), columns.end(), "time");
    const auto lead = static_cast<std::size_t>(first_time - columns.begin());
    const std::size_t tail = columns.size() - lead;
    // redop and root may be blank, so the numbers are counted from the end of the row.
    if (first_time == columns.end() || tail < 4 || words.size() < tail + 3 ||
        words.size() > tail + lead) {
        reject_log(where, fmt::format("a row of {} words", words.size()),
                   fmt::format("{} to {} for this header", tail + 3, tail + lead));
    }
    const std::size_t begin = words.size() - tail;
    const std::string& time = words[begin];
    const std::optional<double> size = number(words[0]), micros = number(time);
    if (!micros || !std::isfinite(*micros) || *micros <= 0.0)
        reject_log(where, fmt::format("time '{}'", time), "microseconds above 0");
    const std::string& column = columns[lead + 3];
    if (column != "#wrong" && column != "error")
        reject_log(where, fmt::format("column '{}' after busbw", column), "#wrong or error");
    check_wrong(column, words[begin + 3], where);
    return {*size, *micros * 1e-6};
}

}  // namespace headway::inline fit
