#include "runtime/reference/slots.hpp"

#include <algorithm>

namespace headway::runtime {

namespace {

// Global expert of every slot; -1 for a dropped one. [rows, k]
std::vector<std::int64_t> expert_of_slot(std::span<const RowBlock> blocks,
                                         std::span<const std::int32_t> expert, int top_k,
                                         int num_experts) {
    std::vector<std::int64_t> key(expert.size(), -1);
    for (const RowBlock& block : blocks) {
        const std::int64_t base = std::int64_t{block.head} * num_experts;
        const auto first = static_cast<std::size_t>(block.begin * top_k);
        const auto last = first + static_cast<std::size_t>(block.count * top_k);
        for (std::size_t slot = first; slot < last; ++slot) {
            if (expert[slot] >= 0) key[slot] = base + expert[slot];
        }
    }
    return key;
}

}  // namespace

Grouping group_slots(std::span<const RowBlock> blocks, std::span<const std::int32_t> expert,
                     int top_k, int num_experts) {
    int num_heads = 1;
    for (const RowBlock& block : blocks) num_heads = std::max(num_heads, block.head + 1);
    return group_by(expert_of_slot(blocks, expert, top_k, num_experts),
                    std::int64_t{num_heads} * num_experts);
}

template <class S>
Matrix<S> gated_sum(const Routed<S>& routed, std::span<const std::int64_t> position,
                    const Matrix<S>& y) {
    const auto k = static_cast<std::size_t>(routed.top_k);
    Matrix<S> out = Matrix<S>::Zero(static_cast<Eigen::Index>(position.size() / k), y.cols());
    for (std::size_t slot = 0; slot < position.size(); ++slot) {
        if (position[slot] < 0) continue;
        out.row(static_cast<Eigen::Index>(slot / k)) += routed.gate[slot] * y.row(position[slot]);
    }
    return out;
}

template <class S>
Matrix<S> sum_of_slots(std::span<const std::int64_t> position, std::size_t top_k,
                       const Matrix<S>& y) {
    Matrix<S> out = Matrix<S>::Zero(static_cast<Eigen::Index>(position.size() / top_k), y.cols());
    for (std::size_t slot = 0; slot < position.size(); ++slot) {
        if (position[slot] < 0) continue;
        out.row(static_cast<Eigen::Index>(slot / top_k)) += y.row(position[slot]);
    }
    return out;
}

template Matrix<float> gated_sum<float>(const Routed<float>&, std::span<const std::int64_t>,
                                        const Matrix<float>&);
template Matrix<float> sum_of_slots<float>(std::span<const std::int64_t>, std::size_t,
                                           const Matrix<float>&);
template Matrix<double> gated_sum<double>(const Routed<double>&, std::span<const std::int64_t>,
                                          const Matrix<double>&);
template Matrix<double> sum_of_slots<double>(std::span<const std::int64_t>, std::size_t,
                                             const Matrix<double>&);

}  // namespace headway::runtime
