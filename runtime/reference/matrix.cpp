#include "runtime/reference/matrix.hpp"

namespace headway::runtime {

template <class S>
void add_product(MatrixView<S> c, ConstMatrixView<S> a, ConstMatrixView<S> b, Summation order) {
    if (order == Summation::fast) {
        c.noalias() += a * b;
        return;
    }
    for (Eigen::Index i = 0; i < a.rows(); ++i) {
        for (Eigen::Index k = 0; k < a.cols(); ++k) c.row(i) += a(i, k) * b.row(k);
    }
}

template <class S>
void add_product_nt(MatrixView<S> c, ConstMatrixView<S> a, ConstMatrixView<S> b, Summation order) {
    if (order == Summation::fast) {
        c.noalias() += a * b.transpose();
        return;
    }
    const Matrix<S> b_transposed = b.transpose();
    add_product<S>(c, a, b_transposed, order);
}

template <class S>
void add_product_tn(MatrixView<S> c, ConstMatrixView<S> a, ConstMatrixView<S> b, Summation order) {
    if (order == Summation::fast) {
        c.noalias() += a.transpose() * b;
        return;
    }
    for (Eigen::Index i = 0; i < a.rows(); ++i) {
        for (Eigen::Index k = 0; k < a.cols(); ++k) c.row(k) += a(i, k) * b.row(i);
    }
}

template void add_product<float>(MatrixView<float>, ConstMatrixView<float>, ConstMatrixView<float>,
                                 Summation);
template void add_product<double>(MatrixView<double>, ConstMatrixView<double>,
                                  ConstMatrixView<double>, Summation);
template void add_product_nt<float>(MatrixView<float>, ConstMatrixView<float>,
                                    ConstMatrixView<float>, Summation);
template void add_product_nt<double>(MatrixView<double>, ConstMatrixView<double>,
                                     ConstMatrixView<double>, Summation);
template void add_product_tn<float>(MatrixView<float>, ConstMatrixView<float>,
                                    ConstMatrixView<float>, Summation);
template void add_product_tn<double>(MatrixView<double>, ConstMatrixView<double>,
                                     ConstMatrixView<double>, Summation);

}  // namespace headway::runtime
