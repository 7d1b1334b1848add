#include <algorithm>

#include "models/scenario/describe.hpp"

namespace headway::inline scenario {
namespace {

constexpr Range kResidual = {0, kLargestResidual};

UnitClass size_unit(Kernel kernel) {
    if (is_byte_rate(kernel)) return UnitClass::bytes;
    return kernel == Kernel::dense_gemm ? UnitClass::flops : UnitClass::none;
}

std::string_view size_meaning(Kernel kernel) {
    switch (kernel) {
        case Kernel::dense_gemm:
            return "FLOPs of the GEMM, ascending";
        case Kernel::grouped_gemm:
        case Kernel::grouped_gemm_gelu:
        case Kernel::grouped_gemm_swiglu:
        case Kernel::fused_expert:
        case Kernel::fused_expert_swiglu:
            return "rows per expert, ascending";
        case Kernel::attention:
            return "sequence lengths, ascending";
        case Kernel::router:
            return "tokens, ascending";
        default:
            return "bytes moved, ascending";
    }
}

std::string_view width_meaning(Kernel kernel) {
    switch (kernel) {
        case Kernel::dense_gemm:
            return "smallest dimension of the GEMM, ascending";
        case Kernel::grouped_gemm:
        case Kernel::grouped_gemm_gelu:
        case Kernel::grouped_gemm_swiglu:
            return "expert width f on the rank, ascending";
        case Kernel::fused_expert:
        case Kernel::fused_expert_swiglu:
        case Kernel::attention:
            return "head width, ascending";
        case Kernel::router:
            return "input width of the router (d; d_h under HP), ascending";
        default:
            return "unused";
    }
}

void describe_rate_curve(Fields& f, RateCurve& curve, Kernel kernel) {
    const bool has_width = !is_byte_rate(kernel);
    if (!has_width && curve.width.empty()) curve.width = {1.0};
    f.numbers("size", curve.size, kPositive, size_meaning(kernel), Presence::required,
              size_unit(kernel));
    f.numbers("width", curve.width, kPositive, width_meaning(kernel),
              has_width ? Presence::required : optional);
    if (is_fused_expert(kernel)) {
        f.numbers("inner", curve.inner, kPositive,
                  "expert width f, ascending; left out: no dependence on it", optional);
    }
    std::vector<std::vector<double>> rows;
    for (std::size_t i = 0; i + curve.size.size() <= curve.rate.size() && !curve.size.empty();
         i += curve.size.size()) {
        rows.emplace_back(curve.rate.begin() + static_cast<std::ptrdiff_t>(i),
                          curve.rate.begin() + static_cast<std::ptrdiff_t>(i + curve.size.size()));
    }
    const UnitClass unit = has_width ? UnitClass::flop_rate : UnitClass::bandwidth;
    const bool present =
        f.matrix("rate", rows, kPositive,
                 "achieved rate, a row per width (per inner, then width), an entry per size",
                 Presence::required, unit);
    if (present) {
        curve.rate.clear();
        for (const std::vector<double>& row : rows) {
            curve.rate.insert(curve.rate.end(), row.begin(), row.end());
        }
    }
    f.number("residual", curve.residual, kResidual,
             "relative standard deviation of measured against fitted", Presence::required,
             UnitClass::percent);
    f.text("source", curve.source, "where the curve comes from");
}

void describe_passes(Fields& f, KernelCurves& curves, Kernel kernel) {
    const auto inner = [kernel](Fields& g, RateCurve& c) { describe_rate_curve(g, c, kernel); };
    const auto one = [&](const char* key, std::vector<RateCurve>& list, const char* meaning) {
        std::optional<RateCurve> curve;
        if (!list.empty()) curve = list.front();
        f.map(key, curve, meaning, inner);
        list.clear();
        if (curve) list.push_back(*curve);
    };
    one("forward", curves.forward, "curve of the forward pass");
    one("backward", curves.backward,
        "curve of the backward pass; left out: the forward curve serves, and the result says so");
}

bool has_curve(const KernelCurves& curves) {
    return !curves.forward.empty() || !curves.backward.empty();
}

// `forward` and `backward` are of bf16 (and fp16), or of every type where bytes are what counts.
void describe_kernel(Fields& f, Profile& profile, Kernel kernel) {
    describe_passes(f, profile.kernel(kernel), kernel);
    if (is_byte_rate(kernel)) return;
    for (const Dtype type :
         {Dtype::fp64, Dtype::fp32, Dtype::fp8, Dtype::fp8_block, Dtype::mxfp8, Dtype::nvfp4}) {
        std::optional<KernelCurves> curves;
        if (has_curve(profile.kernel(kernel, type))) curves = profile.kernel(kernel, type);
        f.map(kDtypeNames[static_cast<std::size_t>(type)], curves, "the same in this type",
              [kernel](Fields& g, KernelCurves& c) { describe_passes(g, c, kernel); });
        if (curves) profile.kernel(kernel, type) = *curves;
    }
}

void describe_kernels(Fields& f, Profile& profile) {
    for (int i = 0; i < kNumKernels; ++i) {
        const auto kernel = static_cast<Kernel>(i);
        bool is_set = false;
        for (int type = 0; type < kNumDtypes; ++type)
            is_set = is_set || has_curve(profile.kernel(kernel, static_cast<Dtype>(type)));
        f.map_if(name(kernel), is_set, profile, "curves of this kernel",
                 [kernel](Fields& g, Profile& p) { describe_kernel(g, p, kernel); });
    }
}

void describe_time_curve(Fields& f, TimeCurve& curve) {
    f.choice("collective", curve.collective, kCollectiveNames, "operation measured");
    f.choice("path", curve.path, kPathClassNames, "the most expensive stretch between its ranks");
    f.integer("num_ranks", curve.num_ranks, {2, 1 << 20}, "ranks of the measurement");
    f.quantity("link", curve.link, {.low = 0, .high = 1e16},
               "nominal link bandwidth per rank and direction of the measured machine: on another "
               "link the time above the floor scales; 0: not known, the time holds on every link",
               optional);
    f.numbers("bytes", curve.bytes, kNotNegative,
              "ascending; all_to_all: bytes a rank sends to others, S (n-1)/n; send_recv: of the "
              "message; all_reduce: 2 S (n-1)/n; all_gather and reduce_scatter: S (n-1)/n",
              Presence::required, UnitClass::bytes);
    f.numbers("time", curve.seconds, kPositive, "one per entry of bytes, never falling",
              Presence::required, UnitClass::seconds);
    f.number("residual", curve.residual, kResidual,
             "relative standard deviation of measured against fitted", Presence::required,
             UnitClass::percent);
    f.number("mean_share", curve.mean_share, {0, 1},
             "weight of the mean rank's bytes beside the busiest's in what is looked up: more than "
             "0 where ranks share a memory or a bus",
             optional);
    f.text("source", curve.source, "where the curve comes from");
}

void describe_extent(Fields& f, std::string_view name, Extent& extent, std::string_view meaning) {
    std::vector<double> ends;
    if (extent.most > 0.0) ends = {extent.least, extent.most};
    f.numbers(name, ends, {0, 1e9}, meaning);
    if (ends.size() == 2) extent = {ends[0], ends[1]};
}

void describe_range(Fields& f, ShapeRange& range) {
    describe_extent(f, "own_tokens", range.own_tokens, "tokens of a rank: least, most");
    describe_extent(f, "hidden", range.hidden, "width of the model");
    describe_extent(f, "experts", range.experts, "of one router");
    describe_extent(f, "top_k", range.top_k, "k");
    describe_extent(f, "width", range.width, "of a travelling row");
    describe_extent(f, "expert_width", range.expert_width, "f");
}

void describe_phase_curve(Fields& f, PhaseCurve& curve) {
    f.choice("layer", curve.layer, kLayerKindNames, "ep_rank: EP deduplicated by rank");
    f.choice("phase", curve.phase, kPhaseNames, "as in the tables");
    f.choice("pass", curve.pass, kPassNames, "forward or backward");
    f.choice("dtype", curve.dtype, kTensorDtypeNames, "type of the model that ran", optional);
    f.integer("width", curve.width, {0, 1 << 20}, "width of a travelling row; 0: any", optional);
    f.integer("min_top_k", curve.min_top_k, {1, 1024}, "smallest k that it holds for", optional);
    f.integer("max_top_k", curve.max_top_k, {1, 1024}, "largest k that it holds for", optional);
    f.integer("multiprocessors", curve.num_multiprocessors, {1, 4096},
              "multiprocessors that each rank had when the phase was measured");
    std::vector<std::string> terms;
    for (const Term t : curve.terms) terms.emplace_back(kTermNames[static_cast<std::size_t>(t)]);
    f.texts("terms", terms, "what the time grows with; docs/reference/model.md defines the terms");
    curve.terms.clear();
    for (const std::string& text : terms) {
        const auto it = std::find(kTermNames.begin(), kTermNames.end(), text);
        curve.terms.push_back(static_cast<Term>(it - kTermNames.begin()));
    }
    f.numbers("time", curve.seconds, kNotNegative, "of one unit of each term", Presence::required,
              UnitClass::seconds);
    f.map("measured", curve.measured,
          "shapes of the layers that were fitted; what is asked outside them is warned about",
          describe_range);
    f.number("residual", curve.residual, kResidual,
             "relative standard deviation of measured against fitted", Presence::required,
             UnitClass::percent);
    f.text("source", curve.source, "where the curve comes from");
}

void describe_provenance(Fields& f, Provenance& provenance) {
    static constexpr std::array kKinds = {std::string_view("public"), std::string_view("measured")};
    int kind = provenance.kind == kKinds[1] ? 1 : 0;
    f.text("device", provenance.device, "compared with the cluster's device name");
    std::optional<FlopRate> peak;
    std::optional<Bandwidth> bandwidth;
    if (provenance.peak_matmul > FlopRate{}) peak = provenance.peak_matmul;
    if (provenance.memory_bandwidth > Bandwidth{}) bandwidth = provenance.memory_bandwidth;
    f.quantity("peak_matmul", peak, {.low = 0, .high = 1e18, .above_low = true},
               "of that device in bf16: on a slower one, rates are scaled down by the ratio");
    f.quantity("memory_bandwidth", bandwidth, {.low = 0, .high = 1e16, .above_low = true},
               "of that device; on a slower one, byte rates are scaled down by the ratio");
    if (peak) provenance.peak_matmul = *peak;
    if (bandwidth) provenance.memory_bandwidth = *bandwidth;
    f.choice("kind", kind, kKinds, "public: built from cited measurements; measured: calibrated");
    provenance.kind = kKinds[static_cast<std::size_t>(kind)];
    f.text("date", provenance.date, "when, as YYYY-MM-DD");
    f.text("commit", provenance.commit, "of headway, that measured", optional);
    f.text("command", provenance.command, "that produced the file", optional);
    f.text("driver", provenance.driver, "driver version", optional);
    f.text("cuda", provenance.cuda, "CUDA version", optional);
    f.text("nccl", provenance.nccl, "NCCL version", optional);
    f.text("clocks", provenance.clocks, "clocks while measuring", optional);
    f.text("note", provenance.note, "anything else a reader should know", optional);
}

// implementation: headway.
void describe_host_calls(Fields& f, PerHostCall<Seconds>& calls, Range time) {
    using enum HostCall;
    const auto describe = [&](const char* key, HostCall call, const char* what) {
        f.quantity(key, calls[call], time, what, optional);
    };
    describe("host_kernel", kernel,
             "that headway's own host takes to enqueue a kernel, a copy or a fill "
             "(implementation: headway); 0: not known, as below");
    describe("host_product", product, "that it takes for a product by cuBLASLt");
    describe("host_attention", attention, "for the core of attention by cuDNN, forward");
    describe("host_attention_backward", attention_backward, "for its backward");
    describe("host_grouped", grouped, "for a product of experts or heads");
    describe("host_all_to_all", all_to_all, "to hand NCCL an all-to-all of equal blocks");
    describe("host_exchange", exchange,
             "to hand it sends and receives, and a rank's own block to a stream beside");
    describe("host_reduction", reduction, "to hand it an all-reduce on a stream of its own");
}

void describe_overheads(Fields& f, Overheads& overheads) {
    constexpr Range time = {.low = 0, .high = 1};
    f.quantity("launch", overheads.launch, time, "one kernel launch that nothing hides");
    f.quantity("host_sync", overheads.host_sync, time,
               "device-to-host round trip that the counts of EP need");
    f.quantity("count_exchange", overheads.count_exchange, time,
               "small all-to-all of counts, without the sync");
    f.quantity("host_launch", overheads.host_launch, time,
               "one operation of an eager framework's host; 0: not known", optional);
    describe_host_calls(f, overheads.host_calls, time);
    f.number("host_residual", overheads.host_residual, kResidual,
             "relative standard deviation of host_launch and of the calls of headway's host",
             optional, UnitClass::percent);
    f.number("overlap_slowdown", overheads.overlap_slowdown, {1, 100},
             "compute runs this much slower while communication overlaps it");
    f.number("overlap_loss", overheads.overlap_loss, {0, 1},
             "share of its speed that a kernel loses beside communication, until it has taken "
             "overlap_slowdown times its own time (default: 1 - 1 / overlap_slowdown)",
             optional, UnitClass::percent);
    f.number("residual", overheads.residual, kResidual, "relative standard deviation of the above",
             Presence::required, UnitClass::percent);
    f.text("source", overheads.source, "where the numbers come from");
}

void describe_host(Fields& f, HostRates& host) {
    f.number("copy", host.copy, {.low = 0, .high = 1, .above_low = true},
             "share of the bandwidth to host memory that copies of pinned memory achieve",
             Presence::required, UnitClass::percent);
    f.number("copy_residual", host.copy_residual, kResidual, "relative standard deviation of it",
             Presence::required, UnitClass::percent);
    f.quantity("adam", host.adam, {.low = 1e6, .high = 1e16},
               "bytes a second that the AdamW of one rank moves in host memory, 28 a parameter");
    f.number("adam_residual", host.adam_residual, kResidual, "relative standard deviation of it",
             Presence::required, UnitClass::percent);
    f.text("source", host.source, "where the numbers come from");
}

}  // namespace

void describe(Fields& f, Profile& profile) {
    f.text("name", profile.name, "name in tables and messages");
    f.map("provenance", profile.provenance, "what was measured, when and how", describe_provenance);
    f.map("kernels", profile, "compute curves; a kernel without a curve cannot be priced",
          describe_kernels);
    f.list("phases", profile.phases,
           "times of whole phases of an MoE layer, in place of the kernel curves",
           describe_phase_curve, optional);
    f.list("communication", profile.communication, "communication curves", describe_time_curve);
    f.map("overheads", profile.overheads, "times that no curve holds", describe_overheads);
    f.map("host", profile.host,
          "what copies to host memory and work there achieve; without it, "
          "plans that offload cannot be priced",
          describe_host);
}

}  // namespace headway::inline scenario
