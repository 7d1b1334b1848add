// Workload: what a training step must do under a plan, before any price: phases in order, with
// FLOPs, bytes, problem sizes and off-rank bytes by path class, of the mean and the busiest rank.
// Both the analytic model and the simulator start here. Closed form; docs/reference/model.md
// derives every entry.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "models/schedule/pipeline_order.hpp"
#include "models/vocab/cluster.hpp"
#include "models/vocab/host_call.hpp"
#include "models/vocab/phase.hpp"
#include "models/vocab/profile.hpp"
#include "models/vocab/scenario.hpp"
#include "models/vocab/units.hpp"
#include "models/workload/link_load.hpp"
#include "models/workload/stages.hpp"

namespace headway::inline workload {

using PathBytes = std::array<Bytes, static_cast<std::size_t>(kNumPathClasses)>;

// How the rows of a rank lie on its own experts: `share` of them on experts that have `size` times
// the mean number. No parts: evenly.
struct RowSpread {
    struct Part {
        double size = 1.0, share = 1.0;
    };
    std::array<Part, 4> parts;
    int num_parts = 0;
};
// The spread of experts with these numbers of rows.
RowSpread row_spread(std::vector<double> rows);

// One kernel, or several alike. For FLOP-rate kernels `bytes` is the memory floor; for byte-rate
// kernels it is the work. Backward through weights is two halves: gradients of its input, and of
// its `parameters`, which move `weight_bytes` of `bytes`.
struct KernelWork {
    Kernel kernel = Kernel::streaming;
    Flops flops;
    Bytes bytes;
    Bytes weight_bytes{};
    double parameters = 0.0;
    double size = 1.0;  // as models/vocab/profile.hpp defines it for the kernel
    double width = 1.0;
    double inner = 1.0;
    int launches = 1;
    double stretch = 1.0;          // of its time, over that of the kernel that the curve is of
    std::optional<Dtype> dtype{};  // of its operands; none: the model's
    // Serves instead where the profile has it: the rates of whole experts, of gated ones. A pass of
    // bytes that it takes along then costs nothing.
    std::optional<Kernel> own_kernel{};
};

// What a phase of an MoE layer works on, on the busiest rank: the arguments of the terms of a
// PhaseCurve.
struct PhaseShape {
    LayerKind layer = LayerKind::hp;
    Phase phase = Phase::expert;
    Dtype dtype = Dtype::bf16;
    double own_tokens = 0;  // T
    double tokens = 0;      // that a router of this rank, or all of them together, see: T, or T H
    double hidden = 0;      // d
    double columns = 0;     // H d_h under HP
    int width = 0;          // of a travelling row
    int routers = 1;        // on the rank
    int experts = 0;        // of one router
    double groups = 0;      // experts on the rank
    int top_k = 1;
    double expert_width = 0;
    double rows = 0;     // at the experts
    double sent = 0;     // copies that permute writes
    double arrived = 0;  // copies received
    RowSpread spread{};  // of the rows over the experts
};

// A small fixed list: no phase has more than four kinds of kernels.
struct ComputeWork {
    std::array<KernelWork, 4> kernels;
    int num_kernels = 0;
    std::optional<PhaseShape> shape;  // of a phase of an MoE layer
    // Gradients of weights that later micro-batches read to add to them, a micro-batch in the mean:
    // beyond what a layer that runs once moves, and a curve of whole phases holds.
    Bytes added_to{};

    int num_launches() const {
        int sum = 0;
        for (int i = 0; i < num_kernels; ++i) sum += kernels[static_cast<std::size_t>(i)].launches;
        return std::max(1, sum);
    }
    void add(const KernelWork& work) {
        assert(num_kernels < static_cast<int>(kernels.size()));
        kernels[static_cast<std::size_t>(num_kernels++)] = work;
    }
};

// All-to-all inside groups of `group_size` consecutive ranks, among every `stride`-th of them;
// off-rank bytes of one rank by path class.
struct ExchangeWork {
    int group_size = 1;
    double element = 2.0;  // bytes of a travelling element, scales included
    PathBytes mean{};      // sent by the mean rank
    PathBytes busiest{};   // the most that a rank sends or receives
    // The busiest link, in bytes of a rank's share (link_load.hpp): where curves are read, and
    // what no exchange can be faster than.
    PathBytes on_curve{}, links{};
    // Node-dedup: a second stage inside the island after the first over the NIC.
    bool forwarded = false;
    PathBytes forward_mean{}, forward_busiest{}, forward_on_curve{}, forward_links{};
    int stride = 1;
    Bytes a_peer{};          // to each, of an equal exchange
    double own_share = 0.0;  // of the second stage's bytes: own tokens, which wait for no first
    KernelWork forwarder{};  // what a rank that forwards moves in its memory between the stages
    // implementation: headway. Numbers that travel with the counts, of a phase whose curve holds
    // them; and what a rank moves in its memory before or behind the exchange.
    struct Records {
        PhaseShape shape;
        Pass pass = Pass::forward;
        int num_stages = 1;
    };
    std::optional<Records> records{};
    KernelWork planes{};
};

// EP's small all-to-all of counts, and the host's wait for it.
struct CountExchangeWork {
    int group_size = 1;
    bool hidden = false;                // behind the permute
    int num_syncs = 1;                  // host waits for the device
    int num_stages = 1;                 // of the exchange that the counts are of
    std::optional<PhaseShape> shape{};  // of a layer whose counts nothing hides
};

// Which pass of a step hides a collective of its gradients or parameters, in a bucket for each
// layer: gradients leave behind the last micro-batch's backward, parameters come before the first
// forward.
enum class HiddenBy { nothing, last_backward, first_forward };
// What of a first forward waits for gathered parameters: each layer for its bucket, what stands
// before the layers for the table, what stands behind them for the head.
enum class NeededBy { layers, table, head };

// Over `group_size` ranks that are `stride` apart.
struct ReduceWork {
    Collective collective = Collective::all_reduce;
    int group_size = 1;
    int stride = 1;
    Bytes bytes;  // of the whole buffer
    HiddenBy hidden_by = HiddenBy::nothing;
    NeededBy needed_by = NeededBy::layers;
    // Shares of its bytes where a pass hides it: a bucket for each layer of the rank, the head's
    // gradients with the last one's, and behind them the table's. Empty: one bucket.
    std::vector<double> buckets{};
};

// What goes down to host memory, comes up from it, or is moved in it by its CPUs, of one rank.
enum class HostPart { down, up, optimizer };
struct HostWork {
    HostPart part = HostPart::down;
    Bytes bytes;
    int pieces = 1;  // equal ones, each of which may go on as soon as it is there
};

// What a collective runs beside: nothing; the whole pass that it stands in, from its begin to its
// end (parameters for the next layer, gradients of the last); or, hop by hop, the parts of the
// compute phase behind it (a ring) or before it: a group of n ranks has n parts and n-1 hops.
enum class Beside { nothing, pass, next_phase, previous_phase };

struct PhaseWork {
    Phase phase = Phase::embed;
    Pass pass = Pass::forward;
    std::variant<ComputeWork, ExchangeWork, CountExchangeWork, ReduceWork, HostWork> work;
    bool again = false;  // forward work that backward repeats
    Beside beside = Beside::nothing;
    // The host enqueues phase after phase: an eager framework's its operations, headway's own its
    // calls (of a reduction in buckets: for each); and whether it waits for the end of this one
    // before it goes on.
    double launches = 0.0;
    PerHostCall<double> calls{};
    bool host_waits = false;

    Pass kernel_pass() const { return again ? Pass::forward : pass; }
};

// Records that travel with the counts of an exchange.
inline bool is_records(const PhaseWork& phase) {
    const auto* exchange = std::get_if<ExchangeWork>(&phase.work);
    return exchange != nullptr && exchange->records.has_value();
}
inline bool is_hidden_by(const PhaseWork& phase, HiddenBy pass) {
    const auto* reduce = std::get_if<ReduceWork>(&phase.work);
    return reduce != nullptr && reduce->hidden_by == pass;
}
// A reduction that overlaps backward: in buckets, each when its gradients are whole.
inline bool leaves_early(const PhaseWork& phase) {
    return is_hidden_by(phase, HiddenBy::last_backward);
}
// A gather of parameters that overlaps forward: in buckets, each before its layer.
inline bool comes_ahead(const PhaseWork& phase) {
    return is_hidden_by(phase, HiddenBy::first_forward);
}

// Phases [begin, end) of a pass that run chunked when the plan overlaps: the first ones and the
// last ones are exchanges, those between are compute.
struct PhaseRange {
    int begin = 0, end = 0;
};

// `count` equal layers, the first of them first_layer.
struct LayerWork {
    int first_layer = 0;
    int count = 1;
    bool is_moe = false;
    std::vector<PhaseWork> forward, backward;
    std::vector<PhaseRange> forward_pipelines, backward_pipelines;
    double imbalance = 1.0;  // busiest rank's expert rows over the mean
    double noise = 0.0;      // relative standard deviation of the busiest rank's rows
    Flops model_flops;       // forward, per rank, of the model itself: no recompute, no imbalance
};

// What a plan that executes an order of chunks has besides: where its layers lie, what one stage
// sends the next, and each stage's gradients and update.
struct PipelineWork {
    PipelineSchedule schedule = PipelineSchedule::one_f_one_b;
    PipelineShape shape;
    std::vector<PipelineStage> stages;  // along the forward pass
    Bytes message;                      // of one micro-batch, to the next stage or back
    std::vector<int> rows;              // [stage] times that it sends on: rows_sent
    std::vector<PathClass> paths;       // [pipeline rank] to the next one; the last one's to rank 0
    // [stage] Reductions that leave as soon as the stage's gradients are whole, and gathers of its
    // parameters that come ahead of its first forward; [pipeline rank] reductions that wait for the
    // rank's last step; [pipeline rank] the optimizer, which waits for all ranks (the norm of all
    // gradients), and the parameters' way back.
    std::vector<std::vector<PhaseWork>> reductions, gathers, late_reductions, updates;
    bool delay_wgrad = false;  // of a pair: weight gradients behind its exchanges

    // Between a stage and the next one.
    Bytes message_behind(int stage) const {
        return rows[static_cast<std::size_t>(stage)] * message;
    }
};

struct Workload {
    int num_ranks = 0;
    int num_micro_batches = 1;
    int overlap_chunks = 1;
    bool runs_free = false;  // step after step, and the host waits for none of them
    // Each micro-batch: embedding; head and loss. Forward phases, then backward ones.
    std::vector<PhaseWork> before, after;
    std::vector<LayerWork> layers;
    std::vector<int> entry_of_layer;  // [layer of the model] index in `layers`
    std::vector<PhaseWork> update;    // once a step; of a pipeline: in its work
    Flops model_flops;  // the baseline's: forward, per rank and micro-batch, of all layers
    std::optional<PipelineWork> pipeline;
};

// The phases of one pass among those before or after the layers.
std::span<const PhaseWork> of_pass(const std::vector<PhaseWork>& phases, Pass pass);

// Load of one MoE layer on the ranks of a group: the mean and the busiest.
struct GroupLoad {
    double rows_mean = 0.0, rows_max = 0.0;  // expert rows per rank
    double rows_sigma = 0.0;                 // standard deviation of rows_max
    RowSpread spread;                        // of the busiest rank's own experts
    PathCounts copies_mean{}, copies_max{}, copies_on_curve{},
        copies_links{};  // off-rank, one stage
    bool forwarded = false;
    PathCounts forward_mean{}, forward_max{}, forward_on_curve{}, forward_links{};
    double copies_sent = 0.0;       // per rank, its own included: rows that permute writes
    double copies_received = 0.0;   // per rank, own included, busiest: rows that arrive
    double copies_forwarded = 0.0;  // node-dedup, per rank: made of rows from other nodes
};

// Expected load by closed form. EP: of `layer`; HP x EP: of the dispatch inside a head.
GroupLoad expected_load(const Scenario& scenario, const Plan& plan, int layer);
// The same counted from sampled tokens; sample = 0, 1, ...
GroupLoad sampled_load(const Scenario& scenario, const Plan& plan, int layer, int sample);

// Layers of one kind do the same work but for their routing: MoE or dense, with a window or
// without.
std::size_t layer_kind(const ModelSpec& model, int layer);

// True when popularity is drawn anew for each layer and moves tokens between ranks, so that layers
// must be priced one by one.
bool layers_differ(const Scenario& scenario, const Plan& plan);

// Loads: one for all MoE layers, or one each. Absent: expected_load.
Workload build_workload(const Scenario& scenario, const Plan& plan);
Workload build_workload(const Scenario& scenario, const Plan& plan,
                        const std::vector<GroupLoad>& loads);

// What the host of headway's own runtime hands over for a phase (runtime/cuda, kernels); of a
// reduction in buckets, for each. The one place that counts it.
PerHostCall<double> own_host_calls(const Plan& plan, const PhaseWork& work);

// Any plan as a pipeline, be it of one rank. InputError where the schedule has no order of that
// shape or the layers do not lie on its stages.
PipelineWork build_pipeline(const Scenario& scenario, const Plan& plan);

// One MoE layer with the given load: for a rank-by-rank view, with that rank's own rows as the
// busiest.
LayerWork build_moe_layer(const Scenario& scenario, const Plan& plan, const GroupLoad& load,
                          int layer);

}  // namespace headway::inline workload
