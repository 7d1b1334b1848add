#include "runtime/reference/hp_layer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "models/vocab/error.hpp"
#include "runtime/reference/shared_expert.hpp"

namespace headway::runtime {

std::vector<int> valid_head_parallel_ranks(int num_heads, int num_experts, int limit) {
    std::vector<int> valid;
    for (int n = 1; n <= limit; ++n) {
        const bool whole_heads = n <= num_heads && num_heads % n == 0;
        const bool shared_heads =
            n > num_heads && n % num_heads == 0 && num_experts % (n / num_heads) == 0;
        if (whole_heads || shared_heads) valid.push_back(n);
    }
    return valid;
}

void check_ranks(const HpShape& shape) {
    const int n = shape.num_ranks();
    const auto valid =
        valid_head_parallel_ranks(shape.num_heads, shape.sparse.num_experts,
                                  std::max(n, shape.num_heads * shape.sparse.num_experts));
    if (std::find(valid.begin(), valid.end(), n) != valid.end()) return;
    throw InputError({.where = "ranks",
                      .found = fmt::format("{} heads with {} experts each cannot be laid over {} "
                                           "ranks",
                                           shape.num_heads, shape.sparse.num_experts, n),
                      .accepted = fmt::format("{} ranks", fmt::join(valid, ", "))});
}

std::vector<HeadBlock> head_blocks(const HpShape& shape, int rank) {
    std::vector<HeadBlock> blocks;
    const int sharers = shape.sharers();
    std::int64_t begin = 0;
    for (int source = 0; source < shape.num_ranks(); ++source) {
        if (source % sharers != rank % sharers) continue;
        const std::int64_t tokens = shape.tokens[static_cast<std::size_t>(source)];
        for (int head = 0; head < shape.heads_per_rank(); ++head) {
            blocks.push_back({.rows = {head, begin, tokens}, .source = source});
            begin += tokens;
        }
    }
    return blocks;
}

namespace {

// Sub-tokens that `source` sends to `destination`: its tokens, once per head there.
std::int64_t scattered(const HpShape& shape, int source, int destination) {
    const int sharers = shape.sharers();
    if (source % sharers != destination % sharers) return 0;
    return shape.tokens[static_cast<std::size_t>(source)] * shape.heads_per_rank();
}

struct ScatterCounts {
    std::vector<std::int64_t> own, held;  // sub-tokens sent to, and held of, every rank
};

ScatterCounts scatter_counts(const HpShape& shape, int rank) {
    ScatterCounts counts;
    for (int r = 0; r < shape.num_ranks(); ++r) {
        counts.own.push_back(scattered(shape, rank, r));
        counts.held.push_back(scattered(shape, r, rank));
    }
    return counts;
}

// z[h T + t] = x[t] W[:, head h]
template <class S>
Matrix<S> to_heads(const HpShape& shape, ConstMatrixView<S> x, const Matrix<S>& w,
                   bool transposed) {
    const Eigen::Index tokens = x.rows(), width = shape.head_width;
    Matrix<S> z = Matrix<S>::Zero(tokens * shape.num_heads, width);
    for (int h = 0; h < shape.num_heads; ++h) {
        auto rows = z.middleRows(h * tokens, tokens);
        if (transposed) {
            add_product_nt<S>(rows, x, w.middleRows(h * width, width), shape.sparse.summation);
        } else {
            add_product<S>(rows, x, w.middleCols(h * width, width), shape.sparse.summation);
        }
    }
    return z;
}

// y[t] = sum_h z[h T + t] W[head h, :]
template <class S>
Matrix<S> from_heads(const HpShape& shape, Eigen::Index tokens, const Matrix<S>& z,
                     const Matrix<S>& w, bool transposed) {
    const Eigen::Index width = shape.head_width;
    Matrix<S> y = Matrix<S>::Zero(tokens, transposed ? w.rows() : w.cols());
    for (int h = 0; h < shape.num_heads; ++h) {
        const auto rows = z.middleRows(h * tokens, tokens);
        if (transposed) {
            add_product_nt<S>(y, rows, w.middleCols(h * width, width), shape.sparse.summation);
        } else {
            add_product<S>(y, rows, w.middleRows(h * width, width), shape.sparse.summation);
        }
    }
    return y;
}

// gradient += a^T b, summed over the shape's runs of tokens one after the other.
template <class S>
void add_in_runs(const HpShape& shape, MatrixView<S> gradient, ConstMatrixView<S> a,
                 ConstMatrixView<S> b) {
    if (shape.runs.empty()) {
        add_product_tn<S>(gradient, a, b, shape.sparse.summation);
        return;
    }
    std::int64_t first = 0;
    for (const std::int64_t run : shape.runs) {
        Matrix<S> part = Matrix<S>::Zero(gradient.rows(), gradient.cols());
        add_product_tn<S>(part, a.middleRows(first, run), b.middleRows(first, run),
                          shape.sparse.summation);
        gradient += part;
        first += run;
    }
}

// Between own tokens by head [H T, d_h] and the sub-tokens held here.
template <class S>
void scatter(RankContext& context, CallSite site, const HpShape& shape, bool back,
             Matrix<S>& rows) {
    if (shape.num_ranks() == 1) return;
    const PhaseScope scope(context, site, &context.communicator);
    const ScatterCounts counts = scatter_counts(shape, context.communicator.rank());
    rows = back ? exchange_rows<S>(context.communicator, rows, counts.held, counts.own)
                : exchange_rows<S>(context.communicator, rows, counts.own, counts.held);
}

}  // namespace

template <class S>
Matrix<S> hp_forward(RankContext& context, Communicator* peers, const HpShape& shape,
                     const HpWeights<S>& weights, ConstMatrixView<S> x, HpState<S>& state,
                     std::span<const std::span<const std::int32_t>> forced) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    state = {.sparse = context.again ? counts_alone(state.sparse) : SparseState<S>{}};
    Matrix<S> shared;
    if (weights.shared) {
        const PhaseScope scope(context, in(Phase::shared_expert));
        shared = shared_forward<S>(shape.sparse.activation, *weights.shared, x, state.shared,
                                   shape.sparse.summation);
    }
    {
        const PhaseScope scope(context, in(Phase::head_project));
        state.sub_tokens = to_heads<S>(shape, x, weights.project, false);
    }
    scatter<S>(context, in(Phase::head_scatter), shape, false, state.sub_tokens);
    {
        const PhaseScope scope(context, in(Phase::route));
        for (const HeadBlock& block : head_blocks(shape, context.communicator.rank()))
            state.blocks.push_back(block.rows);
        state.routed =
            route<S>(shape.routing, weights.routers, state.sub_tokens, state.blocks, forced);
    }
    state.gathered = sparse_forward<S>(context, peers, shape.sparse, weights.experts,
                                       state.sub_tokens, state.blocks, state.routed, state.sparse);
    scatter<S>(context, in(Phase::head_gather), shape, true, state.gathered);
    const PhaseScope scope(context, in(Phase::head_merge));
    Matrix<S> y = from_heads<S>(shape, x.rows(), state.gathered, weights.merge, false);
    if (weights.shared) y += shared;
    return y;
}

template <class S>
Matrix<S> hp_backward(RankContext& context, Communicator* peers, const HpShape& shape,
                      const HpWeights<S>& weights, ConstMatrixView<S> x, const HpState<S>& state,
                      ConstMatrixView<S> dout, HpWeights<S>& gradients) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    const Eigen::Index tokens = x.rows(), width = shape.head_width;
    Matrix<S> rows;
    {
        const PhaseScope scope(context, in(Phase::head_merge));
        rows = to_heads<S>(shape, dout, weights.merge, true);
        for (int h = 0; h < shape.num_heads; ++h) {
            add_in_runs<S>(shape, gradients.merge.middleRows(h * width, width),
                           state.gathered.middleRows(h * tokens, tokens), dout);
        }
    }
    scatter<S>(context, in(Phase::head_gather), shape, false, rows);
    std::vector<S> gate_gradient;
    rows = sparse_backward<S>(context, peers, shape.sparse, weights.experts, state.sub_tokens,
                              state.routed, state.sparse, rows, gate_gradient, gradients.experts);
    {
        const PhaseScope scope(context, in(Phase::route));
        route_backward<S>(weights.routers, state.sub_tokens, state.blocks, state.routed,
                          gate_gradient, rows, gradients.routers);
    }
    scatter<S>(context, in(Phase::head_scatter), shape, true, rows);
    Matrix<S> dx;
    {
        const PhaseScope scope(context, in(Phase::head_project));
        dx = from_heads<S>(shape, tokens, rows, weights.project, true);
        for (int h = 0; h < shape.num_heads; ++h) {
            add_in_runs<S>(shape, gradients.project.middleCols(h * width, width), x,
                           rows.middleRows(h * tokens, tokens));
        }
    }
    if (weights.shared) {
        const PhaseScope scope(context, in(Phase::shared_expert));
        shared_backward<S>(shape.sparse.activation, *weights.shared, x, state.shared, dout, dx,
                           *gradients.shared, shape.sparse.summation);
    }
    return dx;
}

template Matrix<float> hp_forward<float>(RankContext&, Communicator*, const HpShape&,
                                         const HpWeights<float>&, ConstMatrixView<float>,
                                         HpState<float>&,
                                         std::span<const std::span<const std::int32_t>>);
template Matrix<float> hp_backward<float>(RankContext&, Communicator*, const HpShape&,
                                          const HpWeights<float>&, ConstMatrixView<float>,
                                          const HpState<float>&, ConstMatrixView<float>,
                                          HpWeights<float>&);
template Matrix<double> hp_forward<double>(RankContext&, Communicator*, const HpShape&,
                                           const HpWeights<double>&, ConstMatrixView<double>,
                                           HpState<double>&,
                                           std::span<const std::span<const std::int32_t>>);
template Matrix<double> hp_backward<double>(RankContext&, Communicator*, const HpShape&,
                                            const HpWeights<double>&, ConstMatrixView<double>,
                                            const HpState<double>&, ConstMatrixView<double>,
                                            HpWeights<double>&);

}  // namespace headway::runtime
