// RoleWriter: appends the tasks of one role to a Program, stream by stream in the order in which it
// is told of them. Private to models/cost.
#pragma once

#include <array>
#include <map>
#include <span>
#include <vector>

#include "models/cost/priced_layers.hpp"
#include "models/workload/pair_order.hpp"

namespace headway::inline cost {

class RoleWriter {
  public:
    RoleWriter(TaskPricer& pricer, PricedLayers& layers, Program& program);

    // The next task of each stream waits for these messages.
    void receive(const std::vector<int>& messages);
    // A block of either pass; gradient parts are for backward.
    void block(const Block& block, GradientPart part = GradientPart::all);
    // The tasks of a forward and a backward as one, of these micro-batches.
    void pair(const std::vector<PairTask>& tasks, int forward, int backward);
    // Gradients that leave as soon as they are whole: this bucket of those that are cut into some,
    // and all of the others. `layer` is what a report says of it; -1: none.
    void reduce(const std::vector<PhaseWork>& phases, int layer, int bucket);
    // The parameters of these layers come from the begin of the step on, a bucket a layer; the
    // first forward of a layer, and of what stands before and behind them, waits for its own.
    void gather(const std::vector<PhaseWork>& phases, const PipelineStage& stage);
    // Phases of the update; reductions that left early are not among them.
    void update(std::span<const PhaseWork> phases);
    // When all before it has ended; in the update, reductions too.
    void send(const SendTask& send, Phase phase, Pass pass);

  private:
    void run_beside(Stream stream, int task) { beside_[static_cast<std::size_t>(stream)] = task; }
    void update_phase(const PhaseWork& phase);
    void update_on_host(std::span<const PhaseWork> phases);
    // The last task of each stream but those of messages.
    std::vector<int> all_before() const { return {last_.begin(), last_.begin() + kNumStreams}; }
    int last_of(Stream stream) const { return last_[static_cast<std::size_t>(stream)]; }
    int add(Phase phase, Pass pass, int layer, Stream stream, std::vector<int> after, TaskWork work,
            int chunk = 0);
    // What the host does for the last task, which is `share` of the slot.
    void launch(const PricedSlot& slot, double share);
    // A pass begins when what ran beside the one before it has ended.
    void write_pass(const std::vector<PricedSlot>& slots, int layer, Pass pass, GradientPart part,
                    int needs = -1);
    // The gather that a first forward of the layer waits for; -1: none, or not for the first time.
    int take_gathered(int layer);
    // Slots of phases [begin, end), one after the other from task `previous` on; the last one's
    // task.
    int write_piece(const std::vector<PricedSlot>& slots, const PairPiece& piece, Stream stream,
                    int previous);

    TaskPricer& pricer_;
    PricedLayers& layers_;
    Program& program_;
    int micro_batch_ = 0;
    // The last task of each stream that runs beside passes.
    std::array<int, kNumStreams> beside_;
    std::map<int, int> gathered_;                 // by layer: the last task that brings it
    int table_ = -1, head_ = -1;                  // the tasks that bring these; -1: none, or used
    std::array<int, kNumStreamsWithSends> last_;  // last task of each stream; -1: none
    std::array<std::vector<int>, kNumStreamsWithSends> receives_;  // by the next task of a stream
};

}  // namespace headway::inline cost
