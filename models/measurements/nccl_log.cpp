#include "models/measurements/nccl_log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "models/measurements/nccl_json.hpp"
#include "models/measurements/nccl_rows.hpp"
#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline measurements {
namespace {

// A line's words without what launchers print between them: "[0]" of Hydra is put before every
// write, also inside a line; in front, prefixes are left to those who look for words behind them.
std::vector<std::string> words_of(std::string_view line) {
    std::string text;
    for (std::size_t i = 0; i < line.size(); ++i) {
        const std::size_t end = line[i] == '[' ? line.find(']', i) : std::string_view::npos;
        if (end != std::string_view::npos && is_whole(line.substr(i + 1, end - i - 1))) {
            text += ' ';
            i = end;
        } else {
            text += line[i] == '#' ? ' ' : line[i];
        }
    }
    std::vector<std::string> words = split_words(text);
    // "#wrong", whose mark is no comment's.
    for (std::string& word : words) {
        if (word == "wrong") word = "#wrong";
    }
    return words;
}

struct ListedRank {
    int group = 0;
    std::string host, device;
};

// Where a word stands that is followed by `next...`.
template <class... Next>
std::optional<std::size_t> find_words(const std::vector<std::string>& words, const char* first,
                                      const Next&... next) {
    const std::vector<std::string> wanted = {first, next...};
    const auto at = std::search(words.begin(), words.end(), wanted.begin(), wanted.end());
    if (at == words.end()) return std::nullopt;
    return static_cast<std::size_t>(at - words.begin());
}

class TextLog {
  public:
    explicit TextLog(std::string file_name) : file_name_(std::move(file_name)) {}

    void add_line(std::string_view line) {
        where_ = fmt::format("{}:{}", file_name_, ++line_number_);
        const std::vector<std::string> words = words_of(line);
        const auto program = nccl_program(line);
        if (const auto begin = row_begin(words); begin && !columns_.empty()) {
            add_row({words.begin() + static_cast<std::ptrdiff_t>(*begin), words.end()});
        } else if (begin) {
            reject_log(where_, "a row before the table's header", "the line \"# size count ...\"");
        } else if (const auto header = find_words(words, "size", "count", "type")) {
            begin_table();
            columns_.assign(words.begin() + static_cast<std::ptrdiff_t>(*header), words.end());
        } else if (find_words(words, "Collective", "test", "concluded:")) {
            if (!run_.program) run_.program = program;
            end_table();
        } else if (find_words(words, "Collective", "test", "starting:")) {
            begin_head();
            run_.program = program;
        } else if (const auto thread = find_words(words, "nThread");
                   thread && words.size() > *thread + 2 && is_whole(words[*thread + 1])) {
            begin_head();
        } else if (const auto rank = find_words(words, "Rank")) {
            add_rank(words, *rank);
        } else if (find_words(words, "Out", "of", "bounds", "values") && words.back() == "FAILED") {
            reject_log(where_, "wrong results: out-of-bounds values, FAILED",
                       "a log without wrong results");
        } else if (program) {
            add_name(*program);
        }
    }

    std::vector<NcclRun> runs() {
        begin_head();
        return std::move(runs_);
    }

  private:
    // Where rows are followed by something that comes before rows, a run is over.
    void end_table(bool with_ranks = true) {
        if (run_.rows.empty()) return;
        take_ranks();
        check_order();
        const std::optional<std::string> program = run_.program;
        runs_.push_back(std::move(run_));
        run_ = {};
        columns_.clear();
        names_ = std::move(next_names_);
        next_names_.clear();
        if (!with_ranks) {
            run_.program = program;
            return;
        }
        ranks_.clear();
        num_heads_ = 0;
    }

    // The first line of a head, and those after it, before the ranks are listed.
    void begin_head() {
        end_table();
        if (ranks_.empty()) return;
        // Ranks without rows: of a run that failed, or of one that prints beside this one.
        ++num_heads_;
        ranks_.clear();
    }

    // Another header alone: the same ranks go on.
    void begin_table() {
        end_table(false);
        if (!names_.empty() && !run_.program) {
            const std::set<std::string> distinct(names_.begin(), names_.end());
            if (distinct.size() == 1) run_.program = names_.front();
        }
    }

    void add_name(const std::string& program) {
        (run_.rows.empty() ? names_ : next_names_).push_back(program);
    }

    void add_row(std::vector<std::string> words) {
        run_.rows.push_back(read_row(std::move(words), columns_, where_));
    }

    // "#  Rank  0 [Group  0] Pid  7774 on host device  0 [0000:8f:00] NVIDIA H200"
    void add_rank(const std::vector<std::string>& words, std::size_t at) {
        const auto on =
            std::find(words.begin() + static_cast<std::ptrdiff_t>(at), words.end(), "on");
        if (at + 1 >= words.size() || !is_whole(words[at + 1]) || on == words.end() ||
            on + 1 == words.end())
            return;
        end_table();
        const int rank = whole(words[at + 1]);
        ListedRank listed{.host = *(on + 1)};
        if (words[at + 2] == "Group" && at + 3 < words.size()) listed.group = whole(words[at + 3]);
        const auto bus =
            std::find_if(on, words.end(), [](const std::string& w) { return w[0] == '['; });
        for (auto it = bus; it != words.end() && ++it != words.end();)
            listed.device += (listed.device.empty() ? "" : " ") + *it;
        if (ranks_.emplace(rank, std::move(listed)).second) return;
        reject_log(where_, fmt::format("rank {} is listed twice", rank), "one run",
                   "built without MPI=1, nccl-tests runs every process by itself");
    }

    int whole(const std::string& word) const {
        int value = 0;
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
        if (error != std::errc() || end != word.data() + word.size())
            reject_log(where_, fmt::format("'{}'", word), "a whole number of a rank or group");
        return value;
    }

    // Ranks and hosts of a communicator: of all ranks, or (NCCL_TESTS_SPLIT) of a group of them.
    void take_ranks() {
        if (ranks_.empty()) return;
        const int last = ranks_.rbegin()->first;
        run_.device = ranks_.begin()->second.device;
        if (last + 1 != static_cast<int>(ranks_.size())) {
            run_.incomplete = fmt::format("{} of {} ranks are listed", ranks_.size(), last + 1);
            return;
        }
        std::map<int, int> sizes;
        std::set<std::string> hosts;
        for (const auto& [rank, listed] : ranks_) {
            ++sizes[listed.group];
            if (listed.group == ranks_.begin()->second.group) hosts.insert(listed.host);
        }
        for (const auto& [group, size] : sizes) {
            if (size == sizes.begin()->second) continue;
            reject_log(where_,
                       fmt::format("groups of {} and {} ranks", sizes.begin()->second, size),
                       "groups of one size");
        }
        run_.num_ranks = sizes.begin()->second;
        run_.num_hosts = static_cast<int>(hosts.size());
    }

    // Sizes of a run rise, and begin anew with every cycle (-N). Two that print into each other
    // give each of them twice.
    void check_order() const {
        if (num_heads_ == 0) return;
        std::set<double> sizes;
        for (const NcclRow& row : run_.rows) {
            if (sizes.insert(row.size).second) continue;
            reject_log(row.where, "a size for the second time, after two lists of ranks", "one run",
                       "built without MPI=1, nccl-tests runs every process by itself");
        }
    }

    std::string file_name_, where_;
    int line_number_ = 0;
    NcclRun run_;
    std::vector<std::string> columns_;  // from "size" on
    std::map<int, ListedRank> ranks_;
    std::vector<std::string> names_, next_names_;  // of programs, in commands before a run
    int num_heads_ = 0;                            // lists of ranks before this one without rows
    std::vector<NcclRun> runs_;
};

// Rows of as many numbers each: what traffic between ranks is written as.
bool is_matrix(std::string_view text) {
    std::istringstream stream{std::string(text)};
    std::size_t columns = 0;
    for (std::string line; std::getline(stream, line);) {
        const std::vector<std::string> words = split_words(line);
        if (words.empty()) continue;
        if (columns == 0) columns = words.size();
        if (words.size() != columns || !std::all_of(words.begin(), words.end(), is_whole))
            return false;
    }
    return columns > 1;
}

}  // namespace

NcclLog read_nccl_log(std::string_view text, const std::string& file_name, const LogFacts& facts) {
    const auto named = nccl_program(file_name, true);
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    if (first != std::string_view::npos && (text[first] == '{' || text[first] == '[') &&
        looks_like_json(text.substr(first)))
        return tables_of(read_nccl_json(text, file_name), file_name, named, facts);
    if (text.find(kRcclCsvHeader) != std::string_view::npos)
        return tables_of(read_rccl_csv(text, file_name), file_name, named, facts);
    if (is_matrix(text)) {
        reject_log(file_name, "a matrix of numbers, not a log",
                   "the output of an nccl-tests program",
                   "headway alltoall --matrix reads bytes between ranks");
    }
    TextLog log(file_name);
    std::istringstream stream{std::string(text)};
    for (std::string line; std::getline(stream, line);) log.add_line(line);
    return tables_of(log.runs(), file_name, named, facts);
}

NcclLog read_nccl_log(const std::filesystem::path& file, const LogFacts& facts) {
    return read_nccl_log(read_input_file(file, "a log of nccl-tests"), file.filename().string(),
                         facts);
}

void add_table(std::vector<NcclTable>& tables, NcclTable table) {
    for (NcclTable& old : tables) {
        if (old.collective != table.collective || old.num_ranks != table.num_ranks ||
            old.num_hosts != table.num_hosts || old.device != table.device)
            continue;
        old.size.insert(old.size.end(), table.size.begin(), table.size.end());
        old.seconds.insert(old.seconds.end(), table.seconds.begin(), table.seconds.end());
        old.num_runs += table.num_runs;
        if (old.source.find(table.source) == std::string::npos) old.source += ", " + table.source;
        return;
    }
    tables.push_back(std::move(table));
}

double curve_bytes(const NcclTable& table, PathClass path, double size) {
    const double n = table.num_ranks, others = (n - 1.0) / n;
    switch (table.collective) {
        case Collective::all_to_all: {
            const bool off_node = crosses_nic(path);
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

TimeCurve to_time_curve(const NcclTable& table, PathClass path) {
    std::vector<TimeSample> samples;
    for (std::size_t i = 0; i < table.size.size(); ++i) {
        // Sizes too small to give every rank an element are printed as rows of zero bytes.
        if (table.size[i] <= 0.0) continue;
        const double bytes = curve_bytes(table, path, table.size[i]);
        samples.push_back({bytes, table.seconds[i], bytes});
    }
    if (samples.empty())
        throw InputError({.where = table.source, .found = "no row with more than 0 bytes"});
    std::string source = table.source;
    if (table.num_runs > 1) source += fmt::format(", {} runs", table.num_runs);
    return fit_points({.collective = table.collective,
                       .path = path,
                       .num_ranks = table.num_ranks,
                       .source = std::move(source)},
                      samples);
}

}  // namespace headway::inline measurements
