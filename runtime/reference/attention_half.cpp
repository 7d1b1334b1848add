#include "runtime/reference/attention_half.hpp"

#include <cmath>

namespace headway::runtime {
namespace {

// One head of one sequence: of q (part 0), or of the outputs; the k (1) and v (2) that it reads.
template <class M>
auto part_of(M& rows, const AttentionDims& dims, Eigen::Index sequence, int part, int head) {
    const int first = part == 0 ? head
                                : dims.num_heads + (part - 1) * dims.num_kv_heads +
                                      head / (dims.num_heads / dims.num_kv_heads);
    return rows.block(sequence * dims.sequence_length, Eigen::Index{first} * dims.head_width,
                      dims.sequence_length, dims.head_width);
}

// Products go through matrix.hpp, which compiles Eigen's once: written out here they took half a
// minute.
template <class S>
void add(MatrixView<S> c, ConstMatrixView<S> a, ConstMatrixView<S> b) {
    add_product<S>(c, a, b, Summation::fast);
}
template <class S>
void add_nt(MatrixView<S> c, ConstMatrixView<S> a, ConstMatrixView<S> b) {
    add_product_nt<S>(c, a, b, Summation::fast);
}
template <class S>
void add_tn(MatrixView<S> c, ConstMatrixView<S> a, ConstMatrixView<S> b) {
    add_product_tn<S>(c, a, b, Summation::fast);
}

// P = softmax over j <= i of q k^T / sqrt(d_a), O = P V
template <class S>
void attention_forward(const AttentionDims& dims, HalfState<S>& state) {
    const Eigen::Index length = dims.sequence_length;
    const S scale = S(1) / std::sqrt(static_cast<S>(dims.head_width));
    state.o = Matrix<S>::Zero(state.qkv.rows(), dims.width());
    state.probabilities.clear();
    for (Eigen::Index s = 0; s < state.qkv.rows() / length; ++s) {
        for (int head = 0; head < dims.num_heads; ++head) {
            Matrix<S> p = Matrix<S>::Zero(length, length);
            add_nt<S>(p, scale * part_of(state.qkv, dims, s, 0, head),
                      part_of(state.qkv, dims, s, 1, head));
            for (Eigen::Index i = 0; i < length; ++i) {
                auto seen = p.row(i).head(i + 1);
                seen = (seen.array() - seen.maxCoeff()).exp().matrix().eval();
                seen /= seen.sum();
                p.row(i).tail(length - i - 1).setZero();
            }
            add<S>(part_of(state.o, dims, s, 0, head), p, part_of(state.qkv, dims, s, 2, head));
            state.probabilities.push_back(std::move(p));
        }
    }
}

// dV = P^T dO, dS = P (dO V^T - rowsum(dO O)) / sqrt(d_a), dQ = dS K, dK = dS^T Q
template <class S>
Matrix<S> attention_backward(const AttentionDims& dims, const HalfState<S>& state,
                             const Matrix<S>& d_o) {
    const Eigen::Index length = dims.sequence_length;
    const S scale = S(1) / std::sqrt(static_cast<S>(dims.head_width));
    Matrix<S> dqkv = Matrix<S>::Zero(state.qkv.rows(), state.qkv.cols());
    std::size_t index = 0;
    for (Eigen::Index s = 0; s < state.qkv.rows() / length; ++s) {
        for (int head = 0; head < dims.num_heads; ++head) {
            const Matrix<S>& p = state.probabilities[index++];
            const Matrix<S> dout = part_of(d_o, dims, s, 0, head);
            const auto mean =
                dout.cwiseProduct(part_of(state.o, dims, s, 0, head)).rowwise().sum().eval();
            Matrix<S> ds = Matrix<S>::Zero(length, length);
            add_nt<S>(ds, dout, part_of(state.qkv, dims, s, 2, head));
            ds.colwise() -= mean;
            ds = scale * ds.cwiseProduct(p).eval();
            add<S>(part_of(dqkv, dims, s, 0, head), ds, part_of(state.qkv, dims, s, 1, head));
            add_tn<S>(part_of(dqkv, dims, s, 1, head), ds, part_of(state.qkv, dims, s, 0, head));
            add_tn<S>(part_of(dqkv, dims, s, 2, head), p, dout);
        }
    }
    return dqkv;
}

}  // namespace

template <class S>
Matrix<S> rms_norm(ConstMatrixView<S> x, const Matrix<S>& weight, double epsilon) {
    Matrix<S> y(x.rows(), x.cols());
    for (Eigen::Index i = 0; i < x.rows(); ++i) {
        const S mean = x.row(i).squaredNorm() / static_cast<S>(x.cols());
        y.row(i) = x.row(i).cwiseProduct(weight.row(0)) / std::sqrt(mean + static_cast<S>(epsilon));
    }
    return y;
}

template <class S>
Matrix<S> rms_norm_gradient(ConstMatrixView<S> x, const Matrix<S>& weight, ConstMatrixView<S> dy,
                            double epsilon, Matrix<S>& dweight) {
    Matrix<S> dx(x.rows(), x.cols());
    for (Eigen::Index i = 0; i < x.rows(); ++i) {
        const auto width = static_cast<S>(x.cols());
        const S r = S(1) / std::sqrt(x.row(i).squaredNorm() / width + static_cast<S>(epsilon));
        const Matrix<S> u = r * x.row(i), wdy = weight.row(0).cwiseProduct(dy.row(i));
        dx.row(i) = r * (wdy - u * (wdy.cwiseProduct(u).sum() / width));
        dweight += dy.row(i).cwiseProduct(u);
    }
    return dx;
}

template <class S>
void half_forward(RankContext& context, const AttentionDims& dims, const HalfWeights<S>& weights,
                  ConstMatrixView<S> x, ConstMatrixView<S> delta, double epsilon,
                  HalfState<S>& state) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::forward}; };
    {
        const PhaseScope scope(context, in(Phase::norm));
        state.sum = x;
        if (delta.size() > 0) state.sum += delta;
        state.normed1 = rms_norm<S>(state.sum, weights.norm1, epsilon);
    }
    {
        const PhaseScope scope(context, in(Phase::attention_qkv));
        state.qkv = Matrix<S>::Zero(x.rows(), weights.qkv.rows());
        add_nt<S>(state.qkv, state.normed1, weights.qkv);
    }
    {
        const PhaseScope scope(context, in(Phase::attention_core));
        attention_forward(dims, state);
    }
    {
        const PhaseScope scope(context, in(Phase::attention_out));
        state.h = state.sum;
        add_nt<S>(state.h, state.o, weights.output);
    }
    const PhaseScope scope(context, in(Phase::norm));
    state.normed2 = rms_norm<S>(state.h, weights.norm2, epsilon);
}

template <class S>
Matrix<S> half_backward(RankContext& context, const AttentionDims& dims,
                        const HalfWeights<S>& weights, const HalfState<S>& state,
                        ConstMatrixView<S> d_normed, ConstMatrixView<S> dy, double epsilon,
                        HalfWeights<S>& gradients) {
    const auto in = [](Phase phase) { return CallSite{phase, Pass::backward}; };
    Matrix<S> dh, d_o, dqkv, d_normed1;
    {
        const PhaseScope scope(context, in(Phase::norm));
        dh = dy + rms_norm_gradient<S>(state.h, weights.norm2, d_normed, epsilon, gradients.norm2);
    }
    {
        const PhaseScope scope(context, in(Phase::attention_out));
        d_o = Matrix<S>::Zero(dh.rows(), weights.output.cols());
        add<S>(d_o, dh, weights.output);
        add_tn<S>(gradients.output, dh, state.o);
    }
    {
        const PhaseScope scope(context, in(Phase::attention_core));
        dqkv = attention_backward(dims, state, d_o);
    }
    {
        const PhaseScope scope(context, in(Phase::attention_qkv));
        add_tn<S>(gradients.qkv, dqkv, state.normed1);
        d_normed1 = Matrix<S>::Zero(dqkv.rows(), weights.qkv.cols());
        add<S>(d_normed1, dqkv, weights.qkv);
    }
    const PhaseScope scope(context, in(Phase::norm));
    return dh + rms_norm_gradient<S>(state.sum, weights.norm1, d_normed1, epsilon, gradients.norm1);
}

#define HEADWAY_INSTANTIATE(S)                                                                     \
    template Matrix<S> rms_norm<S>(ConstMatrixView<S>, const Matrix<S>&, double);                  \
    template Matrix<S> rms_norm_gradient<S>(ConstMatrixView<S>, const Matrix<S>&,                  \
                                            ConstMatrixView<S>, double, Matrix<S>&);               \
    template void half_forward<S>(RankContext&, const AttentionDims&, const HalfWeights<S>&,       \
                                  ConstMatrixView<S>, ConstMatrixView<S>, double, HalfState<S>&);  \
    template Matrix<S> half_backward<S>(RankContext&, const AttentionDims&, const HalfWeights<S>&, \
                                        const HalfState<S>&, ConstMatrixView<S>,                   \
                                        ConstMatrixView<S>, double, HalfWeights<S>&)
HEADWAY_INSTANTIATE(float);
HEADWAY_INSTANTIATE(double);
#undef HEADWAY_INSTANTIATE

}  // namespace headway::runtime
