// Reductions of gradients beside what a rank still computes: what they add to its end. Private to
// models/cost.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "models/cost/step.hpp"
#include "models/cost/streams.hpp"

namespace headway::inline cost {

// Of a reduction that leaves early, before any of it is hidden.
Seconds bucket_time(const PhaseTime& reduction);

// The end of a rank's step as tasks of its streams, from its first whole gradients on. Waiting for
// other ranks is a task on the communication stream: beside it, reductions are hidden.
class StepEnd {
  public:
    void compute(Seconds time);
    void wait(Seconds time);
    // Of the owner's gradients, once what is computed so far is done.
    void reduce(Seconds time, std::size_t owner);
    // The backward of these layers, last first, and of what is before them; after each layer a
    // bucket of every reduction, of owners first_owner, first_owner + 1, ...
    void backward(const Workload& workload, const StepTime& step, const PipelineStage& stage,
                  const std::vector<Seconds>& buckets, std::size_t first_owner);

    // How much longer it takes with its reductions, by owner.
    std::vector<Seconds> exposed(std::size_t num_owners, double slowdown);

  private:
    int last_of(Stream stream) const { return last_[static_cast<std::size_t>(stream)]; }
    void add(TimedTask task, int owner = -1);
    void pass(const PassTime& pass);

    std::vector<TimedTask> tasks_;
    std::vector<int> owners_;                        // [task] of a reduction, or -1
    std::array<int, kNumStreams> last_{-1, -1, -1};  // of each stream
    int beside_ = -1;                                // last task that ran beside a pass
    Seconds lead_;                                   // of the host, where the first pass begins
};

// What shows of a reduction; the rest of it is hidden.
void show(PhaseTime& reduction, Seconds exposed);

}  // namespace headway::inline cost
