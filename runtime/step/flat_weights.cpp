#include "runtime/step/flat_weights.hpp"

#include "runtime/reference/weights.hpp"

namespace headway::runtime {
namespace {

// Rows and columns as they lie in the flat array; `matrix` is that or its transpose.
template <class S>
struct Piece {
    std::int64_t place, rows, columns;
    Matrix<S>& matrix;
    bool transposed = false;
};

template <class S, class Visit>
void visit_whole(const WeightTensor& tensor, Matrix<S>& matrix, bool transposed, Visit&& visit) {
    visit(Piece<S>{tensor.place, tensor.rows, tensor.columns, matrix, transposed});
}

struct ExpertDims {
    Activation activation;
    std::int64_t width, hidden;
};

// Expert `e` of the two tensors; `down` lies as [f, width] (HP) or transposed (EP).
template <class S, class Visit>
void visit_expert(const Section& section, const ExpertDims& dims, std::int64_t e,
                  ExpertWeights<S>& expert, bool down_transposed, Visit&& visit) {
    const std::int64_t one = dims.hidden * dims.width;
    std::int64_t first = section["w1"].place + e * (is_gated(dims.activation) ? 2 : 1) * one;
    if (is_gated(dims.activation)) {
        visit(Piece<S>{first, dims.hidden, dims.width, expert.gate, true});
        first += one;
    }
    visit(Piece<S>{first, dims.hidden, dims.width, expert.up, true});
    const std::int64_t second = section["w2"].place + e * one;
    if (down_transposed)
        visit(Piece<S>{second, dims.width, dims.hidden, expert.down, true});
    else
        visit(Piece<S>{second, dims.hidden, dims.width, expert.down, false});
}

template <class S, class Visit>
void visit_hp(const Section& section, const LayerSetup& moe, HpWeights<S>& w, Visit&& visit) {
    const HpShape& hp = moe.hp;
    const int heads = hp.heads_per_rank(), experts = hp.sparse.num_experts;
    const WeightTensor& router = section["router"];
    w.routers.resize(static_cast<std::size_t>(heads));
    w.experts.resize(static_cast<std::size_t>(heads * experts));
    visit_whole(section["project"], w.project, true, visit);
    visit_whole(section["merge"], w.merge, true, visit);
    for (int h = 0; h < heads; ++h)
        visit(Piece<S>{router.place + h * router.part(), experts, hp.head_width,
                       w.routers[static_cast<std::size_t>(h)].weight, false});
    const ExpertDims dims{hp.sparse.activation, hp.head_width, moe.dims.expert_width};
    for (int e = 0; e < heads * experts; ++e)
        visit_expert(section, dims, e, w.experts[static_cast<std::size_t>(e)], false, visit);
}

template <class S, class Visit>
void visit_ep(const Section& section, const LayerSetup& moe, EpWeights<S>& w, Visit&& visit) {
    const int own = moe.ep.sparse.num_experts / moe.num_ranks;
    w.experts.resize(static_cast<std::size_t>(own));
    visit_whole(section["router"], w.router.weight, false, visit);
    const ExpertDims dims{moe.ep.sparse.activation, moe.dims.hidden, moe.dims.expert_width};
    for (int e = 0; e < own; ++e)
        visit_expert(section, dims, e, w.experts[static_cast<std::size_t>(e)], true, visit);
}

template <class S, class Visit>
void visit_block(const StepSetup& setup, const Section& section, int layer, BlockWeights<S>& w,
                 Visit&& visit) {
    visit_whole(section["norm1"], w.half.norm1, false, visit);
    visit_whole(section["norm2"], w.half.norm2, false, visit);
    visit_whole(section["qkv"], w.half.qkv, false, visit);
    visit_whole(section["output"], w.half.output, false, visit);
    const ModelSpec& model = setup.model;
    if (!model.is_moe_layer(layer))
        visit_expert(section, {model.dense_activation, model.hidden, model.dense_width}, 0, w.dense,
                     true, visit);
    else if (setup.moe.head_parallel)
        visit_hp(section, setup.moe, w.hp, visit);
    else
        visit_ep(section, setup.moe, w.ep, visit);
}

template <class S>
Matrix<S> zero(const Matrix<S>& m) {
    return Matrix<S>::Zero(m.rows(), m.cols());
}

}  // namespace

template <class S>
Matrix<S> read_matrix(const WeightTensor& tensor, const S* flat) {
    return Eigen::Map<const Matrix<S>>(flat + tensor.place, tensor.rows, tensor.columns);
}

template <class S>
BlockWeights<S> read_block(const StepSetup& setup, const StepParameters& parameters, int layer,
                           const S* flat) {
    BlockWeights<S> weights;
    visit_block(setup, parameters.layer(layer), layer, weights, [flat](const Piece<S>& piece) {
        const Eigen::Map<const Matrix<S>> lies(flat + piece.place, piece.rows, piece.columns);
        piece.matrix = piece.transposed ? Matrix<S>(lies.transpose()) : Matrix<S>(lies);
    });
    return weights;
}

template <class S>
BlockWeights<S> zero_gradients(const BlockWeights<S>& w) {
    return {{zero(w.half.norm1), zero(w.half.norm2), zero(w.half.qkv), zero(w.half.output)},
            zeros_like(w.ep),
            zeros_like(w.hp),
            {zero(w.dense.up), zero(w.dense.gate), zero(w.dense.down)}};
}

template <class S>
void add_block(const StepSetup& setup, const StepParameters& parameters, int layer,
               BlockWeights<S>& gradients, S* flat) {
    visit_block(setup, parameters.layer(layer), layer, gradients, [flat](const Piece<S>& piece) {
        Eigen::Map<Matrix<S>> lies(flat + piece.place, piece.rows, piece.columns);
        if (piece.transposed)
            lies += piece.matrix.transpose();
        else
            lies += piece.matrix;
    });
}

#define HEADWAY_INSTANTIATE(S)                                                           \
    template Matrix<S> read_matrix<S>(const WeightTensor&, const S*);                    \
    template BlockWeights<S> read_block<S>(const StepSetup&, const StepParameters&, int, \
                                           const S*);                                    \
    template BlockWeights<S> zero_gradients<S>(const BlockWeights<S>&);                  \
    template void add_block<S>(const StepSetup&, const StepParameters&, int, BlockWeights<S>&, S*)
HEADWAY_INSTANTIATE(float);
HEADWAY_INSTANTIATE(double);
#undef HEADWAY_INSTANTIATE

}  // namespace headway::runtime
