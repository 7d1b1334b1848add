#include "runtime/reference/row_exchange.hpp"

#include <algorithm>
#include <cassert>
#include <numeric>

namespace headway::runtime {

Grouping group_by(std::span<const std::int64_t> key, std::int64_t num_groups) {
    Grouping result;
    result.offset.assign(static_cast<std::size_t>(num_groups) + 1, 0);
    for (const std::int64_t k : key) {
        if (k >= 0) ++result.offset[static_cast<std::size_t>(k) + 1];
    }
    std::partial_sum(result.offset.begin(), result.offset.end(), result.offset.begin());
    std::vector<std::int64_t> next(result.offset.begin(), result.offset.end() - 1);
    result.order.resize(static_cast<std::size_t>(result.offset.back()));
    for (std::size_t i = 0; i < key.size(); ++i) {
        if (key[i] < 0) continue;
        const std::int64_t place = next[static_cast<std::size_t>(key[i])]++;
        result.order[static_cast<std::size_t>(place)] = static_cast<std::int64_t>(i);
    }
    return result;
}

std::vector<std::int64_t> positions(const Grouping& grouping, std::size_t num_items) {
    std::vector<std::int64_t> position(num_items, -1);
    for (std::size_t i = 0; i < grouping.order.size(); ++i) {
        position[static_cast<std::size_t>(grouping.order[i])] = static_cast<std::int64_t>(i);
    }
    return position;
}

template <class S>
Matrix<S> gather_rows(ConstMatrixView<S> x, std::span<const std::int64_t> index) {
    Matrix<S> result(static_cast<Eigen::Index>(index.size()), x.cols());
    for (std::size_t i = 0; i < index.size(); ++i) {
        const S* row = x.data() + index[i] * x.outerStride();
        std::copy_n(row, x.cols(), result.data() + static_cast<Eigen::Index>(i) * x.cols());
    }
    return result;
}

template <class S>
Matrix<S> exchange_rows(Communicator& peers, ConstMatrixView<S> x,
                        std::span<const std::int64_t> sent,
                        std::span<const std::int64_t> received) {
    const std::int64_t rows = std::accumulate(received.begin(), received.end(), std::int64_t{0});
    Matrix<S> result(rows, x.cols());
    exchange_rows_into<S>(peers, x, sent, received, result.data());
    return result;
}

template <class S>
void exchange_rows_into(Communicator& peers, ConstMatrixView<S> x,
                        std::span<const std::int64_t> sent, std::span<const std::int64_t> received,
                        S* result) {
    assert(x.rows() < 2 || x.outerStride() == x.cols());
    const auto row_bytes = static_cast<std::int64_t>(sizeof(S)) * x.cols();
    std::vector<std::int64_t> sent_bytes, received_bytes;
    for (const std::int64_t rows : sent) sent_bytes.push_back(rows * row_bytes);
    for (const std::int64_t rows : received) received_bytes.push_back(rows * row_bytes);
    peers.all_to_all_v(x.data(), sent_bytes, result, received_bytes);
}

template Matrix<float> gather_rows<float>(ConstMatrixView<float>, std::span<const std::int64_t>);
template Matrix<double> gather_rows<double>(ConstMatrixView<double>, std::span<const std::int64_t>);
template Matrix<float> exchange_rows<float>(Communicator&, ConstMatrixView<float>,
                                            std::span<const std::int64_t>,
                                            std::span<const std::int64_t>);
template Matrix<double> exchange_rows<double>(Communicator&, ConstMatrixView<double>,
                                              std::span<const std::int64_t>,
                                              std::span<const std::int64_t>);
template void exchange_rows_into<float>(Communicator&, ConstMatrixView<float>,
                                        std::span<const std::int64_t>,
                                        std::span<const std::int64_t>, float*);
template void exchange_rows_into<double>(Communicator&, ConstMatrixView<double>,
                                         std::span<const std::int64_t>,
                                         std::span<const std::int64_t>, double*);

}  // namespace headway::runtime
