// StepTime: a priced Workload. Collects time by phase and pass, with what overlaps already taken
// out. Without a pipeline every rank runs all layers (step.cpp); with one, the phases are those of
// its busiest rank (pipeline_step.cpp). Private to models/cost.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <vector>

#include "models/cost/price.hpp"
#include "models/cost/streams.hpp"
#include "models/schedule/pipeline_times.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/timeline.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

// Sum over a step of one phase in one pass.
struct PhaseTotal {
    int count = 0;
    Seconds time, hidden;
    Seconds host;  // of `time`: the device waits for the host's launches
    double sigma = 0.0;
    Bytes bytes;
    Flops flops;
    Bottleneck bottleneck = Bottleneck::none;
    Seconds slowest;  // of one execution, which decides the bottleneck shown
};

// One execution of a phase as priced, for the Timeline.
struct PhaseTime {
    const PhaseWork* work = nullptr;
    Seconds time, hidden, host;  // as PhaseTotal has them
    Seconds launch;              // of the host, to enqueue it
    double sigma = 0.0;
    Bottleneck bottleneck = Bottleneck::none;
    LinkUse links{};
    std::vector<Seconds> buckets{};  // of a collective that a pass hides, before it does
};

// The phases of one pass, and what runs on the streams: one task a phase, or a chunk of it.
struct PassTime {
    std::vector<PhaseTime> phases;
    std::vector<TimedTask> tasks;  // `after` as a Slot has it
    std::vector<int> phase_of_task;
    Seconds total;
    Seconds lead;  // of the host where it begins, in the last micro-batch
};

// The time of a layer, or of what is before or after the layers.
struct LayerTime {
    PassTime forward, backward;
};

// A stage's part of one micro-batch; `weight` is the part of `backward` that is weight gradients.
struct ChunkTime {
    Seconds forward, backward, weight;
};

// The executed order of a plan that has one.
struct PipelineTime {
    PipelineOrder order;
    PipelineTimes times;
    std::vector<ChunkTime> chunks;                // [stage]
    std::vector<Price> hops;                      // [pipeline rank] of a message to the next one
    std::map<int, std::vector<Price>> wide_hops;  // the same behind a stage that sends more rows
    std::size_t shown = 0;                        // the busiest rank

    const std::vector<Price>& hop(int stage) const {
        const auto wide = wide_hops.find(stage);
        return wide == wide_hops.end() ? hops : wide->second;
    }
};

struct StepTime {
    Seconds total;
    Seconds lead;  // of the host where it begins
    Seconds moe_forward,
        moe_backward;  // MoE part of one MoE layer: without attention and norms, mean over layers
    std::array<std::array<PhaseTotal, 3>, static_cast<std::size_t>(kNumPhases)> phases{};
    LayerTime before, after;
    std::vector<PhaseTime> update;
    std::vector<LayerTime> layers;
    std::optional<PipelineTime> pipeline;
};

// How fast ranks compute (Cluster::rank_overrides): the slowest, and the median, at which the rank
// with the most work is taken to compute.
struct ComputeSpeeds {
    double slowest = 1.0, median = 1.0;
    bool differ() const { return slowest != 1.0 || median != 1.0; }
};
ComputeSpeeds compute_speeds(const Cluster& cluster);

// A compute phase takes as long as its last rank: that with the most work, or the slowest one with
// the mean's. `mean`: the same workload with the mean rank's load.
struct RankWork {
    const Workload& busiest;
    const Workload& mean;
    ComputeSpeeds speeds;
};
StepTime price_step(const RankWork& work, const Profile& profile, PriceBook& book);

// How often a step runs what is around the layers, and each entry of Workload::layers: the weight
// of its errors.
struct PassWeights {
    double before = 0.0, after = 0.0;
    std::vector<double> layers;
};
// Fills `before`, `after`, `layers` and the times of one MoE layer.
void price_passes(const RankWork& work, const Profile& profile, const PassWeights& weights,
                  PriceBook& book, StepTime& step);
// Adds `count` executions to the sums of the step.
void accumulate(StepTime& step, const std::vector<PhaseTime>& times, int count);
// All buckets of a phase of the update. Its mean rank's work beside the busiest's.
std::vector<PhaseTime> price_update(const std::vector<PhaseWork>& update,
                                    const std::vector<PhaseWork>& mean, const ComputeSpeeds& speeds,
                                    PriceBook& book);

// The phase on the busiest and on the mean rank, and a compute phase's price on the last to end.
struct RankPhases {
    const PhaseWork& busiest;
    const PhaseWork& mean;
};
Price price_compute(const RankPhases& phase, const ComputeSpeeds& speeds, PriceBook& book,
                    double weight, double fraction);

// The load of a rank with the mean's rows.
GroupLoad mean_load(GroupLoad load);

// Records travel behind the counts, in the same span of a Timeline.
void extend(Span& counts, const PhaseWork& records, Seconds time, const Interval& interval);

// Bytes that a phase sends off-rank (busiest rank) or moves through memory, and its FLOPs.
Bytes phase_bytes(const PhaseWork& phase);
Flops phase_flops(const PhaseWork& phase);

}  // namespace headway::inline cost
