// Prediction: what `headway predict` answers, per plan: step time with its interval, phases,
// traffic, memory. Every number is of the busiest rank unless its name says mean. Produced by
// models/cost, read by models/report and cli.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/phase.hpp"
#include "models/vocab/timeline.hpp"
#include "models/vocab/units.hpp"

namespace headway {

struct Interval {
    Seconds low, high;
};

// One phase in one pass, summed over the layers and micro-batches of a step.
struct PhaseCost {
    Phase phase = Phase::embed;
    Pass pass = Pass::forward;
    int count = 0;        // executions in a step
    Seconds time;         // exposed time in the step: what is hidden behind compute is not in it
    Seconds hidden;       // time behind other work
    Seconds launch_wait;  // of `time`: the device waits for the host to launch
    Interval interval;    // of `time`
    Bytes bytes;  // per rank and step: sent off-rank (communication) or moved through memory
    Flops flops;  // per rank and step
    std::string bottleneck;  // "nvlink", "nic", "spine", "flops", "memory", "launch", "sync"
};

struct MemoryItem {
    std::string name;  // "parameters", "gradients", "optimizer", "activations/expert", ...
    Bytes bytes;
};

struct PlanTraffic {
    Bytes sent_mean,
        sent_max;  // off-rank bytes a rank sends in one MoE layer, forward (dispatch + combine)
    std::array<Bytes, static_cast<std::size_t>(kNumPathClasses)>
        by_path;             // of the mean rank, the same layer pass
    double imbalance = 1.0;  // busiest rank's received rows over the mean
};

// What the ranks of one pipeline stage need.
struct StageMemory {
    Bytes peak, allocated;
    std::vector<MemoryItem> items;
    Bytes host;  // of a rank, in the memory of its node's host
    std::vector<MemoryItem> host_items;
};

// The host memory of the node whose ranks need the most of it together.
struct HostMemory {
    Bytes node;
    Bytes capacity;                 // 0: not stated
    std::vector<MemoryItem> items;  // of one rank of the stage that needs the most
};

struct PlanMemory {
    Bytes peak;       // of tensors and reserve
    Bytes allocated;  // of tensors alone, as an allocator's "max allocated" counts
    Bytes capacity;
    std::vector<MemoryItem> items;
    // In a pipeline, the stage that needs the most, which is what stands above, and all stages.
    int stage = 0;
    std::vector<StageMemory> stages;
    HostMemory host;  // of plans that offload

    Bytes reserve() const { return peak - allocated; }
};

// One rank of a pipeline in one step: what its chunks take, of one micro-batch, and where its time
// goes. busy + message_wait + bubble is the makespan.
struct PipelineRank {
    int layers = 0;  // of all its chunks, with the last `mtp_layers` of multi-token prediction
    int mtp_layers = 0;
    bool embedding = false, head_and_loss = false;
    Seconds forward, backward;  // sums over its chunks
    Seconds busy, message_wait, bubble;
    double in_flight = 0.0;  // chunks that it holds for backward, at most
};

struct PlanPipeline {
    std::string schedule;
    int chunks = 1;         // v, of one rank
    int micro_batches = 1;  // m
    Seconds makespan;       // without the update
    Seconds hop;            // a message of one micro-batch to the next stage
    Bytes message;
    std::string path;       // of a hop
    std::size_t shown = 0;  // the busiest rank, whose phases a prediction lists
    std::vector<PipelineRank> ranks;
};

struct PlanPrediction {
    std::string name;
    std::string layer_split;  // of kLayerSplitNames
    int num_ranks = 0;
    double parameters = 0.0, active_parameters = 0.0;  // of the model under this plan
    bool feasible = true;
    std::string infeasible_because;  // the item that broke the limit, in words with numbers
    Seconds step;
    Seconds launch_wait;  // of it, of all phases
    Interval step_interval;
    std::vector<double> curve_sigma;  // seconds of the step that each curve may be off by
    double routing_variance = 0.0;    // of what is drawn, s^2
    double tokens_per_second_per_gpu = 0.0;
    FlopRate
        model_flop_rate_per_gpu;  // the baseline's model FLOPs (forward + backward) over step time
    FlopRate peak_flop_rate;      // of the device
    double speedup = 1.0;         // baseline's step over this step
    bool undecided = false;  // whether this step or the baseline's is the shorter: within the noise
    Seconds moe_forward, moe_backward;  // one MoE layer
    Interval moe_forward_interval, moe_backward_interval;
    std::vector<PhaseCost> phases;  // in order of the step
    PlanTraffic traffic;
    PlanMemory memory;
    std::optional<PlanPipeline> pipeline;  // of a plan that executes an order of chunks
    std::vector<std::string> warnings;
    Timeline timeline;  // one span per phase of each distinct layer, rank -1

    double tokens_per_second() const { return tokens_per_second_per_gpu * num_ranks; }
    double tokens_per_day() const { return 86400.0 * tokens_per_second(); }
    double gpu_hours_per_trillion_tokens() const {
        return 1e12 / tokens_per_second_per_gpu / 3600.0;
    }
    // Model FLOPs over what the device's matrix units can do at most.
    double mfu() const { return model_flop_rate_per_gpu / peak_flop_rate; }
};

// What one step works on, in all ranks together.
struct StepSize {
    int num_ranks = 0, sequence_length = 0;
    std::int64_t sequences = 0;  // the global batch

    std::int64_t tokens() const { return sequences * sequence_length; }
};

// A plan that needs a curve which the profile lacks.
struct UnpricedPlan {
    std::string name, because;
};

// A plan of another scenario (another model, cluster or profile), and each plan held against it.
struct Rival {
    struct Answer {
        std::string plan;
        double speedup = 1.0;    // tokens/s of all ranks over the rival's
        bool undecided = false;  // which of the two is the faster: within the noise
    };
    std::string scenario, plan;
    double tokens_per_second = 0.0;
    bool feasible = true;
    std::vector<Answer> answers;
};

struct Prediction {
    std::string scenario;
    std::string model, cluster, device;  // their names
    std::string profile;
    std::string version;
    std::uint64_t seed = 0;
    std::string baseline;
    StepSize size;
    std::vector<PlanPrediction> plans;
    std::vector<UnpricedPlan> unpriced;  // beside plans that have a price, the baseline among them
    std::vector<std::string> notes;      // assumptions of the scenario ("HP twin: ...")
    std::optional<Rival> rival;
};

}  // namespace headway
