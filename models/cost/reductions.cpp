#include "models/cost/reductions.hpp"

#include <algorithm>
#include <utility>
#include <variant>

#include "models/workload/schedule.hpp"

namespace headway::inline cost {

void show(PhaseTime& reduction, Seconds exposed) {
    reduction.hidden += max(Seconds{}, reduction.time - exposed);
    reduction.time = exposed;
}

void StepPart::add(TimedTask task, int owner) {
    last_[static_cast<std::size_t>(task.stream)] = static_cast<int>(tasks_.size());
    tasks_.push_back(task);
    owners_.push_back(owner);
}

void StepPart::compute(Seconds time) {
    add({Stream::compute, time, last_of(Stream::communication)});
}

void StepPart::wait(Seconds time) {
    add({Stream::communication, time, last_of(Stream::compute)});
}

void StepPart::reduce(Seconds time, std::size_t owner) {
    add({Stream::gradient, time, last_of(Stream::compute)}, static_cast<int>(owner));
}

// Begins when what ran beside the pass before it has ended.
void StepPart::pass(const PassTime& pass) {
    if (tasks_.empty()) lead_ = pass.lead;
    if (const int copy = std::exchange(copy_, -1); copy >= 0)
        add({.stream = Stream::compute, .after = last_of(Stream::compute), .also_after = copy});
    const std::array<int, kNumStreams> before = last_;
    const int first = static_cast<int>(tasks_.size()), beside_before = beside_;
    for (TimedTask t : pass.tasks) {
        const bool begins = t.after < 0;
        t.after =
            begins ? before[static_cast<std::size_t>(stream_before(t.after))] : first + t.after;
        if (t.stream == Stream::gradient)
            beside_ = static_cast<int>(tasks_.size());
        else if (is_of_host(t.stream))
            copy_ = static_cast<int>(tasks_.size());
        else if (begins)
            t.also_after = beside_before;
        add(t);
    }
}

void StepPart::backward(const Workload& workload, const StepTime& step, const PipelineStage& stage,
                        std::span<const PhaseTime> reductions, std::size_t first_owner) {
    // Those whose gradients are whole now.
    const auto leave = [&](int bucket) {
        const int ready = last_of(Stream::compute);
        for (std::size_t k = 0; k < reductions.size(); ++k) {
            const std::vector<Seconds>& buckets = reductions[k].buckets;
            if (bucket >= static_cast<int>(buckets.size())) continue;
            add({.stream = Stream::gradient,
                 .time = buckets[static_cast<std::size_t>(bucket)],
                 .after = ready,
                 .launch = reductions[k].launch,
                 .links = reductions[k].links},
                static_cast<int>(first_owner + k));
        }
    };
    for (const Block& block : step_blocks(static_cast<int>(workload.entry_of_layer.size()), 1)) {
        if (block.pass == Pass::forward) continue;
        const bool own =
            block.layer >= stage.first_layer && block.layer < stage.first_layer + stage.num_layers;
        if (block.kind == BlockKind::layer && own) {
            const int entry = workload.entry_of_layer[static_cast<std::size_t>(block.layer)];
            pass(step.layers[static_cast<std::size_t>(entry)].backward);
        } else if (block.kind == BlockKind::bucket && own) {
            leave(block.layer - stage.first_layer);
        } else if (block.kind == BlockKind::before && stage.embedding) {
            pass(step.before.backward);
        }
    }
    leave(stage.num_layers);
}

void StepPart::gather(const PipelineStage& stage, std::span<const PhaseTime> gathers,
                      std::size_t first_owner) {
    const auto bring = [&](NeededBy by, std::size_t bucket) {
        int last = -1;
        for (std::size_t k = 0; k < gathers.size(); ++k) {
            if (std::get<ReduceWork>(gathers[k].work->work).needed_by != by) continue;
            const std::vector<Seconds>& buckets = gathers[k].buckets;
            add({.stream = Stream::gradient,
                 .time = buckets.empty() ? gathers[k].time : buckets[bucket],
                 .links = gathers[k].links},
                static_cast<int>(first_owner + k));
            last = last_of(Stream::gradient);
        }
        return last;
    };
    table_ = std::max(table_, bring(NeededBy::table, 0));
    for (int i = 0; i < stage.num_layers; ++i)
        gathered_[stage.first_layer + i] = bring(NeededBy::layers, static_cast<std::size_t>(i));
    head_ = std::max(head_, bring(NeededBy::head, 0));
}

void StepPart::first_forward(const Workload& workload, const StepTime& step,
                             const PipelineStage& stage) {
    for (const Block& block : stage_blocks(stage, Pass::forward, 0)) {
        const bool before = block.kind == BlockKind::before;
        if (block.kind == BlockKind::layer) {
            beside_ = gathered_.at(block.layer);
            const int entry = workload.entry_of_layer[static_cast<std::size_t>(block.layer)];
            pass(step.layers[static_cast<std::size_t>(entry)].forward);
        } else {
            beside_ = before ? table_ : head_;
            pass((before ? step.before : step.after).forward);
        }
    }
}

void StepPart::first_forward(Seconds time, const PipelineStage& stage) {
    const int layers =
        stage.num_layers > 0 ? gathered_.at(stage.first_layer + stage.num_layers - 1) : table_;
    add({Stream::compute, time, last_of(Stream::communication),
         stage.head_and_loss ? std::max(head_, layers) : layers});
}

std::vector<Seconds> StepPart::exposed(std::size_t num_owners, const Overlap& overlap) {
    const StreamsRun with = run_streams(tasks_, overlap, lead_);
    std::vector<Seconds> shown(num_owners);
    for (std::size_t i = 0; i < tasks_.size(); ++i) {
        if (owners_[i] < 0) continue;
        shown[static_cast<std::size_t>(owners_[i])] += with.exposed[i];
        tasks_[i].time = {};
    }
    Seconds all;
    for (const Seconds s : shown) all += s;
    const Seconds added = max(Seconds{}, with.end - run_streams(tasks_, overlap, lead_).end);
    for (Seconds& s : shown) s = all > Seconds{} ? (s / all) * added : Seconds{};
    return shown;
}

}  // namespace headway::inline cost
