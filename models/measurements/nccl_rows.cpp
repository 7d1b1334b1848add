#include "models/measurements/nccl_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <sstream>

#include "models/vocab/error.hpp"

namespace headway::inline measurements {
namespace {

// Old versions print the largest relative error of floating-point sums instead of a count.
constexpr double kLargestError = 0.01;

std::optional<double> number(std::string_view word) {
    double value = 0.0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
    return value;
}

struct Program {
    std::string_view name;  // without "_perf"
    std::optional<Collective> collective;
};
constexpr Program kPrograms[] = {
    {"alltoall", Collective::all_to_all},
    {"all_reduce", Collective::all_reduce},
    {"all_gather", Collective::all_gather},
    {"reduce_scatter", Collective::reduce_scatter},
    {"sendrecv", Collective::send_recv},
    {"alltoallv", {}},  // parts are uneven, and a row does not say what a rank sent
    {"all_reduce_bias", {}},
    {"broadcast", {}},
    {"reduce", {}},
    {"gather", {}},
    {"scatter", {}},
    {"hypercube", {}},
};

constexpr std::string_view kTypes[] = {
    "int8",     "uint8",  "int32",  "uint32",   "int64",    "uint64", "half", "float",   "double",
    "bfloat16", "f8e4m3", "f8e5m2", "fp8_e4m3", "fp8_e5m2", "fp16",   "bf16", "float32", "float16",
};

// -T prints "2026-04-19 03:09:07" behind the numbers.
void drop_timestamp(std::vector<std::string>& words) {
    const std::size_t n = words.size();
    if (n > 2 && words[n - 1].find(':') != std::string::npos &&
        words[n - 2].find('-') != std::string::npos && words[n - 2].size() == 10)
        words.resize(n - 2);
}

}  // namespace

void reject_log(const std::string& where, std::string found, std::string accepted,
                std::string hint) {
    throw InputError({.where = where,
                      .found = std::move(found),
                      .accepted = std::move(accepted),
                      .hint = std::move(hint)});
}

std::optional<std::string> nccl_program(std::string_view text, bool bare) {
    std::string words;
    for (const char c : text) {
        // Names of files are written in many ways: all-reduce.log, allreduce.log.
        if (!bare || std::isalnum(static_cast<unsigned char>(c)) != 0) words += c;
    }
    const Program* best = nullptr;
    std::size_t first = std::string::npos;
    for (const Program& p : kPrograms) {
        std::string name = std::string(p.name) + (bare ? "" : "_perf");
        if (bare) std::erase(name, '_');
        if (bare && !p.collective && p.name != "alltoallv") continue;
        const std::size_t at = words.find(name);
        if (at == std::string::npos) continue;
        // gather_perf is also the end of all_gather_perf: the one that begins first is meant, and
        // of those the longest.
        if (at > first || (at == first && p.name.size() < best->name.size())) continue;
        best = &p;
        first = at;
    }
    if (best == nullptr) return std::nullopt;
    return std::string(best->name) + "_perf";
}

std::optional<Collective> collective_of(std::string_view program) {
    for (const Program& p : kPrograms) {
        if (program == std::string(p.name) + "_perf") return p.collective;
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

std::optional<std::size_t> row_begin(const std::vector<std::string>& words) {
    for (std::size_t i = 2; i < words.size(); ++i) {
        if (is_whole(words[i - 1]) && is_whole(words[i - 2]) &&
            std::find(std::begin(kTypes), std::end(kTypes), words[i]) != std::end(kTypes))
            return i - 2;
    }
    return std::nullopt;
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
    NcclRow result{.size = *size, .seconds = *micros * 1e-6, .where = where};
    result.algbw = number(words[begin + 1]).value_or(0.0);
    result.busbw = number(words[begin + 2]).value_or(0.0);
    // Between type and time: redop and root, either of which may be blank.
    result.reduces = begin > 3 && words[3] != "none" && !is_whole(words[3]) && words[3] != "-1";
    return result;
}

namespace {

// busbw over algbw: what PERFORMANCE.md of nccl-tests defines.
double bus_factor(Collective collective, int num_ranks) {
    const double n = num_ranks, others = (n - 1.0) / n;
    if (collective == Collective::send_recv) return 1.0;
    return collective == Collective::all_reduce ? 2.0 * others : others;
}

bool is_reduction(Collective c) {
    return c == Collective::all_reduce || c == Collective::reduce_scatter;
}

// Printed with two digits behind the point, of which large values lose some.
constexpr double kHalfDigit = 0.0051, kRelative = 5e-4;

bool fits(const NcclRow& row, double factor) {
    return std::abs(row.busbw - factor * row.algbw) <=
           kHalfDigit * (1.0 + factor) + kRelative * row.busbw;
}

// "16 ranks", or "128 to 133 ranks": those whose factor the row of the largest bandwidth has.
std::string ranks_that_fit(Collective collective, const std::vector<NcclRow>& rows) {
    const auto best =
        std::max_element(rows.begin(), rows.end(),
                         [](const NcclRow& a, const NcclRow& b) { return a.busbw < b.busbw; });
    if (best->busbw <= 0.0 || collective == Collective::send_recv) return "";
    constexpr int kMostRanks = 1 << 16;
    int low = 0, high = 0;
    for (int n = 2; n <= kMostRanks; ++n) {
        if (!fits(*best, bus_factor(collective, n))) continue;
        if (low == 0) low = n;
        high = n;
    }
    if (low == 0) return "";
    if (low == high) return fmt::format("{} ranks", low);
    return high == kMostRanks ? fmt::format("{} ranks or more", low)
                              : fmt::format("{} to {} ranks", low, high);
}

std::string hint_of_ranks(Collective collective, const std::vector<NcclRow>& rows) {
    const std::string ranks = ranks_that_fit(collective, rows);
    return ranks.empty() ? "" : "its bandwidths are those of " + ranks;
}

// Size, time and both bandwidths of a row say twice how fast it was and of how many ranks it is.
void check_bandwidths(const NcclRow& row, Collective collective, int num_ranks,
                      const std::vector<NcclRow>& all) {
    if (row.algbw <= 0.0 || row.busbw <= 0.0) return;
    const double factor = bus_factor(collective, num_ranks), rate = row.size / row.seconds * 1e-9;
    const auto is = [&](double algbw) {
        constexpr double kDigitsOfTime = 0.01;
        return std::abs(row.algbw - algbw) <= kHalfDigit + kDigitsOfTime * algbw;
    };
    // Before 2020 the bandwidth of gathering was of what came from others.
    const bool gathers =
        collective == Collective::all_gather || collective == Collective::reduce_scatter;
    const bool is_old = gathers && is(factor * rate) && fits(row, 1.0);
    if (!is(rate) && !is_old) {
        reject_log(row.where,
                   fmt::format("algbw {} GB/s of {:.0f} bytes in {:.6g} us", row.algbw, row.size,
                               1e6 * row.seconds),
                   fmt::format("{:.2f} GB/s, size over time", rate));
    }
    if (fits(row, factor) || is_old) return;
    reject_log(row.where,
               fmt::format("busbw {} is {:.3f} of algbw {}: no {} of {} ranks", row.busbw,
                           row.busbw / row.algbw, row.algbw, name(collective), num_ranks),
               fmt::format("{:.3f}", factor), hint_of_ranks(collective, all));
}

// What the run is, and nothing if it is none that a table can hold: then `why` says so.
std::optional<Collective> collective_of_run(const NcclRun& run,
                                            const std::optional<std::string>& otherwise,
                                            const LogFacts& facts, const std::string& file_name,
                                            std::string& why) {
    std::optional<std::string> program = run.program;
    if (!program && facts.collective) return facts.collective;
    if (!program) program = otherwise;
    if (!program) {
        reject_log(file_name, "a log that does not name its collective",
                   "a file name or command line with alltoall_perf, all_reduce_perf, "
                   "all_gather_perf, reduce_scatter_perf or sendrecv_perf",
                   "--collective states it");
    }
    const std::optional<Collective> said = collective_of(*program);
    if (!said || (facts.collective && said != facts.collective)) {
        why = "a log of " + *program;
        return std::nullopt;
    }
    return said;
}

int ranks_of_run(const NcclRun& run, Collective collective, const LogFacts& facts,
                 const std::string& file_name) {
    if (run.num_ranks == 0 && facts.num_ranks == 0) {
        reject_log(file_name,
                   run.incomplete.empty()
                       ? "no \"# Rank\" line: nothing says on how many ranks it ran"
                       : run.incomplete,
                   "a \"# Rank\" line for every rank, or --ranks N and --nodes N",
                   hint_of_ranks(collective, run.rows));
    }
    if (run.num_ranks != 0 && facts.num_ranks != 0 && run.num_ranks != facts.num_ranks) {
        reject_log(file_name, fmt::format("a run of {} ranks", run.num_ranks),
                   fmt::format("--ranks {}", run.num_ranks));
    }
    const int num_ranks = run.num_ranks != 0 ? run.num_ranks : facts.num_ranks;
    if (num_ranks < 2)
        reject_log(file_name, fmt::format("a run of {} rank", num_ranks), "at least 2 ranks");
    return num_ranks;
}

NcclTable table_of(const NcclRun& run, Collective collective, const LogFacts& facts,
                   const std::string& file_name) {
    NcclTable table{.collective = collective,
                    .num_ranks = ranks_of_run(run, collective, facts, file_name),
                    .num_hosts = facts.num_hosts != 0 ? facts.num_hosts : run.num_hosts,
                    .device = run.device,
                    .source = "nccl-tests log " + file_name};
    if (table.num_hosts > table.num_ranks) {
        reject_log("--nodes",
                   fmt::format("{} nodes for {} ranks", table.num_hosts, table.num_ranks),
                   "at most as many as ranks");
    }
    for (const NcclRow& row : run.rows) {
        // sendrecv_perf prints an operation that it does not perform.
        if (collective != Collective::send_recv && row.reduces != is_reduction(collective)) {
            reject_log(row.where,
                       row.reduces ? "a row of a reduction" : "a row without an operation",
                       fmt::format("rows of {}", name(collective)),
                       "--collective states what the log is of");
        }
        check_bandwidths(row, collective, table.num_ranks, run.rows);
        table.size.push_back(row.size);
        table.seconds.push_back(row.seconds);
    }
    return table;
}

}  // namespace

NcclLog tables_of(std::vector<NcclRun> runs, const std::string& file_name,
                  const std::optional<std::string>& named, const LogFacts& facts) {
    std::erase_if(runs, [](const NcclRun& run) { return run.rows.empty(); });
    if (runs.empty()) {
        reject_log(file_name, "no results",
                   "the output of an nccl-tests or rccl-tests program: text, or JSON (-J, -Z)");
    }
    // A run without a name is of the program that the others name, if it is one.
    std::optional<std::string> otherwise = named;
    for (const NcclRun& run : runs) {
        if (!run.program) continue;
        const bool same = std::all_of(runs.begin(), runs.end(), [&](const NcclRun& other) {
            return !other.program || other.program == run.program;
        });
        otherwise = same ? run.program : std::nullopt;
    }
    NcclLog log;
    for (const NcclRun& run : runs) {
        const std::string& where = run.rows.front().where;
        std::string why;
        const auto collective = collective_of_run(run, otherwise, facts, file_name, why);
        if (collective) {
            add_table(log.tables, table_of(run, *collective, facts, file_name));
        } else {
            log.skipped.push_back(where + ": " + why);
        }
    }
    if (!log.tables.empty()) return log;
    reject_log(log.skipped.front().substr(0, log.skipped.front().rfind(": ")),
               log.skipped.front().substr(log.skipped.front().rfind(": ") + 2),
               facts.collective ? fmt::format("{}, as --collective says", name(*facts.collective))
                                : "alltoall_perf, all_reduce_perf, all_gather_perf, "
                                  "reduce_scatter_perf or sendrecv_perf");
}

}  // namespace headway::inline measurements
