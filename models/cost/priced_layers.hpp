// PricedLayers: the passes of layers as priced tasks on the ranks of one role, each draw of the
// routing once. Private to models/cost.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "models/cost/program.hpp"
#include "models/cost/program_tasks.hpp"
#include "models/workload/schedule.hpp"

namespace headway::inline cost {

struct PricedSlot {
    Phase phase = Phase::embed;
    Slot slot;
    TaskWork work;
    double weights = 0.0;  // share of its time that is weight gradients
    Seconds launch{};
    bool host_waits = false;
};

struct PricedLayer {
    std::vector<PricedSlot> forward, backward;

    const std::vector<PricedSlot>& of(Pass pass) const {
        return pass == Pass::forward ? forward : backward;
    }
};

// Ranks [first, first + count): a block of pipeline stages, or the world.
struct RankBlock {
    int first = 0, count = 0;
};

class PricedLayers {
  public:
    PricedLayers(const Scenario& scenario, const Plan& plan, const Workload& workload,
                 const ProgramOptions& options, RankBlock ranks, TaskPricer& pricer)
        : scenario_(scenario),
          plan_(plan),
          workload_(workload),
          options_(options),
          ranks_(ranks),
          pricer_(pricer) {}

    const PricedLayer& at(int layer, int micro_batch);
    // The embedding, or the head and the loss.
    const PricedLayer& outer(BlockKind kind);
    // The micro-batch does not come to the layer again.
    void forget(int layer, int micro_batch);

  private:
    int draw_of(int micro_batch) const {
        return options_.num_draws > 0 ? micro_batch % options_.num_draws : micro_batch;
    }
    const LayerWork& entry(int layer) const;
    std::vector<DrawnGroup> draw(int layer, int draw) const;
    std::vector<LayerWork> work_of_ranks(int layer, const std::vector<DrawnGroup>& groups) const;
    // expected: the layer without a draw.
    ReduceTask reduce_task(const std::vector<LayerWork>& ranks, const PhaseWork& expected,
                           Pass pass, std::size_t phase, double fraction);
    PricedLayer price(const std::vector<LayerWork>& ranks, const LayerWork& expected,
                      const std::vector<DrawnGroup>& groups);
    std::vector<PricedSlot> price(const std::vector<LayerWork>& ranks, const LayerWork& expected,
                                  Pass pass, const std::vector<DrawnGroup>& groups);

    const Scenario& scenario_;
    const Plan& plan_;
    const Workload& workload_;
    const ProgramOptions& options_;
    RankBlock ranks_;
    TaskPricer& pricer_;
    std::map<std::pair<int, int>, PricedLayer> priced_;  // [draw, layer]
    std::map<BlockKind, PricedLayer> outer_;
};

}  // namespace headway::inline cost
