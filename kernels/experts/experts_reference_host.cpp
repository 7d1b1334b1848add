#include <cmath>
#include <numbers>

#include "kernels/experts/experts_reference.hpp"

namespace headway::kernels::reference {
namespace {

struct Activated {
    double value;
    double slope;
};

Activated activate(Activation act, double x) {
    using std::numbers::pi;
    switch (act) {
        case Activation::gelu_erf: {
            const double phi = 0.5 * std::erfc(-x / std::numbers::sqrt2);
            return {x * phi, phi + x * std::exp(-0.5 * x * x) / std::sqrt(2 * pi)};
        }
        case Activation::gelu_tanh: {
            const double a = std::sqrt(2 / pi);
            const double t = std::tanh(a * (x + 0.044715 * x * x * x));
            const double bend = 0.5 * x * (1 - t * t) * a * (1 + 3 * 0.044715 * x * x);
            return {0.5 * x * (1 + t), 0.5 * (1 + t) + bend};
        }
        case Activation::swiglu: {
            const double s = 1 / (1 + std::exp(-x));
            return {x * s, s + x * s * (1 - s)};
        }
    }
    return {};
}

double dot(const double* a, const double* b, int n) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

void add_scaled(double* out, double scale, const double* v, int n) {
    for (int i = 0; i < n; ++i) out[i] += scale * v[i];
}

void run_row(const HostLayer& layer, int group, int row, HostResult& out) {
    const ExpertShape& s = layer.shape;
    const int d = s.width;
    const int f = s.hidden;
    const double* x = &layer.x[std::size_t(layer.row_token[row]) * d];
    const double* dy = &layer.dy_token[std::size_t(layer.row_token[row]) * d];
    const double gate = layer.row_gate[row];
    for (int h = 0; h < f; ++h) {
        const std::size_t at1 = (std::size_t(group) * s.hidden_rows() + h) * d;
        const std::size_t at_up = at1 + std::size_t(f) * d;
        const std::size_t at2 = (std::size_t(group) * f + h) * d;
        const Activated act = activate(s.activation, dot(&layer.w1[at1], x, d));
        const double up = s.gated() ? dot(&layer.w1[at_up], x, d) : 1.0;
        const double da = dot(&layer.w2[at2], dy, d);
        const double first = gate * da * up * act.slope;
        add_scaled(&out.y[std::size_t(row) * d], act.value * up, &layer.w2[at2], d);
        out.dgate[row] += act.value * up * da;
        add_scaled(&out.dx_row[std::size_t(row) * d], first, &layer.w1[at1], d);
        add_scaled(&out.dw1[at1], first, x, d);
        add_scaled(&out.dw2[at2], gate * act.value * up, dy, d);
        if (!s.gated()) continue;
        const double second = gate * da * act.value;
        add_scaled(&out.dx_row[std::size_t(row) * d], second, &layer.w1[at_up], d);
        add_scaled(&out.dw1[at_up], second, x, d);
    }
}

}  // namespace

HostResult run_on_host(const HostLayer& layer) {
    const std::size_t rows = std::size_t(layer.shape.num_rows);
    const std::size_t d = std::size_t(layer.shape.width);
    HostResult out{std::vector<double>(rows * d), std::vector<double>(rows * d),
                   std::vector<double>(rows), std::vector<double>(layer.w1.size()),
                   std::vector<double>(layer.w2.size())};
    for (int g = 0; g < layer.shape.num_groups; ++g)
        for (int row = layer.expert_offset[g]; row < layer.expert_offset[g + 1]; ++row)
            run_row(layer, g, row, out);
    return out;
}

}  // namespace headway::kernels::reference
