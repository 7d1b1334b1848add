// Runs a layer on N thread ranks, forward and backward, and puts the ranks' results side by side.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "runtime/reference/weights.hpp"
#include "runtime/thread_communicator.hpp"

namespace headway::runtime {

struct LayerCase {
    int hidden = 6;
    int num_experts = 4;
    int top_k = 2;
    int expert_width = 5;
    Activation activation = Activation::gelu;
    std::vector<std::int64_t> tokens = {5, 3};  // by rank
    Dedup dedup = Dedup::none;
    int latent_width = 0;
    int shared_width = 0;
    bool aux_free_bias = false;
    std::optional<double> capacity_factor;
    int num_heads = 0;  // 0: EP
    int head_width = 0;
    Summation summation = Summation::fast;
    int ranks_per_node = 0;  // Dedup::node

    ModelDims dims() const {
        return {hidden, expert_width, latent_width, shared_width, aux_free_bias};
    }
    SparseShape sparse() const {
        return {num_experts, activation, dedup, num_heads > 0, summation, ranks_per_node};
    }
    RoutingRule routing() const { return {top_k, capacity_factor, summation}; }
    EpShape ep() const { return {sparse(), routing()}; }
    HpShape hp() const { return {num_heads, head_width, tokens, {}, sparse(), routing()}; }
};

template <class S, class Weights>
struct LayerRun {
    std::vector<Matrix<S>> y, dx;  // by rank
    std::vector<Weights> gradients;
    std::map<CallSite, TrafficMatrix> traffic;
};

inline constexpr std::uint64_t kSeed = 11;

template <class S>
Matrix<S> output_gradient(const LayerCase& c, int rank) {
    return make_tokens<S>(c.tokens[static_cast<std::size_t>(rank)], c.hidden, rank, kSeed + 1);
}

template <class S>
LayerRun<S, EpWeights<S>> run_ep(const LayerCase& c,
                                 const std::vector<std::vector<std::int32_t>>& forced = {}) {
    const int n = static_cast<int>(c.tokens.size());
    LayerRun<S, EpWeights<S>> result;
    result.y.resize(c.tokens.size());
    result.dx.resize(c.tokens.size());
    result.gradients.resize(c.tokens.size());
    const auto ledgers = run_on_threads(n, [&](Communicator& comm) {
        const auto r = static_cast<std::size_t>(comm.rank());
        RankContext context{comm};
        const auto weights = make_ep_weights<S>(c.dims(), c.ep(), n, comm.rank(), kSeed);
        const auto x = make_tokens<S>(c.tokens[r], c.hidden, comm.rank(), kSeed);
        EpState<S> state;
        result.y[r] = ep_forward<S>(context, c.ep(), weights, x, state,
                                    forced.empty() ? std::span<const std::int32_t>{} : forced[r]);
        result.gradients[r] = zeros_like(weights);
        result.dx[r] = ep_backward<S>(context, c.ep(), weights, x, state,
                                      output_gradient<S>(c, comm.rank()), result.gradients[r]);
    });
    result.traffic = gather_traffic(ledgers);
    return result;
}

// forced[head][source]: [tokens, k]
template <class S>
LayerRun<S, HpWeights<S>> run_hp(
    const LayerCase& c, const std::vector<std::vector<std::vector<std::int32_t>>>& forced = {}) {
    const int n = static_cast<int>(c.tokens.size());
    LayerRun<S, HpWeights<S>> result;
    result.y.resize(c.tokens.size());
    result.dx.resize(c.tokens.size());
    result.gradients.resize(c.tokens.size());
    const auto ledgers = run_on_threads(n, [&](Communicator& comm) {
        const auto r = static_cast<std::size_t>(comm.rank());
        const HpShape shape = c.hp();
        RankContext context{comm};
        std::unique_ptr<Communicator> peers;
        if (shape.sharers() > 1) peers = comm.split(comm.rank() / shape.sharers());
        const auto weights = make_hp_weights<S>(c.dims(), shape, comm.rank(), kSeed);
        const auto x = make_tokens<S>(c.tokens[r], c.hidden, comm.rank(), kSeed);
        std::vector<std::span<const std::int32_t>> choice;
        for (const HeadBlock& b : head_blocks(shape, comm.rank())) {
            if (forced.empty()) break;
            const auto head = static_cast<std::size_t>(shape.first_head(comm.rank()) + b.rows.head);
            choice.push_back(forced[head][static_cast<std::size_t>(b.source)]);
        }
        HpState<S> state;
        result.y[r] = hp_forward<S>(context, peers.get(), shape, weights, x, state, choice);
        result.gradients[r] = zeros_like(weights);
        result.dx[r] = hp_backward<S>(context, peers.get(), shape, weights, x, state,
                                      output_gradient<S>(c, comm.rank()), result.gradients[r]);
    });
    result.traffic = gather_traffic(ledgers);
    return result;
}

// All ranks' rows under each other.
template <class S>
Matrix<S> stacked(const std::vector<Matrix<S>>& parts) {
    Eigen::Index rows = 0;
    for (const auto& p : parts) rows += p.rows();
    Matrix<S> all(rows, parts.front().cols());
    rows = 0;
    for (const auto& p : parts) {
        all.middleRows(rows, p.rows()) = p;
        rows += p.rows();
    }
    return all;
}

template <class S>
Matrix<S> all_tokens(const LayerCase& c) {
    std::vector<Matrix<S>> parts;
    for (std::size_t r = 0; r < c.tokens.size(); ++r)
        parts.push_back(make_tokens<S>(c.tokens[r], c.hidden, static_cast<int>(r), kSeed));
    return stacked(parts);
}

template <class S>
Matrix<S> all_output_gradients(const LayerCase& c) {
    std::vector<Matrix<S>> parts;
    for (std::size_t r = 0; r < c.tokens.size(); ++r)
        parts.push_back(output_gradient<S>(c, static_cast<int>(r)));
    return stacked(parts);
}

}  // namespace headway::runtime
