#include "models/fit/nccl_log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <sstream>

#include "models/fit/nccl_json.hpp"
#include "models/fit/nccl_rows.hpp"
#include "models/report/input_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline fit {
namespace {

// What a text log says before and between its rows.
struct LogHead {
    std::optional<Collective> program;
    std::set<int> ranks;
    std::set<std::string> hosts;
    std::string device;
    std::vector<std::string> columns;  // from "size" on
};

// mpirun --tag-output: "[1,0]<stdout>:".
std::string_view without_tag(std::string_view line) {
    const std::size_t end = line.find("<stdout>:");
    return end == std::string_view::npos ? line : line.substr(end + 9);
}

// "#  Rank  0 [Group  0] Pid  7774 on host device  0 [0000:8f:00] NVIDIA H200"
void read_rank(const std::vector<std::string>& words, LogHead& head, const std::string& where) {
    const auto on = std::find(words.begin(), words.end(), "on");
    int rank = -1;
    if (words.size() > 2) std::from_chars(words[2].data(), words[2].data() + words[2].size(), rank);
    if (rank < 0 || on == words.end() || on + 1 == words.end()) return;
    if (!head.ranks.insert(rank).second) {
        throw InputError({.where = where,
                          .found = fmt::format("rank {} is listed twice", rank),
                          .accepted = "one run",
                          .hint = "built without MPI=1, nccl-tests runs every process by itself"});
    }
    head.hosts.insert(*(on + 1));
    const auto bus =
        std::find_if(on, words.end(), [](const std::string& w) { return w[0] == '['; });
    if (rank != 0 || bus == words.end()) return;
    for (auto it = bus + 1; it != words.end(); ++it)
        head.device += (head.device.empty() ? "" : " ") + *it;
}

void read_comment(std::string_view line, LogHead& head, const std::string& where) {
    const std::vector<std::string> words = split_words(line);
    if (words.size() > 1 && words[1] == "Rank") read_rank(words, head, where);
    if (words.size() > 2 && words[1] == "size" && words[2] == "count")
        head.columns.assign(words.begin() + 1, words.end());
    if (line.find("Collective test starting") != std::string_view::npos)
        head.program = nccl_program(line, where);
}

bool begins_run(std::string_view line) {
    return line.find("# nThread") != std::string_view::npos ||
           line.find("Collective test starting") != std::string_view::npos;
}

bool is_row(std::string_view line) {
    const std::size_t first = line.find_first_not_of(" \t");
    if (first == std::string_view::npos || line[first] < '0' || line[first] > '9') return false;
    const std::vector<std::string> words = split_words(line);
    return words.size() >= 6 && is_whole(words[0]) && is_whole(words[1]);
}

Collective collective_of(const LogHead& head, std::optional<Collective> named,
                         std::optional<Collective> asked, const std::string& file_name) {
    const std::optional<Collective> said = head.program ? head.program : named;
    if (said && asked && *said != *asked) {
        throw InputError({.where = file_name,
                          .found = fmt::format("a log of {}", name(*said)),
                          .accepted = std::string(name(*asked))});
    }
    if (said || asked) return said ? *said : *asked;
    throw InputError({.where = file_name,
                      .found = "a log that does not name its collective",
                      .accepted = "a file name or command line with alltoall_perf, "
                                  "all_reduce_perf, all_gather_perf, reduce_scatter_perf or "
                                  "sendrecv_perf"});
}

NcclTable read_text(std::string_view text, const std::string& file_name,
                    std::optional<Collective> asked) {
    LogHead head;
    NcclTable table;
    std::optional<Collective> named = nccl_program(file_name, file_name);
    int line_number = 0;
    std::istringstream stream{std::string(text)};
    for (std::string whole; std::getline(stream, whole);) {
        ++line_number;
        const std::string_view line = without_tag(whole);
        const std::string where = fmt::format("{}:{}", file_name, line_number);
        if (line.find_first_not_of(" \t") != std::string_view::npos &&
            line[line.find_first_not_of(" \t")] == '#') {
            if (!table.size.empty() && begins_run(line)) {
                throw InputError({.where = where,
                                  .found = "the beginning of a second run",
                                  .accepted = "a file for every run"});
            }
            read_comment(line, head, where);
        } else if (is_row(line)) {
            if (head.columns.empty())
                throw InputError({.where = where, .found = "a row before the table's header"});
            const NcclRow row = read_row(split_words(line), head.columns, where);
            table.size.push_back(row.size);
            table.seconds.push_back(row.seconds);
        } else if (!named) {
            named = nccl_program(line, where);
        }
    }
    if (table.size.empty()) {
        throw InputError({.where = file_name,
                          .found = "no results",
                          .accepted = "the output of an nccl-tests program, text or JSON (-J)"});
    }
    table.collective = collective_of(head, named, asked, file_name);
    table.num_ranks = static_cast<int>(head.ranks.size());
    table.num_hosts = std::max(1, static_cast<int>(head.hosts.size()));
    table.device = head.device;
    if (!head.ranks.empty() && *head.ranks.rbegin() + 1 != table.num_ranks) {
        throw InputError({.where = file_name,
                          .found = fmt::format("{} of {} ranks are listed", table.num_ranks,
                                               *head.ranks.rbegin() + 1),
                          .accepted = "a \"# Rank\" line for every rank"});
    }
    return table;
}

}  // namespace

NcclTable read_nccl_log(std::string_view text, const std::string& file_name,
                        std::optional<Collective> collective) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    const bool json = first != std::string_view::npos && text[first] == '{';
    NcclTable table =
        json ? read_nccl_json(text, file_name, collective) : read_text(text, file_name, collective);
    if (table.num_ranks < 2) {
        throw InputError({.where = file_name,
                          .found = fmt::format("{} ranks", table.num_ranks),
                          .accepted = "the \"# Rank\" lines of at least 2 ranks"});
    }
    table.source = fmt::format("nccl-tests log {}", file_name);
    return table;
}

NcclTable read_nccl_log(const std::filesystem::path& file, std::optional<Collective> collective) {
    return read_nccl_log(read_input_file(file, "a log of nccl-tests"), file.filename().string(),
                         collective);
}

double curve_bytes(const NcclTable& table, PathClass path, double size) {
    const double n = table.num_ranks, others = (n - 1.0) / n;
    switch (table.collective) {
        case Collective::all_to_all: {
            const bool off_node = path == PathClass::nic || path == PathClass::spine;
            return off_node && table.num_hosts > 1 ? size * (n - n / table.num_hosts) / n
                                                   : size * others;
        }
        case Collective::all_reduce:
            return 2.0 * size * others;
        case Collective::all_gather:
        case Collective::reduce_scatter:
            return size * others;
        case Collective::send_recv:
            break;
    }
    return size;
}

TimeCurve to_time_curve(const NcclTable& table, std::optional<PathClass> path) {
    const PathClass p = path.value_or(table.num_hosts > 1 ? PathClass::nic : PathClass::nvlink);
    std::vector<TimeSample> samples;
    for (std::size_t i = 0; i < table.size.size(); ++i) {
        // Sizes too small to give every rank an element are printed as rows of zero bytes.
        if (table.size[i] <= 0.0) continue;
        samples.push_back({curve_bytes(table, p, table.size[i]), table.seconds[i]});
    }
    if (samples.empty())
        throw InputError({.where = table.source, .found = "no row with more than 0 bytes"});
    TimeCurve curve = fit_time_curve({.collective = table.collective,
                                      .path = p,
                                      .num_ranks = table.num_ranks,
                                      .source = table.source},
                                     std::move(samples));
    // Logs do not say what the link could carry; what it did carry is the next best.
    curve.link = curve.bytes.back() / curve.seconds.back() * byte / second;
    curve.source += "; link: largest measured rate";
    return curve;
}

}  // namespace headway::inline fit
