// The MoE layer under EP and under HP, forward and backward, on the busiest rank.
#include <algorithm>
#include <numeric>
#include <variant>

#include "models/workload/phases.hpp"
#include "models/workload/traffic.hpp"
#include "models/workload/worst_group.hpp"

namespace headway::inline workload {
namespace {

// Bytes of one copy of a token in memory.
double copy_bytes(const StepShape& s) {
    return s.layout.width * s.element;
}

// Bytes of an element on the wire: the plan's precision may narrow what experts are given, and the
// gradients that they are given.
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

// Experts on `rows` rows: up and down GEMMs; backward has a dgrad and a wgrad for each. `kernel`
// says who does it: grouped GEMMs with an activation kernel between, or the fused HP kernel that
// recomputes its hidden rows in backward.
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

void add_latent(const StepShape& s, Phase phase, Pass pass, std::vector<PhaseWork>& phases) {
    if (s.layout.width == s.scenario.model.hidden) return;
    phases.push_back(compute_phase(
        phase, pass,
        {gemm(s.tokens, s.layout.width, s.hidden, s.element, pass == Pass::forward ? 1 : 2)}));
}

// From arrived copies to expert rows: read a row's copy, write the row.
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

// Sorting the (token, choice) pairs by expert: 4-byte ids and gates read and written, in three
// small kernels.
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

// Between the stages of node-dedup: a row from another node is read and written once for every rank
// that it goes on to; on the way back, those copies are read and their sum is written.
KernelWork forwarder_of(const StepShape& s, bool outward, const GroupLoad& load) {
    const double from_nodes =
        std::accumulate(load.copies_mean.begin(), load.copies_mean.end(), 0.0);
    const double rows = load.copies_forwarded + (outward ? load.copies_forwarded : from_nodes);
    return move(Kernel::gather, rows * copy_bytes(s));
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

// Megatron-LM's allgather: all tokens of the group on all its ranks, with their probabilities and
// the map of their experts, a byte each, of which the probabilities' gradients come back; and the
// sums of what became of them.
PhaseWork token_exchange(const StepShape& s, Phase phase, Pass pass) {
    const bool inputs = phase == Phase::dispatch, gather = inputs == (pass == Pass::forward);
    const double experts = s.layout.router.num_experts,
                 probability = bytes_per_element(s.scenario.model.moe.router_dtype),
                 row = inputs ? s.layout.width * s.element +
                                    experts * (probability + (gather ? 1.0 : 0.0))
                              : s.layout.width * summed_element(s.scenario.model, s.plan);
    return reduce_phase(phase, pass, gather ? Collective::all_gather : Collective::reduce_scatter,
                        {0, s.layout.ranks(), 1}, s.layout.ranks() * s.tokens * row);
}

// Expert tensor parallelism: all ranks of a part get the rows that came to each of them, and each
// the sums of what became of its own.
void exchange_in_part(const StepShape& s, Phase phase, Pass pass, double rows,
                      std::vector<PhaseWork>& phases) {
    if (!s.layout.gathers_rows()) return;
    const bool gather = phase == Phase::etp_all_gather, inputs = gather == (pass == Pass::forward);
    const double element = inputs ? s.element : summed_element(s.scenario.model, s.plan);
    phases.push_back(reduce_phase(phase, pass,
                                  gather ? Collective::all_gather : Collective::reduce_scatter,
                                  s.mesh.etp_group(), rows * s.layout.width * element));
}

// What headway's runtime tells of every copy under dedup: k choices, 4 B each, once their experts
// and once their gates; in backward the gates' gradients travel back.
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

// A rank that owns several heads gets them by source and keeps them by head: a kernel of headway's
// runtime moves all of them, around an exchange of one block a rank.
KernelWork planes_of(const StepShape& s, double element) {
    const int n = s.plan.group_size, heads = std::get<HeadParallel>(s.plan.layer).num_heads;
    if (s.plan.implementation != Implementation::headway || heads <= n) return {};
    return move(Kernel::streaming, 2.0 * s.tokens * heads * s.layout.width * element);
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

// HP's equal all-to-all of sub-tokens.
PhaseWork head_exchange(const StepShape& s, Phase phase, Pass pass) {
    const bool to_experts = (phase == Phase::head_scatter) == (pass == Pass::forward);
    const double element = wire_element(s, to_experts, pass);
    const int n = s.plan.group_size, heads = std::get<HeadParallel>(s.plan.layer).num_heads;
    const double bytes = s.tokens * s.layout.width * element;  // one head of all own tokens
    // N <= H sends H/N heads to every peer; N > H sends one head to each c-th rank.
    ExchangeWork work = equal_exchange(s.scenario.cluster, n, std::max(1, n / heads),
                                       bytes * (n <= heads ? heads / n : 1) * byte);
    work.element = element;
    work.planes = planes_of(s, element);
    return {phase, pass, work};
}

PhaseWork head_gemm(const StepShape& s, Phase phase, Pass pass) {
    const auto& hp = std::get<HeadParallel>(s.plan.layer);
    const double width = double{1} * hp.num_heads * hp.head_width;
    return compute_phase(
        phase, pass, {gemm(s.tokens, width, s.hidden, s.element, pass == Pass::forward ? 1 : 2)});
}

}  // namespace

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

double sub_tokens(const StepShape& s) {
    return s.tokens * std::get<HeadParallel>(s.plan.layer).num_heads;
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

double moe_flops_per_token(const Scenario& scenario, const Plan& plan) {
    const Moe& moe = scenario.model.moe;
    const double d = scenario.model.hidden, matrices = matrices_per_expert(moe.activation);
    double flops = 2.0 * matrices * d * moe.num_shared_experts * moe.shared_expert_width;
    if (const auto* hp = std::get_if<HeadParallel>(&plan.layer)) {
        const double width = double{1} * hp->num_heads * hp->head_width;
        return flops + 2.0 * width * hp->num_experts +
               2.0 * matrices * width * hp->top_k * hp->expert_width;
    }
    const auto& ep = std::get<ExpertParallel>(plan.layer);
    const double width = ep.latent_width.value_or(scenario.model.hidden);
    if (ep.latent_width) flops += 4.0 * d * width;
    return flops + 2.0 * d * moe.num_experts +
           2.0 * matrices * width * moe.top_k * moe.expert_width;
}

namespace {

// Dispatch or combine.
void add_exchange(const StepShape& s, Phase phase, Pass pass, const GroupLoad& load,
                  std::vector<PhaseWork>& phases) {
    if (!s.layout.exchanges()) return;
    phases.push_back(s.layout.gathers_tokens ? token_exchange(s, phase, pass)
                                             : exchange_phase(s, phase, pass, load));
}

// Permute or unpermute: of own tokens, outside of the exchanges, or of all that came, inside.
void add_row_move(const StepShape& s, Phase phase, Pass pass, const MoeRows& rows, bool inside,
                  std::vector<PhaseWork>& phases) {
    if (!moves_rows(s) || inside != s.layout.gathers_tokens) return;
    const double tokens = inside ? s.layout.ranks() * s.tokens : s.tokens;
    phases.push_back(permute_phase(s, phase, pass, tokens, rows.sent));
}

// Behind gathered tokens every rank counts the rows of its experts itself.
void add_counts(const StepShape& s, Pass pass, const GroupLoad& load, bool inside,
                std::vector<PhaseWork>& phases) {
    if (s.layout.ranks() == 1 || inside != s.layout.gathers_tokens) return;
    const bool hidden = std::get<ExpertParallel>(s.plan.layer).hide_count_exchange;
    phases.push_back({Phase::count_exchange, pass,
                      CountExchangeWork{.group_size = s.layout.ranks(),
                                        .hidden = hidden || inside,
                                        .num_stages = load.forwarded ? 2 : 1}});
    if (!hidden) add_records(s, pass, load, phases);
}

}  // namespace

void add_ep_forward(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    std::vector<PhaseWork>& p = layer.forward;
    const Pass pass = Pass::forward;
    const MoeRows rows = moe_rows(s, load);
    add_shared_expert(s, pass, p);
    p.push_back(compute_phase(Phase::route, pass, {router(s, pass, s.tokens, s.hidden, 1)}));
    add_latent(s, Phase::latent_down, pass, p);
    add_row_move(s, Phase::permute, pass, rows, false, p);
    add_counts(s, pass, load, false, p);
    add_exchange(s, Phase::dispatch, pass, load, p);
    add_counts(s, pass, load, true, p);
    add_row_move(s, Phase::permute, pass, rows, true, p);
    exchange_in_part(s, Phase::etp_all_gather, pass, rows.expert, p);
    add_regroup(s, Phase::regroup, pass, rows, p);
    p.push_back(experts(s, pass, rows.expert, Kernel::grouped_gemm));
    add_regroup(s, Phase::ungroup, pass, rows, p);
    exchange_in_part(s, Phase::etp_reduce_scatter, pass, rows.expert, p);
    add_row_move(s, Phase::unpermute, pass, rows, true, p);
    add_exchange(s, Phase::combine, pass, load, p);
    add_row_move(s, Phase::unpermute, pass, rows, false, p);
    add_latent(s, Phase::latent_up, pass, p);
    if (s.layout.exchanges())
        mark_pipeline(p, Phase::dispatch, Phase::combine, layer.forward_pipelines);
    set_phase_shapes(s, load, p);
}

void add_ep_backward(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    std::vector<PhaseWork>& p = layer.backward;
    const Pass pass = Pass::backward;
    const MoeRows rows = moe_rows(s, load);
    add_latent(s, Phase::latent_up, pass, p);
    add_row_move(s, Phase::unpermute, pass, rows, false, p);
    add_exchange(s, Phase::combine, pass, load, p);
    add_row_move(s, Phase::unpermute, pass, rows, true, p);
    exchange_in_part(s, Phase::etp_all_gather, pass, rows.expert, p);
    add_regroup(s, Phase::ungroup, pass, rows, p);
    p.push_back(experts(s, pass, rows.expert, Kernel::grouped_gemm));
    add_regroup(s, Phase::regroup, pass, rows, p);
    exchange_in_part(s, Phase::etp_reduce_scatter, pass, rows.expert, p);
    add_row_move(s, Phase::permute, pass, rows, true, p);
    add_exchange(s, Phase::dispatch, pass, load, p);
    if (s.layout.exchanges() && !std::get<ExpertParallel>(s.plan.layer).hide_count_exchange)
        add_records(s, pass, load, p);
    add_row_move(s, Phase::permute, pass, rows, false, p);
    add_latent(s, Phase::latent_down, pass, p);
    p.push_back(compute_phase(Phase::route, pass, {router(s, pass, s.tokens, s.hidden, 1)}));
    add_shared_expert(s, pass, p);
    if (s.layout.exchanges())
        mark_pipeline(p, Phase::combine, Phase::dispatch, layer.backward_pipelines);
    set_phase_shapes(s, load, p);
}

void add_hp_forward(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    std::vector<PhaseWork>& p = layer.forward;
    const Pass pass = Pass::forward;
    const bool split = s.layout.group_size > 1, alone = s.plan.group_size == 1;
    const MoeRows rows = moe_rows(s, load);
    add_shared_expert(s, pass, p);
    p.push_back(head_gemm(s, Phase::head_project, pass));
    if (!alone) p.push_back(head_exchange(s, Phase::head_scatter, pass));
    p.push_back(
        compute_phase(Phase::route, pass,
                      {router(s, pass, sub_tokens(s), s.layout.width, s.layout.routers_per_rank)}));
    if (split) {
        p.push_back(permute_phase(s, Phase::permute, pass, sub_tokens(s), rows.sent));
        p.push_back({Phase::count_exchange, pass, CountExchangeWork{s.layout.group_size, false}});
        add_records(s, pass, load, p);
        p.push_back(exchange_phase(s, Phase::dispatch, pass, load));
        add_regroup(s, Phase::regroup, pass, rows, p);
    } else {
        // The fused kernel gathers the sub-tokens itself, so no copy is made when they stay on the
        // rank.
        p.push_back(compute_phase(Phase::permute, pass, {group_choices(rows.expert)}));
    }
    p.push_back(experts(s, pass, rows.expert, Kernel::fused_expert));
    if (split) {
        add_regroup(s, Phase::ungroup, pass, rows, p);
        p.push_back(exchange_phase(s, Phase::combine, pass, load));
    }
    p.push_back(permute_phase(s, Phase::unpermute, pass, sub_tokens(s), rows.sent));
    if (!alone) p.push_back(head_exchange(s, Phase::head_gather, pass));
    p.push_back(head_gemm(s, Phase::head_merge, pass));
    if (!alone && !split)
        mark_pipeline(p, Phase::head_scatter, Phase::head_gather, layer.forward_pipelines);
    set_phase_shapes(s, load, p);
}

void add_hp_backward(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    std::vector<PhaseWork>& p = layer.backward;
    const Pass pass = Pass::backward;
    const bool split = s.layout.group_size > 1, alone = s.plan.group_size == 1;
    const MoeRows rows = moe_rows(s, load);
    p.push_back(head_gemm(s, Phase::head_merge, pass));
    if (!alone) p.push_back(head_exchange(s, Phase::head_gather, pass));
    // The fused backward reads the output's gradient by row itself; only HP x EP lays copies of it
    // out.
    if (split) p.push_back(permute_phase(s, Phase::unpermute, pass, sub_tokens(s), rows.sent));
    if (split) {
        p.push_back(exchange_phase(s, Phase::combine, pass, load));
        add_regroup(s, Phase::ungroup, pass, rows, p);
    }
    p.push_back(experts(s, pass, rows.expert, Kernel::fused_expert));
    if (split) {
        add_regroup(s, Phase::regroup, pass, rows, p);
        p.push_back(exchange_phase(s, Phase::dispatch, pass, load));
        add_records(s, pass, load, p);
    }
    p.push_back(permute_phase(s, Phase::permute, pass, sub_tokens(s), rows.sent));
    p.push_back(
        compute_phase(Phase::route, pass,
                      {router(s, pass, sub_tokens(s), s.layout.width, s.layout.routers_per_rank)}));
    if (!alone) p.push_back(head_exchange(s, Phase::head_scatter, pass));
    p.push_back(head_gemm(s, Phase::head_project, pass));
    add_shared_expert(s, pass, p);
    if (!alone && !split)
        mark_pipeline(p, Phase::head_gather, Phase::head_scatter, layer.backward_pipelines);
    set_phase_shapes(s, load, p);
}

}  // namespace headway::inline workload
