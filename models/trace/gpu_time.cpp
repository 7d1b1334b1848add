#include "models/trace/gpu_time.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string_view>

#include "models/trace/collective_join.hpp"
#include "models/trace/name_rules.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline trace {
namespace {

struct Stretch {
    Nanoseconds begin = 0, end = 0;
};

// Stretches that do not touch, in order, that cover the same.
std::vector<Stretch> united(std::vector<Stretch> stretches) {
    std::ranges::sort(stretches, {}, &Stretch::begin);
    std::vector<Stretch> result;
    for (const Stretch& s : stretches) {
        if (!result.empty() && s.begin <= result.back().end)
            result.back().end = std::max(result.back().end, s.end);
        else
            result.push_back(s);
    }
    return result;
}

Nanoseconds length(const std::vector<Stretch>& stretches) {
    Nanoseconds sum = 0;
    for (const Stretch& s : stretches) sum += s.end - s.begin;
    return sum;
}

// How much of a stretch the others cover.
Nanoseconds covered(Stretch s, const std::vector<Stretch>& by) {
    Nanoseconds sum = 0;
    auto it = std::ranges::lower_bound(by, s.begin, {}, &Stretch::end);
    for (; it != by.end() && it->begin < s.end; ++it)
        sum += std::max(Nanoseconds{0}, std::min(s.end, it->end) - std::max(s.begin, it->begin));
    return sum;
}

struct Mark {
    int number = 0;
    Nanoseconds begin = 0, end = 0;
};

std::vector<Mark> marks_of(const TorchTrace& trace) {
    std::vector<Mark> marks;
    for (const HostSpan& span : trace.host) {
        const std::string& name = trace.names[span.name];
        if (!span.is_annotation || !is_step_annotation(name)) continue;
        Mark mark{.begin = span.begin, .end = span.end};
        std::from_chars(name.data() + kStepAnnotation.size(), name.data() + name.size(),
                        mark.number);
        marks.push_back(mark);
    }
    if (marks.empty()) {
        throw InputError({.where = trace.file,
                          .found = "no ProfilerStep range",
                          .accepted = "a trace with the profiler's steps in it",
                          .hint = "torch.profiler.profile(schedule=...) and prof.step() behind "
                                  "every step"});
    }
    std::ranges::sort(marks, {}, &Mark::begin);
    return marks;
}

class StepReader {
  public:
    StepReader(const TorchTrace& trace, const HostTree& host, const std::vector<Joined>& joined)
        : trace_(trace), host_(host), joined_(joined), marks_(marks_of(trace)) {
        for (const std::string& name : trace.names)
            communicates_.push_back(is_communication_kernel(name));
    }

    std::vector<GpuStep> run() {
        const std::vector<std::vector<std::size_t>> work = work_of_marks();
        std::vector<GpuStep> steps;
        for (std::size_t m = 0; m < marks_.size(); ++m) {
            if (work[m].empty()) continue;
            GpuStep step{.number = marks_[m].number};
            step.begin = trace_.gpu[work[m].front()].begin;
            for (const std::size_t i : work[m]) step.end = std::max(step.end, trace_.gpu[i].end());
            if (!steps.empty()) steps.back().end = step.begin;
            fill(step, work[m]);
            steps.push_back(std::move(step));
        }
        if (steps.empty()) {
            throw InputError({.where = trace_.file,
                              .found = "no kernel that was launched in a ProfilerStep range",
                              .accepted = "a trace with ProfilerActivity.CPU and .CUDA"});
        }
        return steps;
    }

  private:
    // What was launched in each, by begin on the GPU. What was launched before the first is of
    // none.
    std::vector<std::vector<std::size_t>> work_of_marks() const {
        std::vector<std::vector<std::size_t>> work(marks_.size());
        for (std::size_t i = 0; i < trace_.gpu.size(); ++i) {
            const auto* const origin = host_.origin(trace_.gpu[i]);
            if (origin == nullptr) continue;
            const auto next = std::ranges::upper_bound(marks_, origin->launched, {}, &Mark::begin);
            if (next == marks_.begin()) continue;
            const auto m = static_cast<std::size_t>(next - marks_.begin()) - 1;
            if (origin->launched <= marks_[m].end) work[m].push_back(i);
        }
        for (auto& of_mark : work)
            std::ranges::sort(of_mark, {}, [&](std::size_t i) { return trace_.gpu[i].begin; });
        return work;
    }

    bool communicates(const GpuWork& work) const { return communicates_[work.name]; }

    void fill(GpuStep& step, const std::vector<std::size_t>& work) const {
        std::vector<Stretch> all, computing, communicating;
        for (const std::size_t i : work) {
            const GpuWork& w = trace_.gpu[i];
            all.push_back({w.begin, w.end()});
            (communicates(w) ? communicating : computing).push_back(all.back());
        }
        computing = united(std::move(computing));
        communicating = united(std::move(communicating));
        step.busy = length(united(std::move(all)));
        for (const Stretch& s : communicating) step.hidden += covered(s, computing);
        step.exposed = length(communicating) - step.hidden;
        for (const std::size_t i : work) add(step, trace_.gpu[i], joined_[i], computing);
    }

    void add(GpuStep& step, const GpuWork& w, const Joined& joined,
             const std::vector<Stretch>& computing) const {
        if (!joined.is_joined()) {
            auto& [time, number] = step.lost[trace_.names[w.name]];
            time += w.duration;
            ++number;
            return;
        }
        GpuPhase& phase = step.phases[{joined.pass, joined.phase}];
        if (phase.kernels++ == 0) phase.begin = w.begin - step.begin;
        phase.by_how[static_cast<std::size_t>(joined.how)] += w.duration;
        if (!communicates(w)) {
            phase.compute += w.duration;
            return;
        }
        phase.communication += w.duration;
        phase.exposed += w.duration - covered({w.begin, w.end()}, computing);
        if (w.collective < 0) return;
        const NcclCall& call = trace_.collectives[static_cast<std::size_t>(w.collective)];
        phase.sent += sent_bytes(call, kind_of(call, trace_.names[w.name]));
        phase.calls.push_back({call.ranks, w.duration});
    }

    const TorchTrace& trace_;
    const HostTree& host_;
    const std::vector<Joined>& joined_;
    std::vector<Mark> marks_;
    std::vector<bool> communicates_;
};

}  // namespace

Nanoseconds GpuStep::lost_time() const {
    Nanoseconds sum = 0;
    for (const auto& [name, time] : lost) sum += time.first;
    return sum;
}

std::vector<GpuStep> gpu_steps(const TorchTrace& trace, const HostTree& host,
                               const std::vector<Joined>& joined) {
    return StepReader(trace, host, joined).run();
}

}  // namespace headway::inline trace
