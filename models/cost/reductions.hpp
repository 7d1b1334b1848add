// Collectives of gradients and parameters beside what a rank computes at the end or the begin of a
// step: what they add to it. Private to models/cost.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "models/cost/step.hpp"
#include "models/cost/streams.hpp"

namespace headway::inline cost {

// A part of a rank's step as tasks of its streams: its end from its first whole gradients on, or
// its begin. Waiting for other ranks is a task on the communication stream: beside it, collectives
// of gradients and parameters are hidden.
class StepPart {
  public:
    void compute(Seconds time);
    void wait(Seconds time);
    // Reduces the owner's gradients once what is computed so far is done.
    void reduce(Seconds time, std::size_t owner);
    // The backward of these layers, last first, and of what is before them; after each layer its
    // bucket of every reduction, and the table's at the end, of owners first_owner, first_owner +
    // 1,
    // ...
    void backward(const Workload& workload, const StepTime& step, const PipelineStage& stage,
                  std::span<const PhaseTime> reductions, std::size_t first_owner);

    // The parameters of these layers, from the begin on, a bucket of every gather a layer, with the
    // table's before and the head's behind them; of owners first_owner, first_owner + 1, ...
    void gather(const PipelineStage& stage, std::span<const PhaseTime> gathers,
                std::size_t first_owner);
    // The first forward of these layers, with what stands before and behind them; each waits for
    // its parameters.
    void first_forward(const Workload& workload, const StepTime& step, const PipelineStage& stage);
    // The same as one task that waits for the parameters of all of them.
    void first_forward(Seconds time, const PipelineStage& stage);

    // How much longer it takes with its collectives, by owner.
    std::vector<Seconds> exposed(std::size_t num_owners, const Overlap& overlap);

  private:
    int last_of(Stream stream) const { return last_[static_cast<std::size_t>(stream)]; }
    void add(TimedTask task, int owner = -1);
    void pass(const PassTime& pass);

    std::vector<TimedTask> tasks_;
    std::vector<int> owners_;                  // [task] of a collective, or -1
    std::map<int, int> gathered_;              // by layer: the last task that brings it
    int table_ = -1, head_ = -1;               // that bring these
    std::array<int, kNumStreams> last_ = [] {  // of each stream
        std::array<int, kNumStreams> none{};
        none.fill(-1);
        return none;
    }();
    int beside_ = -1;  // last task that ran beside a pass
    int copy_ = -1;    // the last copy to or from host memory, which the next pass waits for
    Seconds lead_;     // of the host, where the first pass begins
};

// What shows of a collective; the rest of it is hidden.
void show(PhaseTime& reduction, Seconds exposed);

}  // namespace headway::inline cost
