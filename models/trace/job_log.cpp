#include "models/trace/job_log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <string_view>
#include <utility>

#include "models/vocab/error.hpp"

namespace headway::inline trace {
namespace {

constexpr std::string_view kLogAccepted =
    "lines with 'iteration N/M | ... elapsed time per iteration (ms): T |' (Megatron-LM, "
    "Megatron-Bridge) or 'iteration N/M | ... train_step_timing in s: T' (NeMo)";

// A part of a line, and where it stands: the column of an error counts from 1.
struct Line {
    std::string_view text;
    int number = 0;
    bool is_whole = true;  // it ends with a line break
    const std::string* file = nullptr;

    [[noreturn]] void refuse(std::size_t column, std::string found, std::string accepted,
                             std::string hint = "") const {
        throw InputError({.where = fmt::format("{}:{}:{}", *file, number, column + 1),
                          .found = std::move(found),
                          .accepted = std::move(accepted),
                          .hint = std::move(hint)});
    }
};

// No job has more iterations, bytes or milliseconds: what is more is no number of a log.
constexpr std::int64_t kMost = 1'000'000'000'000'000;

constexpr std::size_t kNowhere = std::string_view::npos;

std::size_t skip_blanks(std::string_view text, std::size_t at) {
    while (at < text.size() && text[at] == ' ') ++at;
    return at;
}

// The digits at `at`, which moves behind them.
std::optional<std::int64_t> digits(std::string_view text, std::size_t& at) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (error != std::errc{} || end == text.data() + at || text[at] == '-' || value > kMost)
        return std::nullopt;
    at = static_cast<std::size_t>(end - text.data());
    return value;
}

// "iteration 10/ 50 |": the place behind it and the number.
std::optional<std::pair<std::size_t, std::int64_t>> iteration_of(std::string_view text) {
    constexpr std::string_view word = "iteration ";
    for (std::size_t at = text.find(word); at != kNowhere; at = text.find(word, at + 1)) {
        std::size_t next = skip_blanks(text, at + word.size());
        const auto number = digits(text, next);
        if (!number) continue;
        next = skip_blanks(text, next);
        if (next == text.size() || text[next] != '/') continue;
        next = skip_blanks(text, next + 1);
        if (!digits(text, next)) continue;
        next = skip_blanks(text, next);
        if (next < text.size() && text[next] == '|') return std::pair{next, *number};
    }
    return std::nullopt;
}

// The number behind a label: up to '/' (a running mean follows it), blank, unit or '|'. Megatron
// ends every field with '|'; the last field of a NeMo line ends with the line.
std::optional<double> field(const Line& line, std::string_view label, std::size_t from = 0) {
    const std::size_t found = line.text.find(label, from);
    if (found == kNowhere) return std::nullopt;
    const std::size_t begin = skip_blanks(line.text, found + label.size());
    double value = 0.0;
    const char* const last = line.text.data() + line.text.size();
    const auto [end, error] = std::from_chars(line.text.data() + begin, last, value);
    const std::string_view whole = line.text.substr(
        begin, std::min(line.text.find_first_of(" |", begin), line.text.size()) - begin);
    const bool is_cut = end == last && !line.is_whole;
    if (begin == line.text.size() || is_cut)
        line.refuse(begin, fmt::format("'{}' of a line that is cut", label),
                    "a number and the rest of the line", "the file was copied in part");
    if (error != std::errc{} || !(value >= 0.0 && value <= static_cast<double>(kMost)))
        line.refuse(begin, fmt::format("'{} {}'", label, whole), "a positive number");
    return value;
}

std::optional<std::int64_t> count(const Line& line, std::string_view label) {
    const auto value = field(line, label);
    return value ? std::optional(static_cast<std::int64_t>(*value)) : std::nullopt;
}

// What the lines before said that belongs to the next iteration.
class Reader {
  public:
    explicit Reader(std::string file) { log_.file = std::move(file); }

    void read(const Line& line) {
        const auto iteration = iteration_of(line.text);
        if (log_.iterations.empty() && !iteration) {
            log_.head += line.text;
            log_.head += '\n';
        }
        read_memory(line);
        // Megatron-Bridge says what a step took before it says which one it was.
        if (line.text.find("Step Time :") != kNowhere) pending_ = field(line, "GPU utilization:");
        if (iteration) read_iteration(line, iteration->first, iteration->second);
    }

    JobLog take(int num_lines) {
        if (log_.iterations.empty()) {
            throw InputError(
                {.where = log_.file,
                 .found = fmt::format("no iteration in {} lines", num_lines),
                 .accepted = std::string(kLogAccepted),
                 .hint = "Megatron prints them on the last rank, every --log-interval iterations"});
        }
        std::sort(log_.memory.begin(), log_.memory.end(),
                  [](const LoggedMemory& a, const LoggedMemory& b) { return a.rank < b.rank; });
        return std::move(log_);
    }

  private:
    void read_iteration(const Line& line, std::size_t begin, std::int64_t number) {
        auto time = field(line, "elapsed time per iteration (ms):");
        const bool is_nemo = !time.has_value();
        if (is_nemo) {
            time = field(line, "train_step_timing in s:");
            if (time) *time *= 1e3;
        }
        if (!time) {
            line.refuse(begin, fmt::format("iteration {} without its time", number),
                        std::string(kLogAccepted),
                        line.is_whole ? "" : "the file was copied in part");
        }
        if (*time == 0.0)
            line.refuse(begin, fmt::format("iteration {} that took no time", number),
                        "a positive time");
        LoggedIteration one{.number = number,
                            .time = *time * ms,
                            .rate = rate_of(line) * (TFLOP / second),
                            .run = run_};
        one.skipped = count(line, "number of skipped iterations:").value_or(0) > 0 ||
                      count(line, "number of nan iterations:").value_or(0) > 0;
        if (is_nemo) read_nemo_memory(line, number);
        for (const std::string_view label : {"global batch size:", "global_batch_size:"}) {
            if (const auto size = count(line, label)) log_.global_batch_size = size;
        }
        add(one);
    }

    double rate_of(const Line& line) {
        for (const std::string_view label :
             {"throughput per GPU (TFLOP/s/GPU):", "TFLOPS_per_GPU:", "TFLOPs:"}) {
            if (const auto rate = field(line, label)) return *rate;
        }
        return std::exchange(pending_, std::nullopt).value_or(0.0);
    }

    // Several ranks, and a launcher that repeats its children's output, print one line twice.
    void add(LoggedIteration one) {
        if (!log_.iterations.empty()) {
            const LoggedIteration& last = log_.iterations.back();
            if (one.number == last.number && one.time == last.time) return;
            if (one.number <= last.number) one.run = ++run_;  // from an older checkpoint
        }
        log_.iterations.push_back(one);
    }

    // Two ranks may share a line: each statement goes up to the next one.
    void read_memory(const Line& line) {
        constexpr std::string_view mark = " iterations) memory (";
        if (const auto megabytes = field(line, "weight and optimizer="))
            log_.weights_and_optimizer = *megabytes * MiB;
        std::size_t at = line.text.find(mark);
        while (at != kNowhere) {
            const std::size_t next = line.text.find(mark, at + 1);
            read_memory_of(line, at, next == kNowhere ? line.text.size() : next);
            at = next;
        }
    }

    void read_memory_of(const Line& line, std::size_t at, std::size_t end) {
        const auto number_behind = [&](std::string_view mark) -> std::optional<std::int64_t> {
            const std::size_t found = line.text.rfind(mark, at);
            if (found == kNowhere) return std::nullopt;
            std::size_t place = found + mark.size();
            return digits(line.text, place);
        };
        Line own = line;
        own.text = line.text.substr(0, end);
        own.is_whole = line.is_whole || end < line.text.size();
        LoggedMemory memory{.rank = static_cast<int>(number_behind("[Rank ").value_or(-1)),
                            .after = number_behind("(after ").value_or(0)};
        // Megatron's megabytes are binary, Megatron-Bridge's gigabytes are decimal.
        const auto allocated = field(own, "max allocated:", at),
                   reserved = field(own, "max reserved:", at),
                   bridge = field(own, "mem-max-allocated-gigabytes:", at),
                   bridge_reserved = field(own, "mem-max-reserved-gigabytes:", at);
        if (allocated)
            memory.allocated = *allocated * MiB;
        else if (bridge)
            memory.allocated = *bridge * GB;
        else
            own.refuse(at, "memory of a rank without its peak",
                       "'max allocated: N' or 'mem-max-allocated-gigabytes: N'",
                       line.is_whole ? "" : "the file was copied in part");
        memory.reserved =
            reserved ? *reserved * MiB : (bridge_reserved ? *bridge_reserved * GB : Bytes{});
        keep(memory);
    }

    void read_nemo_memory(const Line& line, std::int64_t number) {
        const auto allocated = field(line, "max_memory_allocated:");
        if (!allocated) return;
        const auto reserved = field(line, "max_memory_reserved:");
        keep({.allocated = *allocated * byte,
              .reserved = reserved.value_or(0.0) * byte,
              .after = number});
    }

    void keep(const LoggedMemory& memory) {
        const auto same = std::find_if(log_.memory.begin(), log_.memory.end(),
                                       [&](const auto& m) { return m.rank == memory.rank; });
        if (same == log_.memory.end()) {
            log_.memory.push_back(memory);
            return;
        }
        same->allocated = max(same->allocated, memory.allocated);
        same->reserved = max(same->reserved, memory.reserved);
        same->after = std::max(same->after, memory.after);
    }

    JobLog log_;
    std::optional<double> pending_;
    int run_ = 0;
};

}  // namespace

JobLog read_job_log(std::istream& stream, const std::string& file) {
    constexpr std::size_t longest_line = std::size_t{16} << 20;
    Reader reader(file);
    std::string text;
    int number = 0;
    using Traits = std::istream::traits_type;
    std::streambuf& bytes = *stream.rdbuf();
    const auto read = [&](bool is_whole) {
        reader.read({.text = text, .number = ++number, .is_whole = is_whole, .file = &file});
        text.clear();
    };
    // Progress bars part their states by carriage returns alone; before a line feed they part none.
    for (auto c = bytes.sbumpc(); c != Traits::eof(); c = bytes.sbumpc()) {
        if (c == '\n' || (c == '\r' && bytes.sgetc() != '\n')) {
            read(true);
        } else if (c == '\0' || text.size() == longest_line) {
            throw InputError({.where = fmt::format("{}:{}", file, number + 1),
                              .found = c == '\0' ? "a zero byte: no text" : "a line without end",
                              .accepted = std::string(kLogAccepted)});
        } else {
            text += static_cast<char>(c);
        }
    }
    if (!text.empty()) read(false);
    return reader.take(number);
}

SteadyIterations steady_iterations(const JobLog& log, int warm_up) {
    const std::vector<LoggedIteration>& all = log.iterations;
    SteadyIterations steady;
    std::size_t first = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i].run != all[first].run) first = i;
        // The interval of a run's first line is that of its second.
        const bool has_second = first + 1 < all.size() && all[first + 1].run == all[first].run;
        const std::int64_t interval =
            has_second ? all[first + 1].number - all[first].number : all[first].number;
        const std::int64_t run_begin = all[first].number - interval;
        const std::int64_t begin = i == first ? run_begin : all[i - 1].number;
        if (begin < run_begin + warm_up)
            ++steady.warm_up;
        else if (all[i].skipped)
            ++steady.skipped;
        else
            steady.lines.push_back(all[i]);
    }
    if (steady.lines.empty()) {
        throw InputError(
            {.where = log.file,
             .found = fmt::format("{} iteration lines, {} of warm-up (the first {} iterations of "
                                  "a run), {} with skipped updates",
                                  all.size(), steady.warm_up, warm_up, steady.skipped),
             .accepted = "at least one line of a run that goes on",
             .hint = "--warmup N says how many iterations of a run do not count"});
    }
    return steady;
}

}  // namespace headway::inline trace
