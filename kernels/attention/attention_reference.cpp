#include <algorithm>
#include <cmath>

#include "kernels/attention/attention.hpp"

namespace headway::kernels {
namespace {

/// One head of one sequence, of whose rows the pointers are the first.
struct HostHead {
    const AttentionShape& shape;
    int head;
    const double* qkv;
    const double* d_o;
    double* o;
    double* dqkv;

    /// Where row i of Q (part 0), K (1) or V (2) begins.
    [[nodiscard]] std::int64_t at(int part, int row) const {
        const int heads = part == 0 ? head
                                    : shape.num_heads + (part - 1) * shape.kv_heads() +
                                          head / (shape.num_heads / shape.kv_heads());
        return std::int64_t{row} * shape.qkv_width() + heads * shape.head_dim;
    }
    [[nodiscard]] double dot(const double* a, const double* b) const {
        double sum = 0;
        for (int i = 0; i < shape.head_dim; ++i) sum += a[i] * b[i];
        return sum;
    }
    void add(double* to, double factor, const double* from) const {
        for (int i = 0; i < shape.head_dim; ++i) to[i] += factor * from[i];
    }
    [[nodiscard]] std::vector<double> probabilities(int row, double scale) const {
        std::vector<double> p(row + 1);
        double top = -INFINITY, sum = 0;
        for (int j = 0; j <= row; ++j) {
            p[j] = scale * dot(qkv + at(0, row), qkv + at(1, j));
            top = std::max(top, p[j]);
        }
        for (double& value : p) sum += value = std::exp(value - top);
        for (double& value : p) value /= sum;
        return p;
    }
    void run_row(int row) const {
        const double scale = 1 / std::sqrt(double(shape.head_dim));
        const std::vector<double> p = probabilities(row, scale);
        const std::int64_t out = std::int64_t{row} * shape.width();
        for (int j = 0; j <= row; ++j) add(o + out, p[j], qkv + at(2, j));
        const double mean = dot(d_o + out, o + out);
        for (int j = 0; j <= row; ++j) {
            const double ds = scale * p[j] * (dot(d_o + out, qkv + at(2, j)) - mean);
            add(dqkv + at(2, j), p[j], d_o + out);
            add(dqkv + at(0, row), ds, qkv + at(1, j));
            add(dqkv + at(1, j), ds, qkv + at(0, row));
        }
    }
};

}  // namespace

HostAttentionResult attention_reference(const HostAttention& a) {
    HostAttentionResult out{.o = std::vector<double>(a.d_o.size()),
                            .dqkv = std::vector<double>(a.qkv.size())};
    for (int sequence = 0; sequence < a.shape.num_sequences; ++sequence)
        for (int head = 0; head < a.shape.num_heads; ++head) {
            const std::int64_t row = std::int64_t{sequence} * a.shape.sequence_length;
            const std::int64_t one = row * a.shape.width() + head * a.shape.head_dim;
            const std::int64_t all = row * a.shape.qkv_width();
            const HostHead part{a.shape,
                                head,
                                a.qkv.data() + all,
                                a.d_o.data() + one,
                                out.o.data() + one,
                                out.dqkv.data() + all};
            for (int i = 0; i < a.shape.sequence_length; ++i) part.run_row(i);
        }
    return out;
}

}  // namespace headway::kernels
