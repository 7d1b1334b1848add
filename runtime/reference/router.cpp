#include "runtime/reference/router.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace headway::runtime {

namespace {

// Gates of one row in place of its chosen logits. Infinite logits share the weight among them.
template <class S>
void softmax(std::span<S> values) {
    const S lowest = -std::numeric_limits<S>::infinity();
    S top = lowest;
    for (S& v : values) {
        if (std::isnan(v)) v = lowest;
        top = std::max(top, v);
    }
    S sum = 0;
    for (S& v : values) {
        v = v == top ? S(1) : std::exp(v - top);
        sum += v;
    }
    for (S& v : values) v /= sum;
}

template <class S>
void drop_over_capacity(double factor, const RowBlock& block, int num_experts, Routed<S>& routed) {
    const auto capacity = static_cast<std::int64_t>(
        std::ceil(factor * static_cast<double>(block.count * routed.top_k) / num_experts));
    std::vector<std::int64_t> taken(static_cast<std::size_t>(num_experts), 0);
    const std::int64_t first = block.begin * routed.top_k;
    for (std::int64_t slot = first; slot < first + block.count * routed.top_k; ++slot) {
        std::int32_t& expert = routed.expert[static_cast<std::size_t>(slot)];
        if (++taken[static_cast<std::size_t>(expert)] > capacity) expert = ~expert;
    }
}

}  // namespace

template <class S>
void select_top_k(std::span<const S> scores, std::span<std::int32_t> chosen) {
    const auto better = [&](std::int32_t a, std::int32_t b) {  // for a after b in index
        const S x = scores[static_cast<std::size_t>(a)], y = scores[static_cast<std::size_t>(b)];
        return x > y || (std::isnan(y) && !std::isnan(x));
    };
    std::size_t count = 0;
    for (std::int32_t e = 0; e < static_cast<std::int32_t>(scores.size()); ++e) {
        if (count == chosen.size() && !better(e, chosen[count - 1])) continue;
        std::size_t place = count < chosen.size() ? count++ : count - 1;
        for (; place > 0 && better(e, chosen[place - 1]); --place) {
            chosen[place] = chosen[place - 1];
        }
        chosen[place] = e;
    }
}

template <class S>
Routed<S> route(const RoutingRule& rule, std::span<const RouterWeights<S>> routers,
                ConstMatrixView<S> x, std::span<const RowBlock> blocks,
                std::span<const std::span<const std::int32_t>> forced) {
    const std::size_t k = static_cast<std::size_t>(rule.top_k);
    const std::size_t num_slots = static_cast<std::size_t>(x.rows()) * k;
    Routed<S> routed{rule.top_k, std::vector<std::int32_t>(num_slots), std::vector<S>(num_slots)};
    std::vector<S> scores;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
        const RowBlock& block = blocks[b];
        const RouterWeights<S>& router = routers[static_cast<std::size_t>(block.head)];
        const auto num_experts = static_cast<std::size_t>(router.weight.rows());
        Matrix<S> logits = Matrix<S>::Zero(block.count, router.weight.rows());
        add_product_nt<S>(logits, x.middleRows(block.begin, block.count), router.weight,
                          rule.summation);
        for (std::int64_t t = 0; t < block.count; ++t) {
            const std::span<const S> row(logits.data() + t * logits.cols(), num_experts);
            const std::size_t slot = static_cast<std::size_t>(block.begin + t) * k;
            const std::span<std::int32_t> chosen(routed.expert.data() + slot, k);
            const std::span<S> gates(routed.gate.data() + slot, k);
            for (const S logit : row) routed.num_non_finite += !std::isfinite(logit);
            if (router.bias.empty()) {
                select_top_k<S>(row, chosen);
            } else {
                scores.assign(row.begin(), row.end());
                for (std::size_t e = 0; e < num_experts; ++e) scores[e] += router.bias[e];
                select_top_k<S>(scores, chosen);
            }
            // The router has done its work, for whoever times it; now the choice is replaced.
            if (!forced.empty()) std::copy_n(forced[b].begin() + t * rule.top_k, k, chosen.begin());
            for (std::size_t j = 0; j < k; ++j) gates[j] = row[static_cast<std::size_t>(chosen[j])];
            softmax(gates);
        }
        if (rule.capacity_factor) {
            drop_over_capacity(*rule.capacity_factor, block, static_cast<int>(num_experts), routed);
        }
    }
    return routed;
}

template <class S>
void route_backward(std::span<const RouterWeights<S>> routers, ConstMatrixView<S> x,
                    std::span<const RowBlock> blocks, const Routed<S>& routed,
                    std::span<const S> gate_gradient, MatrixView<S> dx,
                    std::span<RouterWeights<S>> gradients) {
    const std::size_t k = static_cast<std::size_t>(routed.top_k);
    for (const RowBlock& block : blocks) {
        const Matrix<S>& weight = routers[static_cast<std::size_t>(block.head)].weight;
        Matrix<S>& gradient = gradients[static_cast<std::size_t>(block.head)].weight;
        for (std::int64_t row = block.begin; row < block.begin + block.count; ++row) {
            const std::size_t slot = static_cast<std::size_t>(row) * k;
            S mean = 0;
            for (std::size_t j = slot; j < slot + k; ++j) mean += routed.gate[j] * gate_gradient[j];
            for (std::size_t j = slot; j < slot + k; ++j) {
                const S dl = routed.gate[j] * (gate_gradient[j] - mean);
                const std::int32_t expert = chosen_expert(routed.expert[j]);
                dx.row(row) += dl * weight.row(expert);
                gradient.row(expert) += dl * x.row(row);
            }
        }
    }
}

template void select_top_k<float>(std::span<const float>, std::span<std::int32_t>);
template Routed<float> route<float>(const RoutingRule&, std::span<const RouterWeights<float>>,
                                    ConstMatrixView<float>, std::span<const RowBlock>,
                                    std::span<const std::span<const std::int32_t>>);
template void route_backward<float>(std::span<const RouterWeights<float>>, ConstMatrixView<float>,
                                    std::span<const RowBlock>, const Routed<float>&,
                                    std::span<const float>, MatrixView<float>,
                                    std::span<RouterWeights<float>>);
template void select_top_k<double>(std::span<const double>, std::span<std::int32_t>);
template Routed<double> route<double>(const RoutingRule&, std::span<const RouterWeights<double>>,
                                      ConstMatrixView<double>, std::span<const RowBlock>,
                                      std::span<const std::span<const std::int32_t>>);
template void route_backward<double>(std::span<const RouterWeights<double>>,
                                     ConstMatrixView<double>, std::span<const RowBlock>,
                                     const Routed<double>&, std::span<const double>,
                                     MatrixView<double>, std::span<RouterWeights<double>>);

}  // namespace headway::runtime
