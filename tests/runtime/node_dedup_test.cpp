// Node-dedup: a token goes once to every other node that it needs and is sent on there. The layer
// against the dense evaluation, naive EP and rank-dedup; its bytes against the Workload's.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "models/workload/traffic.hpp"
#include "tests/runtime/dense_layer.hpp"
#include "tests/runtime/forced_routing.hpp"

namespace headway::runtime {
namespace {

// nodes x ranks: 2 x 2, 2 x 3, 4 x 2, 3 x 1, 1 x 4; uneven tokens, idle ranks, k = 1 and k = E,
// one expert a rank, a latent width.
std::vector<LayerCase> node_cases() {
    std::vector<LayerCase> cases = {
        {.num_experts = 8, .top_k = 3, .tokens = {9, 2, 4, 7}, .ranks_per_node = 2},
        {.num_experts = 8, .top_k = 1, .tokens = {5, 0, 3, 6}, .ranks_per_node = 2},
        {.num_experts = 8, .top_k = 8, .tokens = {2, 5, 0, 1}, .ranks_per_node = 2},
        {.num_experts = 4, .top_k = 2, .tokens = {4, 0, 7, 1}, .ranks_per_node = 2},
        {.num_experts = 12, .top_k = 4, .tokens = {7, 0, 3, 12, 1, 5}, .ranks_per_node = 3},
        {.num_experts = 16, .top_k = 5, .tokens = {3, 8, 0, 4, 6, 1, 2, 9}, .ranks_per_node = 2},
        {.num_experts = 6, .top_k = 2, .tokens = {5, 3, 8}, .ranks_per_node = 1},
        {.num_experts = 8, .top_k = 3, .tokens = {4, 2, 6, 0}, .ranks_per_node = 4},
        {.num_experts = 8,
         .activation = Activation::swiglu,
         .tokens = {3, 5, 2, 4},
         .latent_width = 3,
         .shared_width = 4,
         .ranks_per_node = 2},
        {.num_experts = 4, .tokens = {0, 0, 0, 0}, .ranks_per_node = 2}};
    for (LayerCase& c : cases) c.dedup = Dedup::node;
    return cases;
}

LayerCase with(LayerCase c, Dedup dedup) {
    c.dedup = dedup;
    return c;
}

double difference(const Matrix<double>& a, const Matrix<double>& b) {
    EXPECT_EQ(a.rows(), b.rows());
    EXPECT_EQ(a.cols(), b.cols());
    return a.size() == 0 ? 0.0 : (a - b).cwiseAbs().maxCoeff();
}

// y = sum over all experts of mask * gate * FFN.
TEST(NodeDedup, EqualsTheDenseEvaluation) {
    for (const LayerCase& c : node_cases()) {
        const auto weights = make_ep_weights<double>(c.dims(), c.ep(), 1, 0, kSeed);
        const auto y = dense::ep(c.activation, c.top_k, weights, all_tokens<double>(c));
        EXPECT_LT(difference(stacked(run_ep<double>(c).y), y), 1e-12);
    }
}

// The ways to travel differ in nothing but what travels: y, dx and the gradient of every weight,
// which for naive EP are compared with the slopes of the loss in layers_test.cpp.
TEST(NodeDedup, EqualsTheOtherWaysForwardAndBackward) {
    for (const LayerCase& c : node_cases()) {
        const auto node = run_ep<double>(c);
        for (const Dedup dedup : {Dedup::none, Dedup::rank}) {
            const auto other = run_ep<double>(with(c, dedup));
            EXPECT_LT(difference(stacked(node.y), stacked(other.y)), 1e-12);
            EXPECT_LT(difference(stacked(node.dx), stacked(other.dx)), 1e-12);
            for (std::size_t r = 0; r < c.tokens.size(); ++r) {
                const auto &a = node.gradients[r], &b = other.gradients[r];
                EXPECT_LT(difference(a.router.weight, b.router.weight), 1e-12);
                EXPECT_LT(difference(a.latent_up, b.latent_up), 1e-12);
                for (std::size_t e = 0; e < a.experts.size(); ++e) {
                    EXPECT_LT(difference(a.experts[e].up, b.experts[e].up), 1e-12);
                    EXPECT_LT(difference(a.experts[e].gate, b.experts[e].gate), 1e-12);
                    EXPECT_LT(difference(a.experts[e].down, b.experts[e].down), 1e-12);
                }
            }
        }
    }
}

TrafficMatrix both(const TrafficMatrix& a, const TrafficMatrix& b) {
    TrafficMatrix result = a;
    for (std::size_t i = 0; i < result.bytes.size(); ++i) result.bytes[i] += b.bytes[i];
    return result;
}

// Both stages together: what the Workload counts over the NICs and inside the nodes.
TrafficMatrix expected_bytes(const std::vector<Assignment>& assignments, const LayerCase& c,
                             std::int64_t row_bytes) {
    const NodeCopies copies = node_dispatch_copies(assignments, c.num_experts, c.ranks_per_node);
    return scaled(both(copies.over_nic, copies.inside), row_bytes);
}

template <class Run>
void expect_traffic(const Run& run, const TrafficMatrix& expected) {
    const auto of = [&](Phase phase, Pass pass) { return run.traffic.at({phase, pass}); };
    EXPECT_EQ(of(Phase::dispatch, Pass::forward), expected);
    EXPECT_EQ(of(Phase::combine, Pass::forward), expected.transposed());
    EXPECT_EQ(of(Phase::combine, Pass::backward), expected);
    EXPECT_EQ(of(Phase::dispatch, Pass::backward), expected.transposed());
}

// Uniform routing, few hot experts, and a different few for every source.
TEST(NodeDedup, TrafficEqualsTheWorkloadsForEveryRouting) {
    for (const LayerCase& c : node_cases()) {
        for (const std::uint64_t seed : {1U, 2U}) {
            for (const Routing& routing : routings(seed)) {
                const auto assignments = draw(routing, c);
                const std::int64_t width = c.latent_width > 0 ? c.latent_width : c.hidden;
                expect_traffic(run_ep<float>(c, experts_of(assignments)),
                               expected_bytes(assignments, c, width * 4));
            }
        }
    }
}

// A dropped choice needs no copy. What is left of a token, written with the same experts again in
// place of the dropped ones, is an assignment with the copies that must travel; a token of which
// nothing is left is in none.
std::vector<Assignment> kept(const std::vector<Assignment>& assignments, const LayerCase& c) {
    std::vector<Assignment> result;
    for (const Assignment& a : assignments) {
        const auto limit = static_cast<std::int64_t>(std::ceil(
            *c.capacity_factor * static_cast<double>(a.num_tokens * a.top_k) / c.num_experts));
        std::vector<std::int64_t> rows(static_cast<std::size_t>(c.num_experts), 0);
        Assignment left{.top_k = a.top_k};
        for (std::int64_t t = 0; t < a.num_tokens; ++t) {
            std::vector<std::int32_t> experts;
            for (int j = 0; j < a.top_k; ++j) {
                const std::int32_t e = a.expert[static_cast<std::size_t>(t * a.top_k + j)];
                if (rows[static_cast<std::size_t>(e)]++ < limit) experts.push_back(e);
            }
            if (experts.empty()) continue;
            experts.resize(static_cast<std::size_t>(a.top_k), experts.front());
            left.expert.insert(left.expert.end(), experts.begin(), experts.end());
            ++left.num_tokens;
        }
        result.push_back(std::move(left));
    }
    return result;
}

TEST(NodeDedup, DroppedChoicesDoNotTravel) {
    LayerCase c{.num_experts = 8,
                .top_k = 3,
                .tokens = {19, 6, 0, 23},
                .dedup = Dedup::node,
                .capacity_factor = 0.5,
                .ranks_per_node = 2};
    for (const std::uint64_t seed : {3U, 4U, 5U}) {
        const auto assignments = draw({.skew = Skew::zipf, .parameter = 1.0, .seed = seed}, c);
        const auto forced = experts_of(assignments);
        const auto node = run_ep<double>(c, forced);
        const auto left = kept(assignments, c);
        EXPECT_LT(left[0].num_tokens, 19) << "no token was dropped whole";
        expect_traffic(node, expected_bytes(left, c, c.hidden * 8));
        const auto naive = run_ep<double>(with(c, Dedup::none), forced);
        EXPECT_LT(difference(stacked(node.y), stacked(naive.y)), 1e-12);
        EXPECT_LT(difference(stacked(node.dx), stacked(naive.dx)), 1e-12);
        EXPECT_LT(difference(node.gradients[0].router.weight, naive.gradients[0].router.weight),
                  1e-12);
    }
}

// On one node it is rank-dedup: the same bits, and the same bytes in every phase, counts included.
TEST(NodeDedup, OnOneNodeIsRankDedup) {
    for (LayerCase c : node_cases()) {
        for (const int ranks_per_node : {0, static_cast<int>(c.tokens.size()), 64}) {
            c.ranks_per_node = ranks_per_node;
            const auto node = run_ep<double>(c), rank = run_ep<double>(with(c, Dedup::rank));
            EXPECT_EQ(stacked(node.y), stacked(rank.y));
            EXPECT_EQ(stacked(node.dx), stacked(rank.dx));
            EXPECT_EQ(node.traffic, rank.traffic);
        }
    }
}

// Where tokens need several ranks of other nodes, fewer bytes leave a node than under rank-dedup:
// k = E over 2 nodes of 3 ranks, one copy to the other node in place of three.
TEST(NodeDedup, SendsATokenOnceToEveryOtherNode) {
    const LayerCase c{.num_experts = 12,
                      .top_k = 12,
                      .tokens = {4, 1, 0, 7, 2, 3},
                      .dedup = Dedup::node,
                      .ranks_per_node = 3};
    const auto leaving = [&](const TrafficMatrix& bytes) {
        std::int64_t total = 0;
        for (int i = 0; i < 6; ++i) {
            for (int j = 0; j < 6; ++j) total += i / 3 == j / 3 ? 0 : bytes.at(i, j);
        }
        return total;
    };
    const CallSite dispatch{Phase::dispatch, Pass::forward};
    const std::int64_t tokens = std::accumulate(c.tokens.begin(), c.tokens.end(), std::int64_t{0});
    EXPECT_EQ(leaving(run_ep<float>(c).traffic.at(dispatch)), tokens * c.hidden * 4);
    EXPECT_EQ(leaving(run_ep<float>(with(c, Dedup::rank)).traffic.at(dispatch)),
              3 * tokens * c.hidden * 4);
}

// Passes everything on, and throws at the second exchange of rows of a phase.
class ThrowsInSecondStage final : public Communicator {
  public:
    ThrowsInSecondStage(Communicator& inner, int failing_rank, CallSite failing)
        : inner_(inner), failing_rank_(failing_rank), failing_(failing) {}

    int rank() const override { return inner_.rank(); }
    int size() const override { return inner_.size(); }
    void enter(CallSite site) override {
        inner_.enter(site);
        site_ = site;
        num_exchanges_ = 0;
    }
    void all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes, void* receive,
                      std::span<const std::int64_t> receive_bytes) override {
        if (rank() == failing_rank_ && site_ == failing_ && ++num_exchanges_ == 2)
            throw std::runtime_error("the second stage broke");
        inner_.all_to_all_v(send, send_bytes, receive, receive_bytes);
    }
    void all_to_all(const void* send, void* receive, std::int64_t bytes) override {
        inner_.all_to_all(send, receive, bytes);
    }
    void all_reduce_sum(std::span<float> values) override { inner_.all_reduce_sum(values); }
    void all_reduce_sum(std::span<double> values) override { inner_.all_reduce_sum(values); }
    std::vector<std::int64_t> all_gather_counts(std::span<const std::int64_t> own) override {
        return inner_.all_gather_counts(own);
    }
    void barrier() override { inner_.barrier(); }
    std::unique_ptr<Communicator> split(int color) override { return inner_.split(color); }
    const TrafficLedger& traffic() const override { return inner_.traffic(); }

  private:
    Communicator& inner_;
    int failing_rank_;
    CallSite failing_, site_{};
    int num_exchanges_ = 0;
};

// A rank that breaks while it sends on is named with its phase, and ends the run on all ranks.
TEST(NodeDedup, AFailureInTheSecondStageIsNamed) {
    const LayerCase c = node_cases().front();
    for (const CallSite site : {CallSite{Phase::dispatch, Pass::forward},
                                {Phase::combine, Pass::forward},
                                {Phase::combine, Pass::backward},
                                {Phase::dispatch, Pass::backward}}) {
        try {
            run_on_threads(4, [&](Communicator& comm) {
                ThrowsInSecondStage failing(comm, 2, site);
                const auto r = static_cast<std::size_t>(comm.rank());
                RankContext context{failing};
                const auto weights = make_ep_weights<double>(c.dims(), c.ep(), 4, comm.rank(), 1);
                auto gradients = zeros_like(weights);
                const auto x = make_tokens<double>(c.tokens[r], c.hidden, comm.rank(), 1);
                EpState<double> state;
                ep_forward<double>(context, c.ep(), weights, x, state);
                ep_backward<double>(context, c.ep(), weights, x, state,
                                    output_gradient<double>(c, comm.rank()), gradients);
            });
            FAIL() << "nothing failed";
        } catch (const RankFailure& failure) {
            EXPECT_EQ(failure.rank, 2);
            EXPECT_EQ(failure.site, site);
            EXPECT_EQ(failure.cause, "the second stage broke");
        }
    }
}

}  // namespace
}  // namespace headway::runtime
