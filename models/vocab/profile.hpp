// Profile: what was measured on a machine, as curves. Compute: achieved rate by problem size and
// width, per kernel kind and type. Communication: time by bytes, per collective and path class.
// Every curve carries its residual and its source. A look-up outside the measured range is
// answered, and marked; there is no default for a missing curve.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/host_call.hpp"
#include "models/vocab/model_spec.hpp"
#include "models/vocab/overlap.hpp"
#include "models/vocab/phase.hpp"
#include "models/vocab/units.hpp"

namespace headway {

// Kernel kinds, and what size and width mean for each (the unit of rate in brackets):
//   dense_gemm    size: FLOPs of the GEMM, width: its smallest dimension            [FLOP/s]
//   grouped_gemm  size: rows per expert, width: expert width f on the rank          [FLOP/s]
//   grouped_gemm_gelu, grouped_gemm_swiglu  the same of whole experts whose activation is in a
//                 product's epilogue: FLOPs of the products. Optional: without it grouped_gemm and
//                 a pass of streaming serve
//   fused_expert  size: rows per expert, width: head width d_h (HP experts), inner: expert width f
//                                                                                   [FLOP/s]
//   fused_expert_swiglu  the same of gated ones. Optional: without it fused_expert serves
//   attention     size: sequence length, width: head width; causal FLOPs           [FLOP/s]
//   router        size: tokens, width: input width of the router (d; d_h under HP), because
//                 the time is about tokens * experts * (2 * width / gemm rate + top-k cost)
//                                                                    [FLOP/s of the logits]
//   gather        size: bytes moved (permute, unpermute, regroup), width: unused 1   [bytes/s]
//   streaming     size: bytes moved (norm, residual, loss, cast), width: unused 1    [bytes/s]
//   optimizer     size: bytes moved, width: unused 1                                 [bytes/s]
enum class Kernel {
    dense_gemm,
    grouped_gemm,
    grouped_gemm_gelu,
    grouped_gemm_swiglu,
    fused_expert,
    fused_expert_swiglu,
    attention,
    router,
    gather,
    streaming,
    optimizer
};
inline constexpr std::array kKernelNames = {std::string_view("dense_gemm"),
                                            std::string_view("grouped_gemm"),
                                            std::string_view("grouped_gemm_gelu"),
                                            std::string_view("grouped_gemm_swiglu"),
                                            std::string_view("fused_expert"),
                                            std::string_view("fused_expert_swiglu"),
                                            std::string_view("attention"),
                                            std::string_view("router"),
                                            std::string_view("gather"),
                                            std::string_view("streaming"),
                                            std::string_view("optimizer")};
inline constexpr int kNumKernels = static_cast<int>(kKernelNames.size());
constexpr std::string_view name(Kernel k) {
    return kKernelNames[static_cast<std::size_t>(k)];
}
constexpr bool is_fused_expert(Kernel k) {
    return k == Kernel::fused_expert || k == Kernel::fused_expert_swiglu;
}
constexpr bool is_byte_rate(Kernel k) {
    return k == Kernel::gather || k == Kernel::streaming || k == Kernel::optimizer;
}

struct LookUp {
    double value = 0.0;
    bool extrapolated =
        false;  // outside the measured grid: nearest rate held (compute), last slope kept (time)
};

// The largest residual that a profile states: a curve that is so far off says nothing.
constexpr double kLargestResidual = 10.0;

// Achieved rate on a grid. What is interpolated, linearly, is the time: it never falls when size,
// width or inner grows, whatever the measured rates do (docs/reference/model.md). Between two
// measured rates the result lies between them.
struct RateCurve {
    std::vector<double> size;   // ascending, at least one
    std::vector<double> width;  // ascending, at least one
    std::vector<double> inner;  // ascending; none: no dependence on it
    std::vector<double> rate;   // [inner, width, size] FLOP/s or bytes/s, all > 0
    double residual = 0.0;      // relative standard deviation of measured against fitted
    std::string source;

    LookUp at(Kernel kernel, double size_value, double width_value, double inner_value = 1.0) const;
};

enum class Collective { all_to_all, send_recv, all_reduce, all_gather, reduce_scatter };
inline constexpr std::array kCollectiveNames = {
    std::string_view("all_to_all"), std::string_view("send_recv"), std::string_view("all_reduce"),
    std::string_view("all_gather"), std::string_view("reduce_scatter")};
inline constexpr int kNumCollectives = static_cast<int>(kCollectiveNames.size());
constexpr std::string_view name(Collective c) {
    return kCollectiveNames[static_cast<std::size_t>(c)];
}

// Time by bytes, piecewise linear (a latency + bytes/bandwidth line per segment).
//   all_to_all: bytes one rank sends to others (S (n-1)/n);  send_recv: bytes of the message;
//   all_reduce: busbw bytes 2 S (n-1)/n;  all_gather, reduce_scatter: S (n-1)/n, S the whole
//   buffer.
struct TimeCurve {
    Collective collective = Collective::all_to_all;
    PathClass path = PathClass::nvlink;
    int num_ranks = 0;  // ranks of the measurement
    Bandwidth link;  // nominal link bandwidth per rank and direction of the measured machine: on a
                     // cluster with another one, the time above the floor scales with link /
                     // cluster's link
    std::vector<double> bytes;    // ascending
    std::vector<double> seconds;  // non-decreasing, > 0
    double residual = 0.0;
    // Looked up at busiest + mean_share (mean - busiest) bytes: where ranks share a memory or a
    // bus, what all of them send decides beside the busiest. 0: the busiest rank alone.
    double mean_share = 0.0;
    std::string source;

    // Below the smallest size on the line through the first two; a curve of one size is all
    // bandwidth. `extrapolated` there only when bytes are most of what that size took.
    LookUp at(double byte_count) const;
    // Seconds of no bytes, on that line: what launch and latency take.
    double floor_seconds() const;
};

// What a phase of an MoE layer does, as quantities that its time grows with. models/cost computes
// them from the phase's shape; docs/reference/model.md defines each.
enum class Term {
    fixed,
    gemm_waves,
    gemm_wave_depth,
    second_gemm_waves,
    wgrad_waves,
    wgrad_wave_rows,
    wgrad_sums,
    tokens,
    token_width,
    choices,
    copy_width,
    row_width,
    row_hidden,
    logits,
    logit_products,
    list_updates,
    selection_rounds,
    tile_waves,
    tile_wave_hidden,
    block_waves,
    block_choices,
    block_experts,
    count_blocks,
    sort_blocks,
    tiles,
    groups,
    group_width,
    group_hidden,
    group_weights,
    selection_slots,
    gradient_rounds,
    router_weights,
    router_rounds,
    router_round_chunks,
    router_round_chunk_width,
    block_chunks,
    block_chunk_width,
    group_tiles,
    beyond_cache,
    copy_choices,
    copy_steps,
    scatter_experts,
    scatter_choices,
    generic_choices,
    choices_beyond_cache,
    prefix_blocks,
    unaligned_width,
    mover_rounds,
    mover_round_steps,
    mover_round_choices,
    moved_beyond_1m,
    moved_beyond_4m,
    moved_beyond_16m,
};
inline constexpr std::array kTermNames = {std::string_view("fixed"),
                                          std::string_view("gemm_waves"),
                                          std::string_view("gemm_wave_depth"),
                                          std::string_view("second_gemm_waves"),
                                          std::string_view("wgrad_waves"),
                                          std::string_view("wgrad_wave_rows"),
                                          std::string_view("wgrad_sums"),
                                          std::string_view("tokens"),
                                          std::string_view("token_width"),
                                          std::string_view("choices"),
                                          std::string_view("copy_width"),
                                          std::string_view("row_width"),
                                          std::string_view("row_hidden"),
                                          std::string_view("logits"),
                                          std::string_view("logit_products"),
                                          std::string_view("list_updates"),
                                          std::string_view("selection_rounds"),
                                          std::string_view("tile_waves"),
                                          std::string_view("tile_wave_hidden"),
                                          std::string_view("block_waves"),
                                          std::string_view("block_choices"),
                                          std::string_view("block_experts"),
                                          std::string_view("count_blocks"),
                                          std::string_view("sort_blocks"),
                                          std::string_view("tiles"),
                                          std::string_view("groups"),
                                          std::string_view("group_width"),
                                          std::string_view("group_hidden"),
                                          std::string_view("group_weights"),
                                          std::string_view("selection_slots"),
                                          std::string_view("gradient_rounds"),
                                          std::string_view("router_weights"),
                                          std::string_view("router_rounds"),
                                          std::string_view("router_round_chunks"),
                                          std::string_view("router_round_chunk_width"),
                                          std::string_view("block_chunks"),
                                          std::string_view("block_chunk_width"),
                                          std::string_view("group_tiles"),
                                          std::string_view("beyond_cache"),
                                          std::string_view("copy_choices"),
                                          std::string_view("copy_steps"),
                                          std::string_view("scatter_experts"),
                                          std::string_view("scatter_choices"),
                                          std::string_view("generic_choices"),
                                          std::string_view("choices_beyond_cache"),
                                          std::string_view("prefix_blocks"),
                                          std::string_view("unaligned_width"),
                                          std::string_view("mover_rounds"),
                                          std::string_view("mover_round_steps"),
                                          std::string_view("mover_round_choices"),
                                          std::string_view("moved_beyond_1m"),
                                          std::string_view("moved_beyond_4m"),
                                          std::string_view("moved_beyond_16m")};
static_assert(kTermNames.size() == static_cast<std::size_t>(Term::moved_beyond_16m) + 1);

// ep_rank: EP whose dispatch is deduplicated by rank.
enum class LayerKind { hp, ep, ep_rank };
inline constexpr std::array kLayerKindNames = {std::string_view("hp"), std::string_view("ep"),
                                               std::string_view("ep_rank")};

// The smallest and the largest of what was measured.
struct Extent {
    double least = 0.0, most = 0.0;
    bool holds(double value) const { return least <= value && value <= most; }
};

// Shapes of the layers that a phase curve was fitted to.
struct ShapeRange {
    Extent own_tokens, hidden, experts, top_k, width, expert_width;
};

// The time of a whole phase of one implementation: sum of seconds[i] * term i. Where a profile has
// one it replaces the kernel curves of that phase; a kernel that is compiled for a width or for a
// range of k has one for each.
struct PhaseCurve {
    LayerKind layer = LayerKind::hp;
    Phase phase = Phase::expert;
    Pass pass = Pass::forward;
    Dtype dtype = Dtype::bf16;
    int width = 0;  // of a travelling row; 0: any
    int min_top_k = 1, max_top_k = 1024;
    int num_multiprocessors = 1;  // that each rank had: waves count them
    std::vector<Term> terms;
    std::vector<double> seconds;         // >= 0
    std::optional<ShapeRange> measured;  // none: a profile from before ranges were kept
    double residual = 0.0;
    std::string source;
};

// The curves of one kernel in one type.
struct KernelCurves {
    std::vector<RateCurve> forward;  // none or one
    std::vector<RateCurve>
        backward;  // none: the forward curve serves, which is noted in the result
};

struct Provenance {
    std::string device;  // must equal Cluster::device.name, else a warning
    // Peaks of that device, 0 when not stated: rates are scaled down by them on a slower one.
    FlopRate peak_matmul;
    Bandwidth memory_bandwidth;
    std::string kind;  // "public" (built from cited measurements) or "measured"
    std::string date;
    std::string commit;
    std::string command;
    std::string driver, cuda, nccl, clocks;
    std::string note;
};

// Whether curves measured on the device `measured` are of another device than `described`. A name
// that is only a kind, CPU or GPU, contradicts a device of the other kind alone.
bool contradicts(std::string_view measured, std::string_view described);

struct Overheads {
    Seconds launch;          // one kernel launch that is not hidden
    Seconds host_sync;       // device-to-host round trip that EP's counts need
    Seconds count_exchange;  // small all-to-all of counts, without the sync
    // Beside communication compute takes up to this many times its own time (>= 1), and loses this
    // share of its speed until then; 0: as much as makes it that slow in the end.
    double overlap_slowdown = 1.0;
    double overlap_loss = 0.0;
    // One operation that a framework's host thread enqueues: what the device waits for where its
    // own work is shorter.
    Seconds host_launch;
    PerHostCall<Seconds> host_calls{};  // of headway's own host
    double host_residual = 0.0;         // relative standard deviation of launches and calls
    double residual = 0.0;              // of the others
    std::string source;

    Overlap overlap() const { return {overlap_slowdown, overlap_loss}; }
};

// What work of the host achieves, where a plan has any.
struct HostRates {
    double copy = 0.0;  // of the bandwidth to host memory, by copies of pinned memory
    double copy_residual = 0.0;
    Bandwidth adam;  // bytes that the AdamW of one rank moves in host memory
    double adam_residual = 0.0;
    std::string source;
};

struct Profile {
    std::string name;
    Provenance provenance;
    std::array<KernelCurves, static_cast<std::size_t>(kNumKernels* kNumDtypes)>
        kernels;  // [kernel, dtype]
    std::vector<PhaseCurve> phases;
    std::vector<TimeCurve> communication;
    Overheads overheads;
    std::optional<HostRates> host;

    // A byte rate is of every type; fp16 runs at the rates of bf16.
    const KernelCurves& kernel(Kernel k, Dtype type = Dtype::bf16) const {
        return kernels[index_of(k, type)];
    }
    KernelCurves& kernel(Kernel k, Dtype type = Dtype::bf16) { return kernels[index_of(k, type)]; }
    // The curve of this collective and path class whose num_ranks is nearest (in ratio) to the
    // asked one; null when the profile has none.
    const TimeCurve* find(Collective collective, PathClass path, int num_ranks) const;
    // The phase curve of this width whose range of k holds `top_k`, or is nearest to it; null when
    // the profile has none.
    const PhaseCurve* find(LayerKind layer, Phase phase, Pass pass, Dtype type, int width,
                           int top_k) const;

  private:
    static std::size_t index_of(Kernel k, Dtype type) {
        const Dtype column = is_byte_rate(k) ? Dtype::bf16 : rate_type(type);
        return static_cast<std::size_t>(k) * kNumDtypes + static_cast<std::size_t>(column);
    }
};

}  // namespace headway
