#include "sim/recorder.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace headway::sim {

Recorder::Recorder(const Program& program, bool keep_spans, bool room)
    : program_(program), keep_spans_(keep_spans) {
    if (keep_spans && room)
        spans_.reserve(program.tasks.size() * static_cast<std::size_t>(program.ranks_of_role()));
}

Bytes Recorder::bytes_of(const SpanRecord& span) const {
    const Task& task = program_.tasks[static_cast<std::size_t>(span.task)];
    if (const auto* compute = std::get_if<ComputeTask>(&task.work)) return compute->bytes;
    if (const auto* host = std::get_if<HostTask>(&task.work)) return host->bytes;
    return span.bytes * byte;
}

void Recorder::add(const SpanRecord& span) {
    const Task& task = program_.tasks[static_cast<std::size_t>(span.task)];
    Sums& sums = sums_[static_cast<std::size_t>(task.pass)][static_cast<std::size_t>(task.phase)];
    const auto ranks = static_cast<std::size_t>(program_.num_ranks);
    if (sums.time.empty()) {
        sums.count.assign(ranks, 0);
        sums.time.assign(ranks, 0);
        sums.bytes.assign(ranks, 0.0);
    }
    const auto r = static_cast<std::size_t>(span.rank);
    sums.time[r] += span.end - span.begin;
    sums.bytes[r] += bytes_of(span).in(byte);
    ++sums.count[r];
    if (keep_spans_) spans_.push_back(span);
    if (in_section_) section_.push_back(span);
}

void Recorder::begin_section() {
    section_.clear();
    in_section_ = true;
}

std::vector<SpanRecord> Recorder::take_section() {
    in_section_ = false;
    return std::exchange(section_, {});
}

std::vector<PhaseUse> Recorder::phases() const {
    std::vector<PhaseUse> result;
    for (std::size_t pass = 0; pass < sums_.size(); ++pass) {
        for (std::size_t phase = 0; phase < sums_[pass].size(); ++phase) {
            const Sums& sums = sums_[pass][phase];
            if (sums.time.empty()) continue;
            PhaseUse use{.phase = static_cast<Phase>(phase),
                         .pass = static_cast<Pass>(pass),
                         .count = std::ranges::max(sums.count)};
            for (const Picoseconds t : sums.time) use.time.push_back(static_cast<double>(t) * ps);
            for (const double b : sums.bytes) use.bytes.push_back(b * byte);
            result.push_back(std::move(use));
        }
    }
    return result;
}

std::vector<Span> Recorder::take_spans() {
    std::vector<Span> result;
    result.reserve(spans_.size());
    for (const SpanRecord& r : std::exchange(spans_, {})) {
        const Task& task = program_.tasks[static_cast<std::size_t>(r.task)];
        Span span{.rank = r.rank,
                  .layer = task.layer,
                  .micro_batch = task.micro_batch,
                  .pass = task.pass,
                  .phase = task.phase,
                  .begin = static_cast<double>(r.begin) * ps,
                  .duration = static_cast<double>(r.end - r.begin) * ps,
                  .bytes = bytes_of(r)};
        span.low = span.high = span.duration;
        if (const auto* compute = std::get_if<ComputeTask>(&task.work)) span.flops = compute->flops;
        if (r.bottleneck != PathClass::self) span.bottleneck = name(r.bottleneck);
        result.push_back(std::move(span));
    }
    return result;
}

}  // namespace headway::sim
