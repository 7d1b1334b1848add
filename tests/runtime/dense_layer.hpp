// An independent evaluation of the MoE layers in fp64: every expert on every token, masked by the
// choice, in scalar loops. Shares no code with runtime/reference but the weights' types.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "runtime/reference/weights.hpp"

namespace headway::runtime::dense {

using Vector = std::vector<double>;

inline double act(Activation a, double z, double g) {
    switch (a) {
        case Activation::gelu:
            return 0.5 * z * (1.0 + std::erf(z / std::sqrt(2.0)));
        case Activation::gelu_tanh:
            return 0.5 * z *
                   (1.0 + std::tanh(std::sqrt(2.0 / 3.14159265358979323846) *
                                    (z + 0.044715 * z * z * z)));
        case Activation::quick_geglu:
            g = std::min(g, 7.0);
            return (1.0 + std::clamp(z, -7.0, 7.0)) * g / (1.0 + std::exp(-1.702 * g));
        case Activation::swiglu:
            break;
    }
    return z * g / (1.0 + std::exp(-g));
}

inline Vector times(const Vector& x, const Matrix<double>& w) {  // x w
    Vector y(static_cast<std::size_t>(w.cols()), 0.0);
    for (Eigen::Index i = 0; i < w.rows(); ++i) {
        for (Eigen::Index j = 0; j < w.cols(); ++j)
            y[static_cast<std::size_t>(j)] += x[static_cast<std::size_t>(i)] * w(i, j);
    }
    return y;
}

inline Vector ffn(Activation a, const ExpertWeights<double>& w, const Vector& x) {
    Vector hidden = times(x, w.up);
    const Vector g = is_gated(a) ? times(x, w.gate) : hidden;
    for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] = act(a, hidden[i], g[i]);
    return times(hidden, w.down);
}

// Chosen experts of a row of logits, by sorting all of them.
inline std::vector<int> choose(const Vector& logits, const Vector& bias, int k) {
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    const auto key = [&](int e) {
        const auto i = static_cast<std::size_t>(e);
        return logits[i] + (bias.empty() ? 0.0 : bias[i]);
    };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key(a) > key(b); });
    order.resize(static_cast<std::size_t>(k));
    return order;
}

// Gated sum of the chosen experts of one row; `x` is what the experts see, `seen` the router.
inline Vector mixture(Activation a, const RouterWeights<double>& router,
                      std::span<const ExpertWeights<double>> experts, int k, const Vector& seen,
                      const Vector& x, const std::int32_t* forced) {
    Vector logits(experts.size(), 0.0);
    for (std::size_t e = 0; e < experts.size(); ++e) {
        for (std::size_t i = 0; i < seen.size(); ++i)
            logits[e] +=
                seen[i] * router.weight(static_cast<Eigen::Index>(e), static_cast<Eigen::Index>(i));
    }
    std::vector<int> chosen = choose(logits, router.bias, k);
    if (forced != nullptr) chosen.assign(forced, forced + k);
    double sum = 0.0;
    for (int e : chosen) sum += std::exp(logits[static_cast<std::size_t>(e)]);
    Vector y(x.size(), 0.0);
    for (std::size_t e = 0; e < experts.size(); ++e) {
        const bool is_chosen =
            std::find(chosen.begin(), chosen.end(), static_cast<int>(e)) != chosen.end();
        const double gate = is_chosen ? std::exp(logits[e]) / sum : 0.0;
        const Vector out = ffn(a, experts[e], x);
        for (std::size_t i = 0; i < y.size(); ++i) y[i] += gate * out[i];
    }
    return y;
}

inline void add_to(Vector& y, const Vector& x) {
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += x[i];
}

// `w` holds all experts (the weights of one rank of one). forced: [tokens, k] or null.
inline Matrix<double> ep(Activation a, int k, const EpWeights<double>& w, const Matrix<double>& x,
                         const std::int32_t* forced = nullptr) {
    Matrix<double> y(x.rows(), x.cols());
    for (Eigen::Index t = 0; t < x.rows(); ++t) {
        const Vector token(x.row(t).begin(), x.row(t).end());
        const bool latent = w.latent_down.size() > 0;
        Vector out =
            mixture(a, w.router, w.experts, k, token, latent ? times(token, w.latent_down) : token,
                    forced == nullptr ? nullptr : forced + t * k);
        if (latent) out = times(out, w.latent_up);
        if (w.shared) add_to(out, ffn(a, *w.shared, token));
        for (Eigen::Index i = 0; i < x.cols(); ++i) y(t, i) = out[static_cast<std::size_t>(i)];
    }
    return y;
}

// forced[h]: [tokens, k] of head h, or empty.
inline Matrix<double> hp(Activation a, int num_experts, int k, const HpWeights<double>& w,
                         const Matrix<double>& x,
                         const std::vector<std::vector<std::int32_t>>& forced = {}) {
    const auto heads = w.routers.size(), experts = static_cast<std::size_t>(num_experts);
    Matrix<double> y(x.rows(), x.cols());
    for (Eigen::Index t = 0; t < x.rows(); ++t) {
        const Vector token(x.row(t).begin(), x.row(t).end());
        const Vector projected = times(token, w.project);
        const std::size_t width = projected.size() / heads;
        Vector merged;
        for (std::size_t h = 0; h < heads; ++h) {
            const auto begin = projected.begin() + static_cast<std::ptrdiff_t>(h * width);
            const Vector sub(begin, begin + static_cast<std::ptrdiff_t>(width));
            const Vector out =
                mixture(a, w.routers[h], std::span(w.experts).subspan(h * experts, experts), k, sub,
                        sub, forced.empty() ? nullptr : forced[h].data() + t * k);
            merged.insert(merged.end(), out.begin(), out.end());
        }
        Vector out = times(merged, w.merge);
        if (w.shared) add_to(out, ffn(a, *w.shared, token));
        for (Eigen::Index i = 0; i < x.cols(); ++i) y(t, i) = out[static_cast<std::size_t>(i)];
    }
    return y;
}

}  // namespace headway::runtime::dense
