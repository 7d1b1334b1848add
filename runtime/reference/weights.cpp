#include "runtime/reference/weights.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "models/workload/random.hpp"

namespace headway::runtime {

namespace {

enum Tensor : std::uint64_t { router, bias, up, gate, down, project, merge, latent, shared, token };

template <class S>
Matrix<S> draw(Eigen::Index rows, Eigen::Index cols, double fan_in,
               std::initializer_list<std::uint64_t> key) {
    Random random(key);
    Matrix<S> result(rows, cols);
    const double scale = 1.0 / std::sqrt(std::max(fan_in, 1.0));
    for (Eigen::Index i = 0; i < rows; ++i) {
        for (Eigen::Index j = 0; j < cols; ++j)
            result(i, j) = static_cast<S>(scale * random.normal());
    }
    return result;
}

template <class S>
ExpertWeights<S> draw_expert(int width, int f, Activation activation, std::uint64_t seed,
                             std::uint64_t head, std::uint64_t expert) {
    ExpertWeights<S> weights;
    weights.up = draw<S>(width, f, width, {seed, up, head, expert});
    if (is_gated(activation)) weights.gate = draw<S>(width, f, width, {seed, gate, head, expert});
    weights.down = draw<S>(f, width, f, {seed, down, head, expert});
    return weights;
}

template <class S>
RouterWeights<S> draw_router(const ModelDims& dims, int experts, int width, std::uint64_t seed,
                             std::uint64_t head) {
    RouterWeights<S> weights{draw<S>(experts, width, width, {seed, router, head}), {}};
    if (dims.aux_free_bias) {
        const Matrix<S> row = draw<S>(1, experts, 100.0, {seed, bias, head});
        weights.bias.assign(row.data(), row.data() + experts);
    }
    return weights;
}

template <class S>
ExpertWeights<S> zeros(const ExpertWeights<S>& w) {
    const auto like = [](const Matrix<S>& m) { return Matrix<S>::Zero(m.rows(), m.cols()); };
    return {like(w.up), like(w.gate), like(w.down)};
}

template <class S>
RouterWeights<S> zeros(const RouterWeights<S>& w) {
    return {Matrix<S>::Zero(w.weight.rows(), w.weight.cols()), {}};
}

}  // namespace

template <class S>
EpWeights<S> make_ep_weights(const ModelDims& dims, const EpShape& shape, int num_ranks, int rank,
                             std::uint64_t seed) {
    const SparseShape& sparse = shape.sparse;
    EpWeights<S> w;
    w.router = draw_router<S>(dims, sparse.num_experts, dims.hidden, seed, 0);
    const int width = dims.latent_width > 0 ? dims.latent_width : dims.hidden;
    if (dims.latent_width > 0) {
        w.latent_down = draw<S>(dims.hidden, width, dims.hidden, {seed, latent, 0});
        w.latent_up = draw<S>(width, dims.hidden, width, {seed, latent, 1});
    }
    const int local = sparse.num_experts / num_ranks;
    for (int e = 0; e < local; ++e) {
        w.experts.push_back(draw_expert<S>(width, dims.expert_width, sparse.activation, seed, 0,
                                           static_cast<std::uint64_t>(rank * local + e)));
    }
    if (dims.shared_width > 0) {
        w.shared = draw_expert<S>(dims.hidden, dims.shared_width, sparse.activation, seed,
                                  Tensor::shared, 0);
    }
    return w;
}

template <class S>
HpWeights<S> make_hp_weights(const ModelDims& dims, const HpShape& shape, int rank,
                             std::uint64_t seed) {
    const int total = shape.num_heads * shape.head_width;
    HpWeights<S> w;
    w.project = draw<S>(dims.hidden, total, dims.hidden, {seed, project});
    w.merge = draw<S>(total, dims.hidden, total, {seed, merge});
    const int local = shape.sparse.num_experts / shape.sharers();
    const int first_expert = rank % shape.sharers() * local;
    for (int h = 0; h < shape.heads_per_rank(); ++h) {
        const auto head = static_cast<std::uint64_t>(shape.first_head(rank) + h);
        w.routers.push_back(
            draw_router<S>(dims, shape.sparse.num_experts, shape.head_width, seed, head));
        for (int e = 0; e < local; ++e) {
            w.experts.push_back(draw_expert<S>(shape.head_width, dims.expert_width,
                                               shape.sparse.activation, seed, head,
                                               static_cast<std::uint64_t>(first_expert + e)));
        }
    }
    if (dims.shared_width > 0) {
        w.shared = draw_expert<S>(dims.hidden, dims.shared_width, shape.sparse.activation, seed,
                                  Tensor::shared, 0);
    }
    return w;
}

template <class S>
Matrix<S> make_tokens(std::int64_t num_tokens, int hidden, int source_rank, std::uint64_t seed) {
    return draw<S>(num_tokens, hidden, 1.0, {seed, token, static_cast<std::uint64_t>(source_rank)});
}

template <class S>
EpWeights<S> zeros_like(const EpWeights<S>& w) {
    EpWeights<S> g;
    g.router = zeros(w.router);
    for (const auto& expert : w.experts) g.experts.push_back(zeros(expert));
    g.latent_down = Matrix<S>::Zero(w.latent_down.rows(), w.latent_down.cols());
    g.latent_up = Matrix<S>::Zero(w.latent_up.rows(), w.latent_up.cols());
    if (w.shared) g.shared = zeros(*w.shared);
    return g;
}

template <class S>
HpWeights<S> zeros_like(const HpWeights<S>& w) {
    HpWeights<S> g;
    g.project = Matrix<S>::Zero(w.project.rows(), w.project.cols());
    g.merge = Matrix<S>::Zero(w.merge.rows(), w.merge.cols());
    for (const auto& router_weights : w.routers) g.routers.push_back(zeros(router_weights));
    for (const auto& expert : w.experts) g.experts.push_back(zeros(expert));
    if (w.shared) g.shared = zeros(*w.shared);
    return g;
}

template EpWeights<float> make_ep_weights<float>(const ModelDims&, const EpShape&, int, int,
                                                 std::uint64_t);
template HpWeights<float> make_hp_weights<float>(const ModelDims&, const HpShape&, int,
                                                 std::uint64_t);
template Matrix<float> make_tokens<float>(std::int64_t, int, int, std::uint64_t);
template EpWeights<float> zeros_like<float>(const EpWeights<float>&);
template HpWeights<float> zeros_like<float>(const HpWeights<float>&);
template EpWeights<double> make_ep_weights<double>(const ModelDims&, const EpShape&, int, int,
                                                   std::uint64_t);
template HpWeights<double> make_hp_weights<double>(const ModelDims&, const HpShape&, int,
                                                   std::uint64_t);
template Matrix<double> make_tokens<double>(std::int64_t, int, int, std::uint64_t);
template EpWeights<double> zeros_like<double>(const EpWeights<double>&);
template HpWeights<double> zeros_like<double>(const HpWeights<double>&);

}  // namespace headway::runtime
