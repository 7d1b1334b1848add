// Router: logits l = x W^T, the k experts with the largest l + bias, and gates g = softmax of their
// l (without the bias, which only steers selection). Ties go to the lower index; NaN is chosen last
// and gets gate 0. Backward: dl_j = g_j (dg_j - sum_i g_i dg_i) for the chosen; others get none.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "runtime/reference/matrix.hpp"

namespace headway::runtime {

template <class S>
struct RouterWeights {
    Matrix<S> weight;     // [experts, width]
    std::vector<S> bias;  // [experts], or empty
};

// Rows of one router: consecutive rows of a matrix, which all go through router `head`. A head's
// blocks are listed in the order of the source ranks.
struct RowBlock {
    int head = 0;
    std::int64_t begin = 0;
    std::int64_t count = 0;
};

// A choice dropped for capacity is stored as ~expert: negative, and still the softmax's business.
constexpr std::int32_t chosen_expert(std::int32_t stored) {
    return stored < 0 ? ~stored : stored;
}

template <class S>
struct Routed {
    int top_k = 0;
    std::vector<std::int32_t> expert;  // [rows, k] within the head; ~expert when dropped
    std::vector<S> gate;               // [rows, k]
    std::int64_t num_non_finite = 0;   // logits that were NaN or infinite
};

struct RoutingRule {
    int top_k = 1;
    // A block's expert keeps its first ceil(factor * count * k / E) rows; absent: all of them.
    std::optional<double> capacity_factor;
    Summation summation = Summation::fast;
};

// `forced`, when not empty, gives the chosen experts of each block, [blocks][count, k]; the gates
// still follow from the logits.
template <class S>
Routed<S> route(const RoutingRule& rule, std::span<const RouterWeights<S>> routers,
                ConstMatrixView<S> x, std::span<const RowBlock> blocks,
                std::span<const std::span<const std::int32_t>> forced = {});

// Adds to dx and to the gradients of the routers' weights.
template <class S>
void route_backward(std::span<const RouterWeights<S>> routers, ConstMatrixView<S> x,
                    std::span<const RowBlock> blocks, const Routed<S>& routed,
                    std::span<const S> gate_gradient, MatrixView<S> dx,
                    std::span<RouterWeights<S>> gradients);

// The k best of `scores`, best first, by the order above.
template <class S>
void select_top_k(std::span<const S> scores, std::span<std::int32_t> chosen);

}  // namespace headway::runtime
