#include "models/cost/role_writer.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <variant>

namespace headway::inline cost {
namespace {

double share_of(double weights, GradientPart part) {
    if (part == GradientPart::all) return 1.0;
    return part == GradientPart::weight ? weights : 1.0 - weights;
}

// The part of a task that computes these gradients; nothing of it: no task.
std::optional<TaskWork> part_of(const TaskWork& work, double share) {
    if (share <= 0.0) return std::nullopt;
    if (share >= 1.0) return work;
    return scaled(std::get<ComputeTask>(work), share);
}

}  // namespace

RoleWriter::RoleWriter(TaskPricer& pricer, PricedLayers& layers, Program& program)
    : pricer_(pricer), layers_(layers), program_(program) {
    last_.fill(-1);
    beside_.fill(-1);
}

void RoleWriter::receive(const std::vector<int>& messages) {
    for (std::size_t s = 0; s < receives_.size(); ++s) {
        const auto stream = static_cast<Stream>(s);
        if (stream == Stream::gradient || is_of_host(stream)) continue;  // behind compute
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

void RoleWriter::launch(const PricedSlot& slot, double share) {
    program_.tasks.back().launch = share * slot.launch;
    program_.tasks.back().host_waits = slot.host_waits;
}

void RoleWriter::block(const Block& block, GradientPart part) {
    micro_batch_ = block.micro_batch;
    const bool forward = block.pass == Pass::forward;
    if (block.kind != BlockKind::layer) {
        int& brought = block.kind == BlockKind::before ? table_ : head_;
        return write_pass(layers_.outer(block.kind).of(block.pass), -1, block.pass, part,
                          forward ? std::exchange(brought, -1) : -1);
    }
    write_pass(layers_.at(block.layer, micro_batch_).of(block.pass), block.layer, block.pass, part,
               forward ? take_gathered(block.layer) : -1);
    if (block.pass == Pass::backward && part != GradientPart::input)
        layers_.forget(block.layer, micro_batch_);
}

void RoleWriter::write_pass(const std::vector<PricedSlot>& slots, int layer, Pass pass,
                            GradientPart part, int needs) {
    const std::array before = last_;
    const std::array beside_before = beside_;
    const std::vector<int> received = receives_[static_cast<std::size_t>(Stream::compute)];
    std::vector<int> task_of_slot;  // or of the one before it that has a task
    int previous = -1;
    for (const PricedSlot& priced : slots) {
        const Slot& slot = priced.slot;
        std::vector<int> after = {
            slot.after >= 0 ? task_of_slot[static_cast<std::size_t>(slot.after)]
                            : before[static_cast<std::size_t>(stream_before(slot.after))]};
        const bool beside = is_beside_passes(slot.stream);
        if (slot.stream != Stream::gradient && slot.after < 0) {
            after.insert(after.end(), beside_before.begin(), beside_before.end());
            after.push_back(needs);
        }
        if (is_of_host(slot.stream)) receives_[static_cast<std::size_t>(slot.stream)] = received;
        const double share = share_of(priced.weights, part);
        if (auto work = part_of(priced.work, share)) {
            previous = add(priced.phase, pass, layer, slot.stream, std::move(after),
                           std::move(*work), slot.chunk);
            launch(priced, share);
            if (beside) run_beside(slot.stream, previous);
        }
        task_of_slot.push_back(previous);
    }
}

// What ranks exchange around a part of compute is on its stream, as it is priced.
int RoleWriter::write_piece(const std::vector<PricedSlot>& slots, const PairPiece& piece,
                            Stream stream, int previous) {
    const int start = previous,
              needs = piece.pass == Pass::forward ? take_gathered(piece.layer) : -1;
    std::map<int, int> task_of_slot;
    for (int i = 0; i < static_cast<int>(slots.size()); ++i) {
        const PricedSlot& priced = slots[static_cast<std::size_t>(i)];
        const bool all = piece.kind != BlockKind::layer;
        if (!all && (priced.slot.phase < piece.begin || priced.slot.phase >= piece.end)) continue;
        const double share = share_of(priced.weights, piece.part);
        auto work = part_of(priced.work, share);
        if (!work) continue;
        const auto after = task_of_slot.find(priced.slot.after);
        const bool begins = after == task_of_slot.end();
        const bool beside = is_beside_passes(priced.slot.stream);
        const int task =
            add(priced.phase, piece.pass, piece.layer, beside ? priced.slot.stream : stream,
                {begins ? start : after->second, begins ? needs : -1}, std::move(*work),
                priced.slot.chunk);
        launch(priced, share);
        task_of_slot[i] = task;
        if (beside)
            run_beside(priced.slot.stream, task);
        else
            previous = task;
    }
    return previous;
}

void RoleWriter::pair(const std::vector<PairTask>& tasks, int forward, int backward) {
    const int before = last_of(Stream::compute);
    std::vector<int> ends;  // the last task of each
    for (const PairTask& task : tasks) {
        int previous = task.after >= 0 ? ends[static_cast<std::size_t>(task.after)] : before;
        for (const PairPiece& piece : task.pieces) {
            micro_batch_ = piece.pass == Pass::forward ? forward : backward;
            const PricedLayer& layer = piece.kind == BlockKind::layer
                                           ? layers_.at(piece.layer, micro_batch_)
                                           : layers_.outer(piece.kind);
            previous = write_piece(layer.of(piece.pass), piece, task.stream, previous);
        }
        ends.push_back(previous);
    }
    for (const PairTask& task : tasks)
        for (const PairPiece& piece : task.pieces)
            if (piece.pass == Pass::backward && piece.kind == BlockKind::layer)
                layers_.forget(piece.layer, backward);
}

void RoleWriter::reduce(const std::vector<PhaseWork>& phases, int layer, int bucket) {
    for (const PhaseWork& phase : phases) {
        const auto* reduce = std::get_if<ReduceWork>(&phase.work);
        if (reduce == nullptr || !leaves_early(phase)) continue;
        const auto leave = [&](double share) {
            if (share <= 0.0) return;
            add(phase.phase, Pass::update, layer, Stream::gradient, {last_of(Stream::compute)},
                pricer_.reduce_task(*reduce, share));
            program_.tasks.back().launch = pricer_.launch_time(phase);
        };
        if (reduce->buckets.empty())
            leave(1.0);
        else if (bucket < static_cast<int>(reduce->buckets.size()))
            leave(reduce->buckets[static_cast<std::size_t>(bucket)]);
    }
}

void RoleWriter::gather(const std::vector<PhaseWork>& phases, const PipelineStage& stage) {
    const auto bring = [&](NeededBy by, int layer, std::size_t bucket, int& last) {
        for (const PhaseWork& phase : phases) {
            const auto* work = std::get_if<ReduceWork>(&phase.work);
            if (!comes_ahead(phase) || work->needed_by != by) continue;
            last = add(
                phase.phase, Pass::update, layer, Stream::gradient, {},
                pricer_.reduce_task(*work, work->buckets.empty() ? 1.0 : work->buckets[bucket]));
        }
    };
    bring(NeededBy::table, -1, 0, table_);
    for (int layer = stage.first_layer; layer < stage.first_layer + stage.num_layers; ++layer) {
        int last = -1;
        bring(NeededBy::layers, layer, static_cast<std::size_t>(layer - stage.first_layer), last);
        if (last >= 0) gathered_[layer] = last;
    }
    bring(NeededBy::head, -1, 0, head_);
}

int RoleWriter::take_gathered(int layer) {
    const auto found = gathered_.find(layer);
    if (found == gathered_.end()) return -1;
    const int task = found->second;
    gathered_.erase(found);
    return task;
}

void RoleWriter::update(std::span<const PhaseWork> phases) {
    const PhaseRange host = host_update(phases);
    const auto begin = static_cast<std::size_t>(host.begin),
               end = static_cast<std::size_t>(host.end);
    for (const PhaseWork& phase : phases.first(begin)) update_phase(phase);
    if (begin < end) update_on_host(phases.subspan(begin, end - begin));
    for (const PhaseWork& phase : phases.subspan(end)) update_phase(phase);
}

void RoleWriter::update_on_host(std::span<const PhaseWork> phases) {
    const std::vector<int> before = all_before();
    // The copies down wait for the other ranks too.
    receives_[static_cast<std::size_t>(Stream::offload)] =
        receives_[static_cast<std::size_t>(Stream::compute)];
    std::vector<int> task_of_slot;
    for (const Slot& slot : host_update_slots(phases)) {
        std::vector<int> after = before;
        if (slot.after >= 0) after = {task_of_slot[static_cast<std::size_t>(slot.after)]};
        if (slot.also_after)
            after.push_back(task_of_slot[static_cast<std::size_t>(*slot.also_after)]);
        const PhaseWork& phase = phases[static_cast<std::size_t>(slot.phase)];
        const TaskWork work = std::holds_alternative<HostWork>(phase.work)
                                  ? TaskWork(pricer_.host_task({&phase}, slot.fraction()))
                                  : TaskWork(pricer_.compute_task({&phase}, 1.0));
        task_of_slot.push_back(
            add(phase.phase, Pass::update, -1, slot.stream, std::move(after), work, slot.chunk));
    }
}

void RoleWriter::update_phase(const PhaseWork& phase) {
    const std::vector<int> after = all_before();
    if (const auto* reduce = std::get_if<ReduceWork>(&phase.work)) {
        if (leaves_early(phase) || comes_ahead(phase)) return;
        add(phase.phase, Pass::update, -1, Stream::gradient, after,
            pricer_.reduce_task(*reduce, 1.0));
    } else {
        add(phase.phase, Pass::update, -1, Stream::compute, after,
            pricer_.compute_task({&phase}, 1.0));
    }
}

void RoleWriter::send(const SendTask& send, Phase phase, Pass pass) {
    std::vector<int> after = {last_of(Stream::compute), last_of(Stream::communication)};
    if (pass == Pass::update) after = all_before();
    add(phase, pass, -1, pass == Pass::forward ? Stream::send_forward : Stream::send_backward,
        std::move(after), send);
}

}  // namespace headway::inline cost
