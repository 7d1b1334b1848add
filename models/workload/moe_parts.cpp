#include "models/workload/moe_parts.hpp"

#include <algorithm>
#include <numeric>
#include <variant>

#include "models/workload/traffic.hpp"
#include "models/workload/worst_group.hpp"

namespace headway::inline workload {
namespace {

// Bytes of one copy of a token in memory.
double copy_bytes(const StepShape& s) {
    return s.layout.width * s.element;
}

ExchangeWork exchange_of(const GroupLoad& load, const ExpertLayout& layout, double element) {
    const double bytes_per_copy = layout.width * element;
    ExchangeWork work{.group_size = layout.ranks(),
                      .element = element,
                      .forwarded = load.forwarded,
                      .stride = layout.lanes()};
    for (std::size_t c = 0; c < work.mean.size(); ++c) {
        work.mean[c] = load.copies_mean[c] * bytes_per_copy * byte;
        work.busiest[c] = load.copies_max[c] * bytes_per_copy * byte;
        work.on_curve[c] = load.copies_on_curve[c] * bytes_per_copy * byte;
        work.forward_on_curve[c] = load.forward_on_curve[c] * bytes_per_copy * byte;
        work.links[c] = load.copies_links[c] * bytes_per_copy * byte;
        work.forward_links[c] = load.forward_links[c] * bytes_per_copy * byte;
        work.forward_mean[c] = load.forward_mean[c] * bytes_per_copy * byte;
        work.forward_busiest[c] = load.forward_max[c] * bytes_per_copy * byte;
    }
    return work;
}

// Between the stages of node-dedup: a row from another node is read and written once for every rank
// that it goes on to; on the way back, those copies are read and their sum is written.
KernelWork forwarder_of(const StepShape& s, bool outward, const GroupLoad& load) {
    const double from_nodes =
        std::accumulate(load.copies_mean.begin(), load.copies_mean.end(), 0.0);
    const double rows = load.copies_forwarded + (outward ? load.copies_forwarded : from_nodes);
    return move(Kernel::gather, rows * copy_bytes(s));
}

}  // namespace

double wire_element(const StepShape& s, bool to_experts, Pass pass) {
    const Precision& precision = s.plan.precision;
    const bool narrow = to_experts && (pass == Pass::forward ? precision.dispatch_forward
                                                             : precision.combine_backward);
    return narrow ? bytes_per_element(precision.linear(s.scenario.model.dtype)) : s.element;
}

KernelWork router(const StepShape& s, Pass pass, double tokens, double width, int routers) {
    const Moe& moe = s.scenario.model.moe;
    const double experts = s.layout.router.num_experts, passes = pass == Pass::forward ? 1.0 : 2.0,
                 element = bytes_per_element(moe.router_dtype);
    // The selection bias is added to the scores; no gradient passes it.
    const double biases = moe.aux_free_bias && pass == Pass::forward ? experts : 0.0;
    return {.kernel = Kernel::router,
            .flops = (passes * 2.0 * tokens * width * experts + tokens * biases) * flop,
            .bytes = (passes * (tokens * width * s.element + routers * width * experts * element +
                                8.0 * tokens * s.layout.router.top_k) +
                      4.0 * routers * biases) *
                     byte,
            .size = tokens,
            .width = width,
            .launches = pass == Pass::forward ? 1 : 2};
}

PhaseWork experts(const StepShape& s, Pass pass, double rows, Kernel kernel) {
    const double width = s.layout.width, inner = s.layout.expert_width, local = experts_on_rank(s);
    const Activation activation = s.scenario.model.moe.activation;
    const double matrices = matrices_per_expert(activation),
                 passes = pass == Pass::forward ? 1.0 : 2.0;
    const double parameters = local * matrices * width * inner, weights = parameters * s.element;
    const bool fused = kernel == Kernel::fused_expert;
    const double hidden = fused ? 0.0 : matrices * rows * inner * s.element;
    KernelWork work{.kernel = kernel,
                    .flops = passes * 2.0 * matrices * rows * width * inner * flop,
                    .bytes = passes * (weights + 2.0 * rows * width * s.element + hidden) * byte,
                    .parameters = pass == Pass::forward ? 0.0 : parameters,
                    .size = std::max(1.0, rows / local),
                    .width = fused ? width : inner,
                    .inner = inner,
                    .launches = fused ? static_cast<int>(passes) : static_cast<int>(2 * passes)};
    // headway's own grouped kernels, of bf16, compute the activation in an epilogue.
    if (fused && is_gated(activation)) work.own_kernel = Kernel::fused_expert_swiglu;
    if (!fused && s.plan.precision.recipe == Recipe::none &&
        s.plan.implementation == Implementation::fused)
        work.own_kernel =
            is_gated(activation) ? Kernel::grouped_gemm_swiglu : Kernel::grouped_gemm_gelu;
    ComputeWork compute;
    compute.add(work);
    if (!fused && !fuses_expert_operators(s.plan)) {
        // Activation: read the pre-activations, write the hidden rows; backward also reads their
        // gradient and writes the pre-activations' one.
        const double row = rows * inner * s.element, pre = is_gated(activation) ? 2.0 : 1.0;
        KernelWork between = move(
            Kernel::streaming, pass == Pass::forward ? (pre + 1.0) * row : (2.0 * pre + 2.0) * row);
        between.own_kernel = work.own_kernel;
        compute.add(between);
    }
    return {Phase::expert, pass, compute};
}

void add_shared_expert(const StepShape& s, Pass pass, std::vector<PhaseWork>& phases) {
    const Moe& moe = s.scenario.model.moe;
    if (moe.num_shared_experts == 0) return;
    const double width = double{1} * moe.num_shared_experts * moe.shared_expert_width;
    const bool gated = is_gated(moe.activation), forward = pass == Pass::forward;
    const int repeat = forward ? 1 : 2;
    const double pre = gated ? 2.0 : 1.0, own = width / s.mesh.tp,
                 row = s.group_tokens * own * s.element;
    add_cut_phase(
        s, pass, s.hidden, phases,
        compute_phase(Phase::shared_expert, pass,
                      {gemm(s.group_tokens, pre * own, s.hidden, s.element, repeat),
                       gemm(s.group_tokens, s.hidden, own, s.element, repeat),
                       move(Kernel::streaming, (forward ? pre + 1.0 : 2.0 * pre + 2.0) * row)}));
}

void add_regroup(const StepShape& s, Phase phase, Pass pass, const MoeRows& rows,
                 std::vector<PhaseWork>& phases) {
    if (!rows.regrouped) return;
    // Without dedup it is a permutation; with it, regroup expands copies to rows and ungroup sums
    // rows into copies.
    const double read_write =
        s.layout.dedup == Dedup::none ? 2.0 * rows.expert : rows.expert + rows.arrived;
    phases.push_back(
        compute_phase(phase, pass, {move(Kernel::gather, read_write * copy_bytes(s))}));
}

KernelWork group_choices(double choices) {
    return move(Kernel::gather, 20.0 * choices, 3);
}

PhaseWork permute_phase(const StepShape& s, Phase phase, Pass pass, double tokens, double copies) {
    // A copy is read and written once; the sum over a token's copies reads them and writes the
    // token, and for the gates' gradient reads the saved copies again.
    double bytes = 2.0 * copies;
    if (phase == Phase::unpermute)
        bytes = pass == Pass::forward ? copies + tokens : 3.0 * copies + tokens;
    if (phase == Phase::permute && pass == Pass::backward) bytes = copies + tokens;
    const KernelWork rows = move(Kernel::gather, bytes * copy_bytes(s));
    if (phase != Phase::permute || pass == Pass::backward)
        return compute_phase(phase, pass, {rows});
    return compute_phase(phase, pass, {group_choices(tokens * s.layout.router.top_k), rows});
}

PhaseWork exchange_phase(const StepShape& s, Phase phase, Pass pass, const GroupLoad& load) {
    // Combine sends what dispatch received: the busiest sender takes the place of the busiest
    // receiver.
    const bool outward = (phase == Phase::dispatch) == (pass == Pass::forward);
    ExchangeWork work = exchange_of(load, s.layout, wire_element(s, outward, pass));
    if (load.forwarded) {
        work.own_share = static_cast<double>(s.scenario.cluster.island_size()) / s.layout.ranks();
        work.forwarder = forwarder_of(s, outward, load);
    }
    return {phase, pass, work};
}

void add_records(const StepShape& s, Pass pass, const GroupLoad& load,
                 std::vector<PhaseWork>& phases) {
    if (s.plan.implementation != Implementation::headway || s.layout.dedup == Dedup::none ||
        !moves_rows(s))
        return;
    const double of_copy = 4.0 * s.layout.router.top_k;
    ExchangeWork work = exchange_of(load, s.layout, of_copy / s.layout.width);
    work.records = {.pass = pass, .num_stages = load.forwarded ? 2 : 1};
    for (int i = 0; i < (pass == Pass::forward ? 2 : 1); ++i)
        phases.push_back({Phase::count_exchange, pass, work});
}

void mark_pipeline(const std::vector<PhaseWork>& phases, Phase first, Phase last,
                   std::vector<PhaseRange>& pipelines) {
    PhaseRange range;
    for (int i = 0; i < static_cast<int>(phases.size()); ++i) {
        if (phases[static_cast<std::size_t>(i)].phase == first) range.begin = i;
        if (phases[static_cast<std::size_t>(i)].phase == last) range.end = i + 1;
    }
    pipelines.push_back(range);
}

ExchangeWork equal_exchange(const Cluster& cluster, int group_size, int stride, Bytes a_peer) {
    ExchangeWork work{.group_size = group_size, .stride = stride, .a_peer = a_peer};
    const PeerCounts peers = exchange_peers(cluster, group_size, stride);
    const LinkLoad load = equal_load(cluster, group_size, stride);
    const PathCounts on_curve = load.on_curve(root_squeeze(cluster, group_size)),
                     links = load.busiest_link();
    for (std::size_t c = 0; c < peers.mean.size(); ++c) {
        work.mean[c] = peers.mean[c] * a_peer;
        work.busiest[c] = peers.worst[c] * a_peer;
        work.on_curve[c] = on_curve[c] * a_peer;
        work.links[c] = links[c] * a_peer;
    }
    return work;
}

double experts_on_rank(const StepShape& s) {
    return static_cast<double>(s.layout.router.num_experts) * s.layout.routers_per_rank /
           s.layout.group_size;
}

bool moves_rows(const StepShape& s) {
    const auto* ep = std::get_if<ExpertParallel>(&s.plan.layer);
    return ep == nullptr || ep->dispatcher != TokenDispatcher::flex;
}

MoeRows moe_rows(const StepShape& s, const GroupLoad& load) {
    const bool one_expert = s.layout.router.num_experts == s.layout.group_size,
               alone = s.layout.ranks() == 1;
    const bool takes_own = alone || s.layout.gathers_tokens;
    return {load.rows_max, load.copies_received, takes_own ? load.rows_max : load.copies_sent,
            !(one_expert && s.layout.dedup == Dedup::none) && !takes_own};
}

}  // namespace headway::inline workload
