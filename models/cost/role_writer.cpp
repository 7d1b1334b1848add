#include "models/cost/role_writer.hpp"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

namespace headway::inline cost {
namespace {

// The part of a task that computes these gradients; nothing of it: no task.
std::optional<TaskWork> part_of(const TaskWork& work, double weights, GradientPart part) {
    if (part == GradientPart::all) return work;
    const double share = part == GradientPart::weight ? weights : 1.0 - weights;
    if (share <= 0.0) return std::nullopt;
    if (share >= 1.0) return work;
    ComputeTask task = std::get<ComputeTask>(work);
    for (Seconds& time : task.per_rank) time *= share;
    task.flops *= share;
    task.bytes *= share;
    return task;
}

}  // namespace

RoleWriter::RoleWriter(const Workload& workload, TaskPricer& pricer, PricedLayers& layers,
                       Program& program)
    : workload_(workload), pricer_(pricer), layers_(layers), program_(program) {
    last_.fill(-1);
}

void RoleWriter::receive(const std::vector<int>& messages) {
    for (std::size_t s = 0; s < receives_.size(); ++s) {
        if (s == static_cast<std::size_t>(Stream::gradient)) continue;  // behind compute
        receives_[s].insert(receives_[s].end(), messages.begin(), messages.end());
    }
}

int RoleWriter::add(Phase phase, Pass pass, int layer, Stream stream, std::vector<int> after,
                    TaskWork work, int chunk) {
    const int index = static_cast<int>(program_.tasks.size());
    std::erase_if(after, [](int i) { return i < 0; });
    program_.tasks.push_back(
        {.phase = phase,
         .pass = pass,
         .layer = layer,
         .micro_batch = micro_batch_,
         .chunk = chunk,
         .stream = stream,
         .after = std::move(after),
         .receives = std::exchange(receives_[static_cast<std::size_t>(stream)], {}),
         .work = std::move(work)});
    return last_[static_cast<std::size_t>(stream)] = index;
}

void RoleWriter::block(const Block& block, GradientPart part) {
    micro_batch_ = block.micro_batch;
    if (block.kind != BlockKind::layer)
        return write(layers_.outer(block.kind).of(block.pass), block.pass, -1, part, last_);
    write(layers_.at(block.layer, micro_batch_).of(block.pass), block.pass, block.layer, part,
          last_);
    if (block.pass == Pass::backward && part != GradientPart::input)
        layers_.forget(block.layer, micro_batch_);
}

// A pass begins when what ran beside the one before it has ended.
void RoleWriter::write(const std::vector<PricedSlot>& slots, Pass pass, int layer,
                       GradientPart part, const LastTasks before) {
    const int beside_before = beside_;
    std::vector<int> task_of_slot;  // or of the one before it that has a task
    int previous = -1;
    for (const PricedSlot& priced : slots) {
        const Slot& slot = priced.slot;
        std::vector<int> after = {
            slot.after >= 0 ? task_of_slot[static_cast<std::size_t>(slot.after)]
                            : before[static_cast<std::size_t>(stream_before(slot.after))]};
        const bool beside = slot.stream == Stream::gradient;
        if (slot.after < 0 && !beside) after.push_back(beside_before);
        if (auto work = part_of(priced.work, priced.weights, part)) {
            previous = add(priced.phase, pass, layer, slot.stream, std::move(after),
                           std::move(*work), slot.chunk);
            if (beside) beside_ = previous;
        }
        task_of_slot.push_back(previous);
    }
}

void RoleWriter::pair(const std::vector<PairTask>& tasks, int forward, int backward) {
    const int before = last_of(Stream::compute);
    std::vector<int> ends;  // the last task of each
    for (const PairTask& task : tasks) {
        int previous = task.after >= 0 ? ends[static_cast<std::size_t>(task.after)] : before;
        for (const PairPiece& piece : task.pieces) {
            micro_batch_ = piece.pass == Pass::forward ? forward : backward;
            if (piece.kind != BlockKind::layer) {
                LastTasks first;
                first.fill(previous);
                write(layers_.outer(piece.kind).of(piece.pass), piece.pass, -1, piece.part, first);
                previous = last_of(Stream::compute);
                continue;
            }
            const std::vector<PricedSlot>& slots =
                layers_.at(piece.layer, micro_batch_).of(piece.pass);
            for (int i = piece.begin; i < piece.end; ++i) {
                const PricedSlot& priced = slots[static_cast<std::size_t>(i)];
                if (auto work = part_of(priced.work, priced.weights, piece.part))
                    previous = add(priced.phase, piece.pass, piece.layer, priced.slot.stream,
                                   {previous}, std::move(*work));
            }
        }
        ends.push_back(previous);
    }
    for (const PairTask& task : tasks)
        for (const PairPiece& piece : task.pieces)
            if (piece.pass == Pass::backward && piece.kind == BlockKind::layer)
                layers_.forget(piece.layer, backward);
}

void RoleWriter::reduce(const std::vector<PhaseWork>& phases, int layer) {
    for (const PhaseWork& phase : phases) {
        const auto* reduce = std::get_if<ReduceWork>(&phase.work);
        if (reduce == nullptr || !reduce->overlaps_backward) continue;
        for (int k = layer < 0 ? reduce->num_buckets : 1; k > 0; --k)
            add(phase.phase, Pass::update, layer, Stream::gradient, {last_of(Stream::compute)},
                pricer_.reduce_task(*reduce, 1.0 / reduce->num_buckets));
    }
}

void RoleWriter::update(const PhaseWork& phase) {
    const std::vector<int> after = {last_of(Stream::compute), last_of(Stream::communication),
                                    last_of(Stream::gradient)};
    if (const auto* reduce = std::get_if<ReduceWork>(&phase.work)) {
        if (reduce->overlaps_backward) return;
        add(phase.phase, Pass::update, -1, Stream::gradient, after,
            pricer_.reduce_task(*reduce, 1.0));
    } else {
        add(phase.phase, Pass::update, -1, Stream::compute, after,
            pricer_.compute_task({&phase}, 1.0));
    }
}

void RoleWriter::send(const SendTask& send, Phase phase, Pass pass) {
    std::vector<int> after = {last_of(Stream::compute), last_of(Stream::communication)};
    if (pass == Pass::update) after.push_back(last_of(Stream::gradient));
    add(phase, pass, -1, pass == Pass::forward ? Stream::send_forward : Stream::send_backward,
        std::move(after), send);
}

}  // namespace headway::inline cost
