// RoleWriter: appends the tasks of one role to a Program, stream by stream in the order in which it
// is told of them. Private to models/cost.
#pragma once

#include <array>
#include <vector>

#include "models/cost/priced_layers.hpp"
#include "models/workload/pair_order.hpp"

namespace headway::inline cost {

class RoleWriter {
  public:
    RoleWriter(const Workload& workload, TaskPricer& pricer, PricedLayers& layers,
               Program& program);

    // The next task of each stream waits for these messages.
    void receive(const std::vector<int>& messages);
    // A block of either pass; gradient parts are for backward.
    void block(const Block& block, GradientPart part = GradientPart::all);
    // The tasks of a forward and a backward as one, of these micro-batches.
    void pair(const std::vector<PairTask>& tasks, int forward, int backward);
    // The buckets of a layer or, where it is -1, all there are: gradients that leave as soon as
    // they are whole.
    void reduce(const std::vector<PhaseWork>& phases, int layer);
    // A phase of the update; reductions that left early are not among them.
    void update(const PhaseWork& phase);
    // When all before it has ended; in the update, reductions too.
    void send(const SendTask& send, Phase phase, Pass pass);

  private:
    int last_of(Stream stream) const { return last_[static_cast<std::size_t>(stream)]; }
    int add(Phase phase, Pass pass, int layer, Stream stream, std::vector<int> after, TaskWork work,
            int chunk = 0);
    using LastTasks = std::array<int, kNumStreamsWithSends>;
    // `before`: what each stream did last before the pass.
    void write(const std::vector<PricedSlot>& slots, Pass pass, int layer, GradientPart part,
               LastTasks before);

    const Workload& workload_;
    TaskPricer& pricer_;
    PricedLayers& layers_;
    Program& program_;
    int micro_batch_ = 0;
    LastTasks last_;   // last task of each stream; -1: none
    int beside_ = -1;  // the last task that runs beside a pass
    std::array<std::vector<int>, kNumStreamsWithSends> receives_;  // by the next task of a stream
};

}  // namespace headway::inline cost
