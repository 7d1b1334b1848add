// Row-major matrices [rows, width] and the three products of the layers. `fixed_order` adds every
// output element's terms one after the other, so that a result does not depend on which other rows
// are in the matrix: what makes N ranks equal one rank bit for bit. `fast` is Eigen's blocked
// product.
#pragma once

#include <Eigen/Core>

namespace headway::runtime {

template <class S>
using Matrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class S>
using MatrixView = Eigen::Ref<Matrix<S>, 0, Eigen::OuterStride<>>;
template <class S>
using ConstMatrixView = Eigen::Ref<const Matrix<S>, 0, Eigen::OuterStride<>>;

enum class Summation { fast, fixed_order };

// c += a b
template <class S>
void add_product(MatrixView<S> c, ConstMatrixView<S> a, ConstMatrixView<S> b, Summation order);
// c += a b^T
template <class S>
void add_product_nt(MatrixView<S> c, ConstMatrixView<S> a, ConstMatrixView<S> b, Summation order);
// c += a^T b
template <class S>
void add_product_tn(MatrixView<S> c, ConstMatrixView<S> a, ConstMatrixView<S> b, Summation order);

}  // namespace headway::runtime
