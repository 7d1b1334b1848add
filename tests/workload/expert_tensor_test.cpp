// Expert tensor parallelism, solved by hand. t tensor-parallel ranks, N parts of experts, e ranks
// of a part, each with f/e of its experts; T tokens of a tensor-parallel group, T/t of a rank; d
// hidden, b bytes an element, k experts a token, E experts.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "models/workload/drawn_group.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/parameters.hpp"
#include "models/workload/traffic.hpp"
#include "models/workload/workload.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

constexpr double kTokens = 4096, kHidden = 1024, kBytes = 2, kTop = 4, kExperts = 64, kWidth = 512;

Plan plan_of(int t, int n, int e, Dedup dedup = Dedup::none) {
    Plan plan = toy::ep(dedup, n);
    plan.parallel = {.tensor_model_parallel_size = t,
                     .sequence_parallel = t > 1,
                     .expert_tensor_parallel_size = e};
    return plan;
}

LayerWork layer_of(const Scenario& s, const Plan& plan) {
    return build_moe_layer(s, plan, expected_load(s, plan, 0), 0);
}

std::vector<std::string> names(const std::vector<PhaseWork>& phases, Phase from, Phase to) {
    std::vector<std::string> result;
    bool inside = false;
    for (const PhaseWork& phase : phases) {
        inside = inside || phase.phase == from;
        if (inside) result.emplace_back(name(phase.phase));
        if (phase.phase == to) break;
    }
    return result;
}

// Into what outlives it: not of a temporary.
const PhaseWork& phase_of(std::vector<PhaseWork>&& phases, Phase phase) = delete;
const PhaseWork& phase_of(const std::vector<PhaseWork>& phases, Phase phase) {
    return *std::ranges::find(phases, phase, &PhaseWork::phase);
}
const ReduceWork& reduction(const std::vector<PhaseWork>& phases, Phase phase) {
    return std::get<ReduceWork>(phase_of(phases, phase).work);
}
const ExchangeWork& exchange(const std::vector<PhaseWork>& phases, Phase phase) {
    return std::get<ExchangeWork>(phase_of(phases, phase).work);
}
double at(const PathBytes& bytes, PathClass path) {
    return bytes[static_cast<std::size_t>(path)].in(byte);
}

// Forward: rows that came by the all-to-all are gathered over the e ranks of a part; what becomes
// of them is summed and scattered before the all-to-all back. Backward mirrors it.
TEST(ExpertTensor, RowsAreGatheredBehindTheExchangeAndSummedBeforeItsWayBack) {
    const LayerWork layer = layer_of(toy::scenario(), plan_of(2, 4, 2));
    EXPECT_EQ(names(layer.forward, Phase::dispatch, Phase::combine),
              (std::vector<std::string>{"dispatch", "etp_all_gather", "regroup", "expert",
                                        "ungroup", "etp_reduce_scatter", "combine"}));
    EXPECT_EQ(names(layer.backward, Phase::combine, Phase::dispatch),
              (std::vector<std::string>{"combine", "etp_all_gather", "ungroup", "expert", "regroup",
                                        "etp_reduce_scatter", "dispatch"}));
}

// All-to-all: T/t k copies of d b, a part (N-1)/N of them off the rank, among every e-th rank.
// R = e (T/t) k rows of a part; gathered and scattered buffers R d b.
TEST(ExpertTensor, BytesOfItsExchanges) {
    for (const auto& [t, n, e] :
         {std::array{2, 4, 2}, {2, 2, 2}, {4, 2, 4}, {1, 4, 2}, {4, 4, 2}}) {
        const LayerWork layer = layer_of(toy::scenario(), plan_of(t, n, e));
        const double rows = e * kTokens / t * kTop;
        for (const auto* phases : {&layer.forward, &layer.backward}) {
            const ExchangeWork& dispatch = exchange(*phases, Phase::dispatch);
            EXPECT_EQ(dispatch.group_size, n * e);
            EXPECT_EQ(dispatch.stride, e);
            const double sent = kTokens / t * kTop * kHidden * kBytes * (n - 1) / n;
            for (const PathBytes* bytes :
                 {&dispatch.mean, &dispatch.busiest, &dispatch.on_curve, &dispatch.links})
                EXPECT_NEAR(at(*bytes, PathClass::nvlink), sent, 1e-9 * sent);
            const ReduceWork& gather = reduction(*phases, Phase::etp_all_gather);
            EXPECT_EQ(gather.collective, Collective::all_gather);
            EXPECT_EQ(gather.group_size, e);
            EXPECT_EQ(gather.stride, 1);
            EXPECT_NEAR(gather.bytes.in(byte), rows * kHidden * kBytes, 1e-6);
            const ReduceWork& scatter = reduction(*phases, Phase::etp_reduce_scatter);
            EXPECT_EQ(scatter.collective, Collective::reduce_scatter);
            EXPECT_NEAR(scatter.bytes.in(byte), rows * kHidden * kBytes, 1e-6);
        }
    }
}

// Megatron-LM sums results in the type of the router's probabilities and casts them then; the
// gradients of results come back in it.
TEST(ExpertTensor, MegatronSumsInTheRoutersType) {
    Plan plan = plan_of(2, 4, 2);
    plan.implementation = Implementation::megatron;
    Scenario s = toy::scenario();
    const double rows = 2 * kTokens / 2 * kTop * kHidden;
    for (const auto& [type, bytes] : {std::pair{Dtype::fp32, 4.0}, {Dtype::bf16, 2.0}}) {
        s.model.moe.router_dtype = type;
        const LayerWork layer = layer_of(s, plan);
        const auto of = [&](const std::vector<PhaseWork>& phases, Phase phase) {
            return reduction(phases, phase).bytes.in(byte) / rows;
        };
        EXPECT_NEAR(of(layer.forward, Phase::etp_all_gather), kBytes, 1e-9);
        EXPECT_NEAR(of(layer.forward, Phase::etp_reduce_scatter), bytes, 1e-9);
        EXPECT_NEAR(of(layer.backward, Phase::etp_all_gather), bytes, 1e-9);
        EXPECT_NEAR(of(layer.backward, Phase::etp_reduce_scatter), kBytes, 1e-9);
    }
}

// FLOPs of a rank 2 m R d f/e do not depend on e; products are of R N/E rows an expert, f/e wide.
TEST(ExpertTensor, ProductsAreTallerAndThinner) {
    double whole = 0.0;
    for (const int e : {1, 2, 4}) {
        const LayerWork layer = layer_of(toy::scenario(), plan_of(4, 2, e));
        const KernelWork& product =
            std::get<ComputeWork>(phase_of(layer.forward, Phase::expert).work).kernels[0];
        if (e == 1) whole = product.flops.in(flop);
        EXPECT_NEAR(product.flops.in(flop), whole, 1e-9 * whole);
        EXPECT_NEAR(product.size, e * kTokens / 4 * kTop / (kExperts / 2), 1e-9);
        EXPECT_DOUBLE_EQ(product.inner, kWidth / e);
    }
}

// Alone in its part (N 1) a rank has no all-to-all: its own rows are gathered.
TEST(ExpertTensor, OnePartGathersWithoutAnExchange) {
    const LayerWork layer = layer_of(toy::scenario(), plan_of(2, 1, 2));
    EXPECT_EQ(names(layer.forward, Phase::permute, Phase::unpermute),
              (std::vector<std::string>{"permute", "count_exchange", "etp_all_gather", "regroup",
                                        "expert", "ungroup", "etp_reduce_scatter", "unpermute"}));
    EXPECT_NEAR(reduction(layer.forward, Phase::etp_all_gather).bytes.in(byte),
                2 * kTokens / 2 * kTop * kHidden * kBytes, 1e-6);
}

// A copy a rank or node goes to all e ranks of a part (Megatron's flex repeats the routing map):
// nothing is gathered; q = D_N / N of a token's copies go to each of the N e ranks.
TEST(ExpertTensor, DeduplicatedCopiesGoToEveryRankOfAPart) {
    Scenario s = toy::scenario();
    const Plan plan = plan_of(2, 4, 2, Dedup::rank);
    const LayerWork layer = layer_of(s, plan);
    EXPECT_EQ(std::ranges::count(layer.forward, Phase::etp_all_gather, &PhaseWork::phase), 0);
    double missed = 1.0;  // 16 of 64 experts are a part's
    for (int i = 0; i < 4; ++i) missed *= (48.0 - i) / (64.0 - i);
    const double sent = kTokens / 2 * (4 * 2 - 1) * (1 - missed) * kHidden * kBytes;
    const ExchangeWork& dispatch = exchange(layer.forward, Phase::dispatch);
    EXPECT_EQ(dispatch.stride, 1);
    EXPECT_NEAR(at(dispatch.mean, PathClass::nvlink), sent, 1e-9 * sent);
    const GroupLoad load = expected_load(s, plan, 0);
    EXPECT_NEAR(load.rows_max, 2 * kTokens / 2 * kTop, 1e-9);
    EXPECT_NEAR(load.copies_sent, kTokens / 2 * 8 * (1 - missed), 1e-6);
}

// Two nodes of 4: copies cross once for each node and are spread there over all its ranks.
TEST(ExpertTensor, NodeDeduplicationSpreadsCopiesOverThePartsOfANode) {
    Scenario s = toy::scenario(2, 4);
    const Plan plan = plan_of(2, 4, 2, Dedup::node);
    const GroupLoad load = expected_load(s, plan, 0);
    double no_node = 1.0, no_part = 1.0;
    for (int i = 0; i < 4; ++i) {
        no_node *= (32.0 - i) / (64.0 - i);
        no_part *= (48.0 - i) / (64.0 - i);
    }
    const auto nic = static_cast<std::size_t>(PathClass::nic),
               nvlink = static_cast<std::size_t>(PathClass::nvlink);
    EXPECT_TRUE(load.forwarded);
    EXPECT_NEAR(load.copies_mean[nic], kTokens / 2 * (1 - no_node), 1e-6);
    // Each rank gets copies of 8 sources, of which 2, itself and its equal on the other node, are
    // sent on by itself.
    EXPECT_NEAR(load.forward_mean[nvlink], kTokens / 2 * (8 - 2) * (1 - no_part), 1e-6);
}

// Lanes cross nodes: of the N - 1 peers of a rank on 2 nodes of 4 with e 2, one is on its node.
TEST(ExpertTensor, LanesLieOnRealPaths) {
    const LayerWork layer = layer_of(toy::scenario(2, 4), plan_of(2, 4, 2));
    const ExchangeWork& dispatch = exchange(layer.forward, Phase::dispatch);
    const double to_each = kTokens / 2 * kTop / 4 * kHidden * kBytes;
    EXPECT_NEAR(at(dispatch.mean, PathClass::nvlink), 1 * to_each, 1e-6);
    EXPECT_NEAR(at(dispatch.mean, PathClass::nic), 2 * to_each, 1e-6);
    EXPECT_NEAR(at(dispatch.links, PathClass::nic), 2 * to_each, 1e-6);
}

// Megatron's allgather, for any e: T/t tokens of N e ranks with d b and, an expert, a byte of the
// map and r of its probability; results of d b (of r under Megatron) summed and scattered. Rows are
// made from and summed into all tokens, between the two.
TEST(ExpertTensor, TokensGoToAllRanks) {
    for (const auto& [n, e] : {std::array{4, 2}, {8, 1}, {1, 2}}) {
        for (const Implementation who : {Implementation::fused, Implementation::megatron}) {
            Plan plan = plan_of(2, n, e);
            plan.layer = ExpertParallel{.dispatcher = TokenDispatcher::allgather};
            plan.implementation = who;
            const LayerWork layer = layer_of(toy::scenario(), plan);
            EXPECT_EQ(names(layer.forward, Phase::route, Phase::combine),
                      (std::vector<std::string>{"route", "dispatch", "count_exchange", "permute",
                                                "expert", "unpermute", "combine"}));
            EXPECT_EQ(names(layer.backward, Phase::combine, Phase::route),
                      (std::vector<std::string>{"combine", "unpermute", "expert", "permute",
                                                "dispatch", "route"}));
            const double r = 4, tokens = n * e * kTokens / 2,
                         sum = who == Implementation::megatron ? r : kBytes;
            for (const auto& [phases, dispatched] :
                 {std::pair{&layer.forward, kHidden * kBytes + kExperts * (1 + r)},
                  {&layer.backward, kHidden * kBytes + kExperts * r}}) {
                const ReduceWork &dispatch = reduction(*phases, Phase::dispatch),
                                 &combine = reduction(*phases, Phase::combine);
                const bool forward = phases == &layer.forward;
                EXPECT_EQ(dispatch.collective,
                          forward ? Collective::all_gather : Collective::reduce_scatter);
                EXPECT_EQ(combine.collective,
                          forward ? Collective::reduce_scatter : Collective::all_gather);
                EXPECT_EQ(dispatch.group_size, n * e);
                EXPECT_NEAR(dispatch.bytes.in(byte), tokens * dispatched, 1e-6);
                EXPECT_NEAR(combine.bytes.in(byte), tokens * kHidden * sum, 1e-6);
            }
            const double rows = e * kTokens / 2 * kTop;
            const auto moved = [&](Phase phase) {
                const auto& work = std::get<ComputeWork>(phase_of(layer.forward, phase).work);
                return work.kernels[static_cast<std::size_t>(work.num_kernels - 1)].bytes.in(byte);
            };
            EXPECT_NEAR(moved(Phase::permute), 2 * rows * kHidden * kBytes, 1e-6);
            EXPECT_NEAR(moved(Phase::unpermute), (rows + tokens) * kHidden * kBytes, 1e-6);
        }
    }
}

// Experts of a rank: E/N of them, m d f/e each, reduced over EDP = W/(e N p) ranks e N apart.
TEST(ExpertTensor, ParametersAndTheirReductions) {
    Scenario s = toy::scenario(2, 8);
    Plan plan = plan_of(2, 2, 2);
    plan.overlap_grad_all_reduce = false;
    const double experts = kExperts / 2 * 2 * kHidden * kWidth / 2;
    EXPECT_DOUBLE_EQ(layer_parameters(s.model, plan, 0).experts, experts);
    const Workload w = build_workload(s, plan);
    const ReduceWork& reduce = reduction(w.update, Phase::expert_grad_all_reduce);
    EXPECT_EQ(reduce.group_size, 16 / (2 * 2));
    EXPECT_EQ(reduce.stride, 4);
    EXPECT_NEAR(reduce.bytes.in(byte), 2 * experts * 4, 1e-6);
}

// Sources 0..3 of parts {0, 1} and {2, 3}; experts 0, 1 are the first part's. Source 1 sends part 1
// to rank 3, its place there; one copy a rank goes to both.
TEST(ExpertTensor, CopiesOfKnownTokens) {
    const std::vector<Assignment> tokens = {{.num_tokens = 1, .top_k = 2, .expert = {0, 2}},
                                            {.num_tokens = 1, .top_k = 2, .expert = {2, 3}},
                                            {.num_tokens = 1, .top_k = 2, .expert = {0, 1}},
                                            {.num_tokens = 1, .top_k = 2, .expert = {1, 3}}};
    EXPECT_EQ(dispatch_copies(tokens, 4, Dedup::none, 2).bytes,
              (std::vector<std::int64_t>{1, 0, 1, 0,  //
                                         0, 0, 0, 2,  //
                                         2, 0, 0, 0,  //
                                         0, 1, 0, 1}));
    EXPECT_EQ(dispatch_copies(tokens, 4, Dedup::rank, 2).bytes,
              (std::vector<std::int64_t>{1, 1, 1, 1,  //
                                         0, 0, 1, 1,  //
                                         1, 1, 0, 0,  //
                                         1, 1, 1, 1}));
    EXPECT_EQ(rows_per_rank(tokens, 4, 2), (std::vector<std::int64_t>{4, 4, 4, 4}));
    const NodeCopies staged = node_dispatch_copies(tokens, 4, 2, 2);
    EXPECT_EQ(staged.over_nic.bytes, (std::vector<std::int64_t>{0, 0, 1, 0,  //
                                                                0, 0, 0, 1,  //
                                                                1, 0, 0, 0,  //
                                                                0, 1, 0, 0}));
    EXPECT_EQ(staged.inside.bytes, (std::vector<std::int64_t>{2, 2, 0, 0,  //
                                                              1, 1, 0, 0,  //
                                                              0, 0, 1, 1,  //
                                                              0, 0, 2, 2}));
}

// Every copy stays in its lane, every token's k choices are some rank's rows, and the rows of a
// part are what came to its ranks.
TEST(ExpertTensor, DrawsKeepLanesApartAndRowsTogether) {
    Scenario s = toy::scenario();
    s.routing = {.noise = true, .skew = Skew::zipf, .parameter = 0.8, .seed = 3};
    const Plan plan = plan_of(2, 4, 2);
    for (const Drawing how : {Drawing::by_token, Drawing::by_count}) {
        const DrawnGroup drawn = draw_group(s, plan, 0, 0, 0, how);
        ASSERT_EQ(drawn.copies.num_ranks, 8);
        for (int from = 0; from < 8; ++from) {
            std::int64_t sent = 0;
            for (int to = 0; to < 8; ++to) {
                if (to % 2 != from % 2) {
                    EXPECT_EQ(drawn.copies.at(from, to), 0);
                }
                sent += drawn.copies.at(from, to);
            }
            EXPECT_EQ(sent, static_cast<std::int64_t>(kTokens / 2 * kTop));
        }
        for (int part = 0; part < 4; ++part) {
            std::int64_t arrived = 0;
            for (int to = 2 * part; to < 2 * part + 2; ++to)
                arrived += drawn.copies.received(to) + drawn.copies.at(to, to);
            EXPECT_EQ(drawn.rows[static_cast<std::size_t>(2 * part)], arrived);
            EXPECT_EQ(drawn.rows[static_cast<std::size_t>(2 * part + 1)], arrived);
        }
    }
}

// Under skew the busiest rank is one of N parts, whose rows are of N e sources.
TEST(ExpertTensor, SampledLoadsAreNearTheExpectedOnes) {
    for (const SkewScope scope : {SkewScope::global, SkewScope::per_source}) {
        for (const Dedup dedup : {Dedup::none, Dedup::rank, Dedup::node}) {
            Scenario s = toy::scenario(2, 4);
            s.routing = {
                .noise = true, .skew = Skew::zipf, .parameter = 0.7, .scope = scope, .seed = 1};
            const Plan plan = plan_of(2, 4, 2, dedup);
            const GroupLoad expected = expected_load(s, plan, 0);
            constexpr int kSamples = 12;
            double rows = 0, received = 0, sent = 0, nic = 0;
            const auto path = static_cast<std::size_t>(PathClass::nic);
            for (int i = 0; i < kSamples; ++i) {
                const GroupLoad sample = sampled_load(s, plan, 0, i);
                rows += sample.rows_max / kSamples;
                received += sample.copies_received / kSamples;
                sent += sample.copies_sent / kSamples;
                nic += sample.copies_links[path] / kSamples;
            }
            const auto label = std::string(kDedupNames[static_cast<std::size_t>(dedup)]);
            EXPECT_NEAR(rows / expected.rows_max, 1.0, 0.02) << label;
            EXPECT_NEAR(received / expected.copies_received, 1.0, 0.03) << label;
            EXPECT_NEAR(sent / expected.copies_sent, 1.0, 0.02) << label;
            EXPECT_NEAR(nic / expected.copies_links[path], 1.0, 0.03) << label;
        }
    }
}

}  // namespace
}  // namespace headway
