#include "models/recorded/import_recording.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "models/recorded/host_events.hpp"
#include "models/recorded/nccl_calls.hpp"
#include "models/recorded/replay.hpp"
#include "models/recorded/step_times.hpp"
#include "models/recorded/task_writer.hpp"
#include "models/trace/name_rules.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline recorded {
namespace {

constexpr double kLeastScale = 0.05;

class Importer {
  public:
    Importer(const TorchTrace& trace, const CallTable* table, const ImportRecordingOptions& options)
        : trace_(trace), table_(table), options_(options) {}

    Recording run() {
        check_table();
        std::vector<HostStep> steps = host_steps(trace_);
        const MergedStep step = merged_step(trace_, steps, options_.step, table_ != nullptr);
        const TraceLatencies latency = latencies(trace_, steps);
        labels_ = labels_of(trace_, *step.step);
        stream_ = compute_stream(trace_, *step.step);
        check_calls(*step.step);
        check_number_of_calls(steps);
        fit_scale(step, latency);
        Recording recording = write(step, latency, scale_, Markers::calls);
        recording.host_scale = scale_;
        describe(recording, step, latency);
        tie_rows(recording);
        find_router(recording);
        return recording;
    }

  private:
    void check_table() const {
        if (table_ == nullptr) return;
        const auto differs = [&](const std::string& what, const std::string& found,
                                 const std::string& of) {
            throw InputError(
                {.where = table_->file,
                 .found = fmt::format("{} {}; {} is of {}", what, found, trace_.file, of),
                 .accepted = "the table that was written with the trace"});
        };
        if (!trace_.device.empty() && trace_.device != table_->device)
            differs("device", table_->device, trace_.device);
        if (trace_.rank >= 0 && trace_.rank != table_->rank)
            differs("rank", std::to_string(table_->rank), std::to_string(trace_.rank));
        if (trace_.world_size > 0 && trace_.world_size != table_->world_size)
            differs("ranks", std::to_string(table_->world_size), std::to_string(trace_.world_size));
    }

    // Calls that neither the recorder nor NCCL's kernels show.
    void check_calls(const HostStep& step) const {
        for (const HostEvent& event : step.events) {
            if (event.kind != HostEventKind::call_begin && event.kind != HostEventKind::call_wait)
                continue;
            if (table_ == nullptr)
                refuse("calls that headway_recorder.py has marked",
                       "give its table: --comm S.json");
            if (event.call < 0 || static_cast<std::size_t>(event.call) >= table_->calls.size())
                refuse(fmt::format("call {}; the table has {}", event.call, table_->calls.size()),
                       "is the table of another trace?");
        }
        std::vector<std::pair<Nanoseconds, Nanoseconds>> marked;
        for (const HostEvent& event : step.events)
            if (event.kind == HostEventKind::call_begin) marked.emplace_back(event.at, event.end);
        for (const HostSpan& span : trace_.host) {
            if (span.is_annotation || span.begin < step.begin || span.begin >= step.end) continue;
            const std::string& name = trace_.names[span.name];
            const bool collective =
                name.starts_with("c10d::") || name.starts_with("_c10d_functional::");
            if (!collective || name.find("wait_tensor") != name.npos ||
                name.find("monitored_barrier") != name.npos)
                continue;
            const bool seen = std::ranges::any_of(marked, [&](const auto& call) {
                return call.first <= span.begin && span.end <= call.second;
            });
            const bool sent = table_ == nullptr || !table_->fake;  // NCCL's kernel shows it
            if (!seen && !sent)
                refuse(fmt::format("{} that the recorder has not wrapped", name),
                       "functional collectives and DTensor's are not recorded yet; those of "
                       "torch.distributed are");
        }
    }

    void check_number_of_calls(const std::vector<HostStep>& steps) const {
        if (table_ == nullptr) return;
        std::size_t marked = 0;
        for (const HostStep& step : steps)
            for (const HostEvent& event : step.events)
                marked += event.kind == HostEventKind::call_begin ? 1 : 0;
        if (marked != table_->calls.size())
            refuse(fmt::format("{} marked calls; {} has {}", marked, table_->file,
                               table_->calls.size()),
                   "is the table of another trace?");
    }

    [[noreturn]] void refuse(std::string found, std::string hint) const {
        throw InputError({.where = trace_.file,
                          .found = std::move(found),
                          .accepted = "a trace in which every collective is known",
                          .hint = std::move(hint)});
    }

    Recording write(const MergedStep& step, const TraceLatencies& latency, double scale,
                    Markers markers) const {
        return TaskWriter({trace_, table_, step, labels_, latency, stream_}, scale, markers).run();
    }

    // Least scale at which what `time` says of the traced kernels is at least `wanted`.
    template <class Time>
    double scale_of(const MergedStep& step, const TraceLatencies& latency, Seconds wanted,
                    const Time& time) const {
        double low = kLeastScale, high = 1.5;
        for (int i = 0; i < 40; ++i) {
            const double middle = 0.5 * (low + high);
            (time(write(step, latency, middle, Markers::kernels)) < wanted ? low : high) = middle;
        }
        return 0.5 * (low + high);
    }

    // Times of the host under the profiler are about twice those without. Where the step waits for
    // its host, the step's time without the profiler tells how much; else the host's own time in
    // steps that begin with an idle device.
    void fit_scale(const MergedStep& step, const TraceLatencies& latency) {
        if (table_ == nullptr) return;
        const auto replayed = [&](double scale) {
            return step_alone(write(step, latency, scale, Markers::kernels));
        };
        scale_ = scale_of(step, latency, table_->enqueue_ms * ms, host_time_alone);
        host_bound_ = replayed(scale_) > 1.03 * replayed(kLeastScale);
        if (host_bound_) scale_ = scale_of(step, latency, table_->step_ms * ms, step_alone);
        if (scale_ > kLeastScale * 1.01 && scale_ < 1.49) return;
        throw InputError(
            {.where = table_->file,
             .found = fmt::format("a step of {:.3f} ms, enqueued in {:.3f} ms, to which no "
                                  "scale of the trace's host times comes",
                                  table_->step_ms, table_->enqueue_ms),
             .accepted = "the table that was written with the trace"});
    }

    void describe(Recording& r, const MergedStep& step, const TraceLatencies& latency) const {
        r.name = trace_.file;
        if (const std::size_t slash = r.name.find_last_of('/'); slash != r.name.npos)
            r.name.erase(0, slash + 1);
        r.device = trace_.device;
        r.rank = std::max(0, table_ != nullptr ? table_->rank : trace_.rank);
        r.world_size = std::max(1, table_ != nullptr ? table_->world_size : trace_.world_size);
        r.fake = table_ != nullptr && table_->fake;
        r.inferred.insert(r.inferred.begin(), step.chosen);
        r.inferred.push_back(
            fmt::format("{:.2f} us between kernels of a stream, {:.1f} us from a launch to its "
                        "kernel, {:.1f} us "
                        "from the end of a wait to the host: medians of the trace",
                        latency.between / 1e3, latency.launch / 1e3, latency.wake / 1e3));
        if (table_ == nullptr) {
            r.inferred.emplace_back(
                "host times are those under the profiler, which doubles them: host_scale is 1; "
                "headway_recorder.py measures what it should be");
            return;
        }
        r.measured_step = table_->step_ms * ms;
        r.measured_enqueue = table_->enqueue_ms * ms;
        r.peak_memory = table_->peak_bytes * byte;
        r.replayed_step = step_alone(write(step, latency, r.host_scale, Markers::kernels));
        r.inferred.push_back(fmt::format(
            "host times are {:.3f} of the profiled ones: so that {}, as without the profiler",
            r.host_scale,
            host_bound_ ? fmt::format("the step, which waits for its host, takes {:.3f} ms",
                                      table_->step_ms)
                        : fmt::format("a step that begins idle is enqueued in {:.3f} ms",
                                      table_->enqueue_ms)));
        if (table_->fake) {
            std::vector<std::string> texts;
            for (const auto& [kind, us] : table_->nccl_host_us)
                texts.push_back(fmt::format("{} {:.1f}", kind, us));
            r.inferred.push_back(fmt::format("host us of a call, of a group of one rank: {}",
                                             fmt::join(texts, ", ")));
        }
    }

    static bool uneven(const std::vector<double>& splits) {
        return std::ranges::adjacent_find(splits, std::not_equal_to<>()) != splits.end();
    }

    // An exchange with uneven splits, and the next one of its group that sends back what came.
    static void tie_rows(Recording& recording) {
        std::vector<RecordedTask>& tasks = recording.tasks;
        int pairs = 0;
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            const RecordedTask& out = tasks[i];
            const bool routed = out.kind == RecordedKind::collective &&
                                out.collective == Collective::all_to_all &&
                                (uneven(out.send) || uneven(out.receive)) && !out.returns;
            if (!routed) continue;
            for (std::size_t j = i + 1; j < tasks.size(); ++j) {
                RecordedTask& back = tasks[j];
                if (back.kind != RecordedKind::collective || back.group != out.group ||
                    back.returns || back.send != out.receive || back.receive != out.send)
                    continue;
                back.returns = static_cast<int>(i);
                for (std::size_t k = i + 1; k < j; ++k)
                    if (tasks[k].kind == RecordedKind::compute && tasks[k].kernels > 0)
                        tasks[k].rows_of = static_cast<int>(i);
                ++pairs;
                break;
            }
        }
        if (pairs > 0)
            recording.inferred.push_back(
                fmt::format("{} pairs of exchanges with uneven splits are a router's: what runs "
                            "between the two "
                            "grows with the rows that came, but for {} us a kernel",
                            pairs, kFixedOfKernel.in(us)));
    }

    void find_router(Recording& recording) const {
        const bool routed = std::ranges::any_of(
            recording.tasks, [](const RecordedTask& t) { return t.returns.has_value(); });
        if (!routed) return;
        RecordedRouter router{.experts = table_ != nullptr ? table_->experts : 0,
                              .top_k = options_.top_k.value_or(0)};
        if (router.experts == 0) router.experts = entries_of_counts();
        if (router.experts > 0)
            recording.inferred.push_back(fmt::format(
                "{} experts: entries of the counts that ranks exchange", router.experts));
        recording.router = router;
    }

    // The most frequent number of integers that ranks exchange; 0: none.
    int entries_of_counts() const {
        std::map<std::int64_t, int> times;
        const auto count = [&](const std::string& dtype, std::int64_t elements) {
            const bool whole =
                dtype == "int64" || dtype == "int32" || dtype == "Long" || dtype == "Int";
            if (whole && elements > 1 && elements <= 1 << 20) ++times[elements];
        };
        if (table_ != nullptr)
            for (const RecordedCall& call : table_->calls) count(call.dtype, call.elements);
        else
            for (const NcclCall& call : trace_.collectives) count(call.dtype, call.in);
        const auto most =
            std::ranges::max_element(times, {}, &std::pair<const std::int64_t, int>::second);
        return most == times.end() ? 0 : static_cast<int>(most->first);
    }

    const TorchTrace& trace_;
    const CallTable* table_;
    const ImportRecordingOptions& options_;
    std::vector<std::string> labels_;  // [event]
    int stream_ = 0;                   // of the kernels
    double scale_ = 1.0;
    bool host_bound_ = false;  // the step waits for its host
};

}  // namespace

Recording import_recording(const TorchTrace& trace, const CallTable* table,
                           const ImportRecordingOptions& options) {
    return Importer(trace, table, options).run();
}

}  // namespace headway::inline recorded
