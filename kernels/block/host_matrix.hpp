// Row-major products in fp64 on the host, for the references.
#pragma once

#include <cstddef>
#include <vector>

namespace headway::kernels::host {

using Matrix = std::vector<double>;  // row major

/// C [m, n] = A [m, k] B [n, k]^T
inline Matrix times_transposed(const Matrix& a, const double* b, int m, int n, int k) {
    Matrix c(std::size_t(m) * n);
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
            double sum = 0;
            for (int l = 0; l < k; ++l)
                sum += a[std::size_t(i) * k + l] * b[std::size_t(j) * k + l];
            c[std::size_t(i) * n + j] = sum;
        }
    return c;
}

/// C [m, n] = A [m, k] B [k, n]
inline Matrix times(const Matrix& a, const double* b, int m, int n, int k) {
    Matrix c(std::size_t(m) * n);
    for (int i = 0; i < m; ++i)
        for (int l = 0; l < k; ++l)
            for (int j = 0; j < n; ++j)
                c[std::size_t(i) * n + j] += a[std::size_t(i) * k + l] * b[std::size_t(l) * n + j];
    return c;
}

/// C [m, n] = A [rows, m]^T B [rows, n]
inline void transposed_times(const Matrix& a, const Matrix& b, int m, int n, double* c) {
    for (std::size_t row = 0; row < a.size() / std::size_t(m); ++row)
        for (int i = 0; i < m; ++i)
            for (int j = 0; j < n; ++j)
                c[std::size_t(i) * n + j] += a[row * m + i] * b[row * n + j];
}

inline void add(Matrix& to, const Matrix& from) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

}  // namespace headway::kernels::host
