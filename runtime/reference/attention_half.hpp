// What comes before the feed-forward part of a pre-norm block, forward and backward:
//   s = x + delta,  q k v = norm1(s) Wqkv^T,  h = s + attention(q, k, v) Wo^T,  norm2(h)
// with root-mean-square norms and causal attention inside sequences; a row has the heads of q, then
// those of k and of v, which several heads of q may share (grouped queries).
#pragma once

#include <vector>

#include "runtime/rank_context.hpp"
#include "runtime/reference/matrix.hpp"

namespace headway::runtime {

struct AttentionDims {
    int sequence_length = 0;
    int num_heads = 1, num_kv_heads = 1, head_width = 0;

    int width() const { return num_heads * head_width; }
};

template <class S>
struct HalfWeights {
    Matrix<S> norm1, norm2;  // [1, d]
    Matrix<S> qkv, output;   // [(H + 2 K) w, d], [d, H w] of H heads of q, K of k and of v
};

template <class S>
struct HalfState {
    Matrix<S> sum, normed1, qkv, o, h, normed2;
    std::vector<Matrix<S>> probabilities;  // [sequence, head] of [L, L]
};

// y = r x w, r = 1 / sqrt(mean x^2 + epsilon)
template <class S>
Matrix<S> rms_norm(ConstMatrixView<S> x, const Matrix<S>& weight, double epsilon);
// Returns r (w dy - u mean(w dy u)), u = r x; adds the sum over rows of dy u to dweight.
template <class S>
Matrix<S> rms_norm_gradient(ConstMatrixView<S> x, const Matrix<S>& weight, ConstMatrixView<S> dy,
                            double epsilon, Matrix<S>& dweight);

// delta may be empty.
template <class S>
void half_forward(RankContext& context, const AttentionDims& dims, const HalfWeights<S>& weights,
                  ConstMatrixView<S> x, ConstMatrixView<S> delta, double epsilon,
                  HalfState<S>& state);
// dy: gradient of h from behind the feed-forward part. Returns that of s; adds to `gradients`.
template <class S>
Matrix<S> half_backward(RankContext& context, const AttentionDims& dims,
                        const HalfWeights<S>& weights, const HalfState<S>& state,
                        ConstMatrixView<S> d_normed, ConstMatrixView<S> dy, double epsilon,
                        HalfWeights<S>& gradients);

}  // namespace headway::runtime
