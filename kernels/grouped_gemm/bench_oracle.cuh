// fp64 oracles of the grouped GEMM for checks: exact products of sampled rows (of C) or lines (of
// dW), from the same bf16 inputs. Sampling keeps large shapes affordable; small shapes are checked
// whole.
#pragma once

#include <algorithm>
#include <random>

#include "kernels/bench/device.hpp"
#include "kernels/grouped_gemm/activation.cuh"

namespace headway::kernels::bench {

__device__ inline double to_double(bf16 x) {
    return static_cast<double>(__bfloat162float(x));
}
__device__ inline double to_double(double x) {
    return x;
}

__device__ inline double gelu_double(double x, GroupedActivation act) {
    if (act == GroupedActivation::gelu_erf) return 0.5 * x * erfc(-x * 0.70710678118654752);
    const double inner = 0.79788456080286536 * (x + 0.044715 * x * x * x);
    return act == GroupedActivation::gelu_tanh ? 0.5 * x * (1 + tanh(inner)) : x;
}

__device__ inline double gelu_slope_double(double x, GroupedActivation act) {
    if (act == GroupedActivation::gelu_erf)
        return 0.5 * erfc(-x * 0.70710678118654752) + x * 0.39894228040143268 * exp(-0.5 * x * x);
    const double t = tanh(0.79788456080286536 * (x + 0.044715 * x * x * x));
    const double slope = 0.79788456080286536 * (1 + 0.134145 * x * x);
    return act == GroupedActivation::gelu_tanh ? 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope
                                               : 1.0;
}

// out[s, j] = f(sum_i a[row(s), i] w[group(s)](j, i)); `gathered`: a is already indexed by sample.
// W element (j, i) is at j * w_row + i * w_column. With `slope_at`, out is the sum times
// act'(slope_at).
template <typename In>
__global__ void oracle_rows(const In* a, bool gathered, const int* rows, const int* groups,
                            const bf16* w, std::int64_t w_group, int w_row, int w_column,
                            int length, int columns, GroupedActivation act, const double* slope_at,
                            double* out) {
    const int sample = blockIdx.x;
    const In* line = a + std::int64_t(gathered ? sample : rows[sample]) * length;
    const bf16* weights = w + w_group * groups[sample];
    for (int j = threadIdx.x; j < columns; j += blockDim.x) {
        double sum = 0;
        for (int i = 0; i < length; ++i)
            sum += to_double(line[i]) *
                   to_double(weights[std::int64_t(j) * w_row + std::int64_t(i) * w_column]);
        const std::int64_t at = std::int64_t(sample) * columns + j;
        out[at] = slope_at != nullptr ? sum * gelu_slope_double(slope_at[at], act)
                                      : gelu_double(sum, act);
    }
}

// SwiGLU: pre [samples, 2 f], blocks of 8 columns of the gate and of up in turn; act [samples, f].
static __global__ void oracle_gate(const double* pre, int f, double* act) {
    for (int j = threadIdx.x; j < f; j += blockDim.x) {
        const double* gate = pre + std::int64_t(blockIdx.x) * 2 * f + j / 8 * 16 + j % 8;
        act[std::int64_t(blockIdx.x) * f + j] = gate[0] / (1 + exp(-gate[0])) * gate[8];
    }
}
// Its gradient: dact [samples, f]; dpre as pre.
static __global__ void oracle_gate_slope(const double* pre, const double* dact, int f,
                                         double* dpre) {
    for (int j = threadIdx.x; j < f; j += blockDim.x) {
        const std::int64_t at = std::int64_t(blockIdx.x) * 2 * f + j / 8 * 16 + j % 8;
        const double gate = pre[at], up = pre[at + 8], s = 1 / (1 + exp(-gate)),
                     d = dact[std::int64_t(blockIdx.x) * f + j];
        dpre[at] = d * up * s * (1 + gate * (1 - s));
        dpre[at + 8] = d * gate * s;
    }
}

// out[s, j] = sum over rows r of group(s) of dc[r, line(s)] a[r, j].
static __global__ void oracle_lines(const bf16* dc, const bf16* a, const int* offsets,
                                    const int* lines, const int* groups, int n, int k,
                                    double* out) {
    const int sample = blockIdx.x, group = groups[sample];
    for (int j = threadIdx.x; j < k; j += blockDim.x) {
        double sum = 0;
        for (std::int64_t r = offsets[group]; r < offsets[group + 1]; ++r)
            sum += to_double(dc[r * n + lines[sample]]) * to_double(a[r * k + j]);
        out[std::int64_t(sample) * k + j] = sum;
    }
}

template <typename T>
__global__ void gather_lines(const T* in, const std::int64_t* index, int columns, T* out) {
    for (int j = threadIdx.x; j < columns; j += blockDim.x)
        out[std::int64_t(blockIdx.x) * columns + j] = in[index[blockIdx.x] * columns + j];
}

struct Ragged {
    std::vector<int> host;
    DeviceBuffer<int> offsets;
};

// Rows per expert: a uniform random assignment; below 4096 rows expert 0 gets none and the last
// gets half.
inline Ragged make_ragged(int num_groups, std::int64_t num_rows, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const bool skewed = num_rows < 4096 && num_groups > 2;
    std::vector<int> counts(num_groups, 0);
    for (std::int64_t r = 0; r < num_rows; ++r) {
        int group = static_cast<int>(random() % num_groups);
        if (skewed && (group == 0 || r % 2 == 0)) group = num_groups - 1;
        ++counts[group];
    }
    Ragged ragged;
    ragged.host.assign(num_groups + 1, 0);
    for (int g = 0; g < num_groups; ++g) ragged.host[g + 1] = ragged.host[g] + counts[g];
    ragged.offsets = DeviceBuffer<int>(num_groups + 1);
    ragged.offsets.from_host(ragged.host);
    return ragged;
}

struct Samples {
    int count = 0;
    DeviceBuffer<int> rows, groups;
    DeviceBuffer<std::int64_t> index;  // of the sampled line in the tested buffer
};

inline Samples upload_samples(const std::vector<int>& rows, const std::vector<int>& groups,
                              const std::vector<std::int64_t>& index) {
    Samples s;
    s.count = static_cast<int>(rows.size());
    s.rows = DeviceBuffer<int>(rows.size());
    s.groups = DeviceBuffer<int>(rows.size());
    s.index = DeviceBuffer<std::int64_t>(rows.size());
    s.rows.from_host(rows);
    s.groups.from_host(groups);
    s.index.from_host(index);
    return s;
}

// All rows of small problems; otherwise every group's first and last row and a stride through the
// rest.
inline Samples sample_rows(const std::vector<int>& offsets) {
    const int total = offsets.back(), stride = total <= 2048 ? 1 : total / 384;
    std::vector<int> rows, groups;
    std::vector<std::int64_t> index;
    for (std::size_t g = 0; g + 1 < offsets.size(); ++g)
        for (int r = offsets[g]; r < offsets[g + 1]; ++r)
            if (r % stride == 0 || r == offsets[g] || r + 1 == offsets[g + 1]) {
                rows.push_back(r);
                groups.push_back(static_cast<int>(g));
                index.push_back(r);
            }
    return upload_samples(rows, groups, index);
}

// Lines of dW: all of small problems, otherwise five per group.
inline Samples sample_lines(int num_groups, int n) {
    const int stride = std::int64_t{n} * num_groups <= 2048 ? 1 : std::max(1, n / 4 - 1);
    std::vector<int> lines, groups;
    std::vector<std::int64_t> index;
    for (int g = 0; g < num_groups; ++g)
        for (int line = 0; line < n; line += stride) {
            lines.push_back(line);
            groups.push_back(g);
            index.push_back(std::int64_t{g} * n + line);
        }
    return upload_samples(lines, groups, index);
}

template <typename T>
double sampled_error(const DeviceBuffer<T>& tested, const Samples& samples, int columns,
                     const DeviceBuffer<double>& expected) {
    DeviceBuffer<T> picked(std::size_t(samples.count) * columns);
    gather_lines<<<samples.count, 256>>>(tested.get(), samples.index.get(), columns, picked.get());
    check_launch();
    return relative_l2(picked.get(), expected.get(), picked.size());
}

}  // namespace headway::kernels::bench
