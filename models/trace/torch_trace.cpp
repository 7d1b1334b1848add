// The reader: nlohmann's events of parsing, as the file comes in.
#include "models/trace/torch_trace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <istream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "models/trace/gzip_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline trace {
namespace {

constexpr const char* kTraceAccepted =
    "a trace of PyTorch's profiler (export_chrome_trace), .json or .json.gz";

// Microseconds with decimals as whole nanoseconds: a double has no digits left for those of an
// absolute time. Times of more than a century are none; they end there.
Nanoseconds nanoseconds(std::string_view text) {
    constexpr Nanoseconds most = 4'000'000'000'000'000'000;
    if (text.find_first_of("eE") != text.npos) {
        double whole = 0.0;
        std::from_chars(text.data(), text.data() + text.size(), whole);
        return static_cast<Nanoseconds>(
            std::clamp(whole * 1e3, -static_cast<double>(most), static_cast<double>(most)));
    }
    Nanoseconds value = 0;
    int decimals = -1;
    const auto append = [&](int digit) {
        value = value > (most - digit) / 10 ? most : value * 10 + digit;
    };
    for (const char c : text) {
        if (c == '.') {
            decimals = 0;
        } else if (c >= '0' && c <= '9' && decimals < 3) {
            append(c - '0');
            if (decimals >= 0) ++decimals;
        }
    }
    for (int i = std::max(decimals, 0); i < 3; ++i) append(0);
    return text.starts_with('-') ? -value : value;
}

// Where A stands among the operands of A B; nothing for another operator.
std::optional<std::size_t> product_operands(std::string_view op) {
    for (const char* name : {"aten::mm", "aten::bmm", "aten::_scaled_mm", "aten::_grouped_mm",
                             "aten::_scaled_grouped_mm"}) {
        if (op == name) return 0;
    }
    // Before them: what the product is added to.
    if (op == "aten::addmm" || op == "aten::baddbmm") return 1;
    return std::nullopt;
}

// One event while it is read.
struct Event {
    std::string ph, cat, name, pid, tid;
    std::string ts, dur;
    std::int64_t id = -1, correlation = -1;
    std::int32_t stream = 0;
    bool in_graph = false;
    NcclCall collective;
    std::vector<Shape> shapes;
};

class Handler {
  public:
    explicit Handler(std::string file) { trace_.file = std::move(file); }

    // ---- nlohmann's interface

    bool null() { return true; }
    bool boolean(bool) { return true; }
    bool number_integer(std::int64_t value) { return number(value, {}); }
    bool number_unsigned(std::uint64_t value) {
        return number(static_cast<std::int64_t>(std::min<std::uint64_t>(value, INT64_MAX)), {});
    }
    bool number_float(double value, const std::string& text) { return number(whole(value), text); }
    bool string(std::string& text) {
        if (path_.size() == 3 && is_event()) {
            set_text(text);
        } else if (path_.size() == 4 && in_args()) {
            set_argument(text);
        } else if (path_.size() == 3 && path_[1].key == "deviceProperties" && key() == "name") {
            if (trace_.device.empty()) trace_.device = text;
        }
        return true;
    }
    bool binary(std::vector<std::uint8_t>&) { return true; }
    bool start_object(std::size_t) {
        // path_: [0] the document, [1] traceEvents, [2] an event, [3] its args, [4] a list in them.
        if (path_.size() == 2 && path_[1].key == "traceEvents") event_ = {};
        path_.push_back({});
        return true;
    }
    bool key(std::string& text) {
        path_.back().key = text;
        if (path_.size() == 1 && text == "traceEvents") has_events_ = true;
        return true;
    }
    bool end_object() {
        path_.pop_back();
        if (path_.size() == 2 && path_[1].key == "traceEvents") take_event();
        return true;
    }
    bool start_array(std::size_t) {
        if (path_.empty()) refuse("a JSON list", "");
        // Input Dims: a list of operands, each a list of numbers.
        if (path_.size() == 5 && in_shapes()) event_.shapes.emplace_back();
        path_.push_back({path_.size() == 1 ? path_.back().key : std::string()});
        return true;
    }
    bool end_array() {
        path_.pop_back();
        return true;
    }
    template <class Exception>
    bool parse_error(std::size_t position, const std::string& token, const Exception& error) {
        const std::string text = error.what();
        if (text.find("unexpected end of input") != text.npos)
            refuse("a JSON file that is cut",
                   "the job may still write it, or it was copied in part");
        refuse(fmt::format("no JSON at byte {}, at '{}'", position, shown(token)),
               "a name of record_function with a quote in it is written as it stands");
    }

    TorchTrace take() {
        if (!has_events_) refuse("JSON without traceEvents", "");
        const auto kernels = std::ranges::count_if(trace_.gpu, &GpuWork::is_kernel);
        if (kernels == 0) {
            refuse(fmt::format("{} events, none of them a GPU kernel", num_events_),
                   "profile with ProfilerActivity.CUDA");
        }
        return std::move(trace_);
    }

    [[noreturn]] void refuse(std::string found, std::string hint) const {
        throw InputError({.where = trace_.file,
                          .found = std::move(found),
                          .accepted = kTraceAccepted,
                          .hint = std::move(hint)});
    }

  private:
    // An open object, and its key at hand; an open list, and the key that it belongs to.
    struct Level {
        std::string key;
    };

    const std::string& key() const { return path_.back().key; }
    bool is_event() const { return path_.size() >= 3 && path_[0].key == "traceEvents"; }
    bool in_args() const { return is_event() && path_[2].key == "args"; }
    bool in_shapes() const { return in_args() && path_[3].key == "Input Dims"; }

    static std::int64_t whole(double value) {
        constexpr double most = 9e18;
        return static_cast<std::int64_t>(std::clamp(value, -most, most));
    }
    static std::int32_t bounded(std::int64_t value) {
        return static_cast<std::int32_t>(std::clamp<std::int64_t>(value, -1, INT32_MAX));
    }

    static std::string shown(const std::string& token) {
        std::string text = token.size() > 40 ? token.substr(token.size() - 40) : token;
        for (char& c : text) {
            if (static_cast<unsigned char>(c) < ' ') c = ' ';
        }
        return text;
    }

    bool number(std::int64_t value, const std::string& text) {
        if (path_.size() == 6 && in_shapes() && !event_.shapes.empty()) {
            event_.shapes.back().push_back(value);
        } else if (path_.size() == 3 && is_event()) {
            if (key() == "ts")
                event_.ts = text.empty() ? std::to_string(value) : text;
            else if (key() == "dur")
                event_.dur = text.empty() ? std::to_string(value) : text;
            else if (key() == "pid")
                event_.pid = std::to_string(value);
            else if (key() == "tid")
                event_.tid = std::to_string(value);
            else if (key() == "id")
                event_.id = value;
        } else if (path_.size() == 4 && in_args()) {
            set_argument(value);
        } else if (path_.size() == 2 && path_[0].key == "distributedInfo") {
            if (key() == "rank") trace_.rank = bounded(value);
            if (key() == "world_size") trace_.world_size = bounded(value);
        }
        return true;
    }

    void set_text(const std::string& text) {
        if (key() == "ph")
            event_.ph = text;
        else if (key() == "cat")
            event_.cat = text;
        else if (key() == "name")
            event_.name = text;
        else if (key() == "pid")
            event_.pid = text;
        else if (key() == "tid")
            event_.tid = text;
    }

    void set_argument(std::int64_t value) {
        const std::string& name = key();
        if (name == "correlation")
            event_.correlation = value;
        else if (name == "stream")
            event_.stream = bounded(value);
        else if (name == "graph id")
            event_.in_graph = value != 0;
        else if (name == "In msg nelems")
            event_.collective.in = value;
        else if (name == "Out msg nelems")
            event_.collective.out = value;
        else if (name == "Group size")
            event_.collective.group_size = bounded(value);
    }

    void set_argument(const std::string& text) {
        const std::string& name = key();
        if (name == "Collective name")
            event_.collective.name = text;
        else if (name == "dtype")
            event_.collective.dtype = text;
        else if (name == "In split size")
            event_.collective.in_splits = text;
        else if (name == "Out split size")
            event_.collective.out_splits = text;
        else if (name == "Process Group Ranks")
            event_.collective.ranks = text;
        else if (name == "Process Group Name" || name == "Process Group Description")
            event_.collective.group += (event_.collective.group.empty() ? "" : " ") + text;
    }

    std::uint32_t interned(const std::string& name) {
        const auto [place, is_new] =
            names_.try_emplace(name, static_cast<std::uint32_t>(trace_.names.size()));
        if (is_new) trace_.names.push_back(name);
        return place->second;
    }

    std::int32_t thread() {
        const auto [place, is_new] = threads_.try_emplace(
            {event_.pid, event_.tid}, static_cast<std::int32_t>(threads_.size()));
        return place->second;
    }

    void take_event() {
        ++num_events_;
        const std::string& cat = event_.cat;
        if (cat == "fwdbwd") return take_link();
        if (event_.ph != "X") return;
        // Nothing takes longer than some days: sums of durations stay whole numbers.
        constexpr Nanoseconds longest = 1'000'000'000'000'000;
        const Nanoseconds begin = nanoseconds(event_.ts),
                          duration = std::clamp(nanoseconds(event_.dur), Nanoseconds{0}, longest);
        if (cat == "kernel" || cat == "gpu_memcpy" || cat == "gpu_memset") {
            take_gpu(begin, duration);
        } else if (cat == "cpu_op" || cat == "user_annotation") {
            HostSpan span{.begin = begin,
                          .end = begin + duration,
                          .name = interned(event_.name),
                          .thread = thread(),
                          .is_annotation = cat == "user_annotation"};
            const auto first = product_operands(event_.name);
            if (first && event_.shapes.size() >= *first + 2) {
                span.shapes = static_cast<std::int32_t>(trace_.shapes.size());
                trace_.shapes.push_back({event_.shapes[*first], event_.shapes[*first + 1]});
            }
            trace_.host.push_back(span);
        } else if ((cat == "cuda_runtime" || cat == "cuda_driver") && event_.correlation >= 0) {
            trace_.launches.push_back(
                {event_.correlation, begin, begin + duration, thread(), interned(event_.name)});
        }
    }

    void take_gpu(Nanoseconds begin, Nanoseconds duration) {
        GpuWork work{
            .begin = begin,
            .duration = duration,
            .name = interned(event_.name),
            .stream = event_.stream,
            .correlation = event_.correlation,
            .is_kernel = event_.cat == "kernel",
            .in_graph = event_.in_graph,
            .to_host = event_.cat == "gpu_memcpy" && event_.name.find("DtoH") != event_.name.npos};
        if (!event_.collective.name.empty() || event_.name.find("nccl") != event_.name.npos) {
            work.collective = static_cast<std::int32_t>(trace_.collectives.size());
            trace_.collectives.push_back(std::move(event_.collective));
        }
        trace_.gpu.push_back(work);
    }

    void take_link() {
        const bool begins = event_.ph == "s";
        if (!begins && event_.ph != "f") return;
        BackwardLink& link = links_[event_.id];
        BackwardLink::Place& end = begins ? link.forward : link.backward;
        end.at = nanoseconds(event_.ts);
        end.thread = thread();
        if (link.forward.thread < 0 || link.backward.thread < 0) return;
        trace_.links.push_back(link);
        links_.erase(event_.id);
    }

    TorchTrace trace_;
    std::vector<Level> path_;
    Event event_;
    std::unordered_map<std::string, std::uint32_t> names_;
    std::map<std::pair<std::string, std::string>, std::int32_t> threads_;
    std::unordered_map<std::int64_t, BackwardLink> links_;  // half of them seen
    bool has_events_ = false;
    std::int64_t num_events_ = 0;
};

}  // namespace

TorchTrace read_torch_trace(const std::filesystem::path& path) {
    const std::unique_ptr<std::istream> stream = open_maybe_gzip(path, kTraceAccepted);
    Handler handler(path.string());
    nlohmann::json::sax_parse(*stream, &handler);
    return handler.take();
}

}  // namespace headway::inline trace
