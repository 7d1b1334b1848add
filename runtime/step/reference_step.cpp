#include "runtime/step/reference_step.hpp"

#include <bit>
#include <cmath>

namespace headway::runtime {
namespace {

CallSite forward_of(Phase phase) {
    return {phase, Pass::forward};
}
CallSite backward_of(Phase phase) {
    return {phase, Pass::backward};
}

// To the nearest bf16, ties to even.
float to_bf16(float value) {
    auto bits = std::bit_cast<std::uint32_t>(value);
    bits += 0x7FFFu + ((bits >> 16) & 1u);
    return std::bit_cast<float>(bits & 0xFFFF0000u);
}

template <class S>
std::vector<S> as_read(const StepParameters& parameters, Dtype dtype, std::vector<S> values) {
    if (dtype != Dtype::bf16) return values;
    for (const Section& section : parameters.sections) {
        for (const WeightTensor& t : section.tensors) {
            if (t.is_fp32) continue;
            for (std::int64_t i = t.place; i < t.place + t.count(); ++i) {
                S& value = values[static_cast<std::size_t>(i)];
                value = static_cast<S>(to_bf16(static_cast<float>(value)));
            }
        }
    }
    return values;
}

// ln sum_v exp z_v
template <class Row>
typename Row::Scalar log_sum(const Row& logits) {
    const auto top = logits.maxCoeff();
    return top + std::log((logits.array() - top).exp().sum());
}

}  // namespace

StepRouting step_routing(const Scenario& scenario, const StepSetup& setup, bool forced) {
    StepRouting routing;
    for (int i = 0; forced && i < setup.model.num_moe_layers(); ++i)
        routing.push_back(layer_routing(scenario, setup.moe, setup.model.moe_layer(i)));
    return routing;
}

std::vector<std::span<const std::int32_t>> forced_choices(const StepSetup& setup,
                                                          const StepRouting& routing, int layer,
                                                          int rank) {
    if (routing.empty()) return {};
    std::size_t moe = 0;
    while (setup.model.moe_layer(static_cast<int>(moe)) != layer) ++moe;
    if (!setup.moe.head_parallel)
        return {routing[moe].front()[static_cast<std::size_t>(rank)].expert};
    const HpShape& hp = setup.moe.hp;
    std::vector<std::span<const std::int32_t>> choices;
    for (const HeadBlock& block : head_blocks(hp, rank)) {
        const auto head = static_cast<std::size_t>(hp.first_head(rank) + block.rows.head);
        choices.emplace_back(routing[moe][head][static_cast<std::size_t>(block.source)].expert);
    }
    return choices;
}

template <class S>
ReferenceStep<S>::ReferenceStep(RankContext& context, const StepSetup& setup,
                                const StepRouting& routing)
    : context_(context),
      setup_(setup),
      routing_(routing),
      parameters_(step_parameters(setup, context.communicator.rank())),
      master_(draw_parameters<S>(parameters_)),
      first_(master_.size()),
      second_(master_.size()),
      layers_(static_cast<std::size_t>(setup.model.num_layers)) {}

template <class S>
void ReferenceStep<S>::start(std::vector<StepTokens> tokens) {
    tokens_ = std::move(tokens);
    read_ = as_read(parameters_, setup_.model.dtype, master_);
    gradient_.assign(master_.size(), S(0));
    loss_ = 0.0;
    marks_.clear();
}

template <class S>
void ReferenceStep<S>::begin_block(const Block& block) {
    micro_batch_ = static_cast<std::size_t>(block.micro_batch);
    marks_.begin(block, context_.samples != nullptr ? context_.samples->size() : 0);
}

template <class S>
AttentionDims ReferenceStep<S>::attention() const {
    const Attention& a = setup_.model.attention;
    return {setup_.sequence_length, a.num_heads, a.num_kv_heads, a.head_width};
}

template <class S>
void ReferenceStep<S>::before(Pass pass) {
    const PhaseScope scope(context_, {Phase::embed, pass});
    const WeightTensor& table = parameters_.before()["embedding"];
    const std::vector<std::int32_t>& input = tokens_[micro_batch_].input;
    const auto rows = static_cast<Eigen::Index>(input.size());
    Eigen::Map<Matrix<S>> gradient(gradient_.data() + table.place, table.rows, table.columns);
    const Eigen::Map<const Matrix<S>> embedding(read_.data() + table.place, table.rows,
                                                table.columns);
    if (pass == Pass::forward) {
        x_.resize(rows, table.columns);
        delta_.resize(0, 0);
    }
    for (Eigen::Index t = 0; t < rows; ++t) {
        const Eigen::Index token = input[static_cast<std::size_t>(t)];
        if (pass == Pass::forward)
            x_.row(t) = embedding.row(token);
        else
            gradient.row(token) += dy_.row(t);
    }
}

template <class S>
void ReferenceStep<S>::layer(int index, Pass pass) {
    pass == Pass::forward ? forward(index) : backward(index);
}

template <class S>
void ReferenceStep<S>::forward(int index) {
    LayerState& state = layers_[static_cast<std::size_t>(index)];
    state = {.weights = read_block(setup_, parameters_, index, read_.data())};
    half_forward<S>(context_, attention(), state.weights.half, x_, delta_, kNormEpsilon,
                    state.half);
    delta_ = feed_forward(index, state);
    x_ = state.half.h;
    drop(setup_.again[static_cast<std::size_t>(index)], state);
}

// What backward starts from stays. (Experts that run again are dropped by the layer.)
template <class S>
void ReferenceStep<S>::drop(Again again, LayerState& state) {
    if (again == Again::layer) state.half = {.sum = std::move(state.half.sum)};
    if (again != Again::layer && again != Again::feed_forward) return;
    state.ep = {.sparse = counts_alone(state.ep.sparse)};
    state.hp = {};
    state.ffn = {};
}

template <class S>
void ReferenceStep<S>::compute_again(int index, LayerState& state) {
    const Again again = setup_.again[static_cast<std::size_t>(index)];
    const RepeatedForward repeated(context_);
    if (again == Again::layer) {
        const Matrix<S> sum = std::move(state.half.sum), no_delta;
        state.half = {};
        half_forward<S>(context_, attention(), state.weights.half, sum, no_delta, kNormEpsilon,
                        state.half);
    }
    if (again == Again::layer || again == Again::feed_forward) feed_forward(index, state);
}

template <class S>
Matrix<S> ReferenceStep<S>::feed_forward(int index, LayerState& state) {
    const ModelSpec& model = setup_.model;
    const Matrix<S>& x = state.half.normed2;
    if (!model.is_moe_layer(index)) {
        const PhaseScope scope(context_, forward_of(Phase::dense_mlp));
        state.ffn.x = x;
        const std::int64_t all[] = {0, x.rows()};
        return expert_forward<S>(model.dense_activation, {&state.weights.dense, 1}, all, state.ffn,
                                 Summation::fast);
    }
    const auto choices = forced_choices(setup_, routing_, index, context_.communicator.rank());
    if (setup_.moe.head_parallel)
        return hp_forward<S>(context_, nullptr, setup_.moe.hp, state.weights.hp, x, state.hp,
                             choices);
    return ep_forward<S>(context_, setup_.moe.ep, state.weights.ep, x, state.ep,
                         choices.empty() ? std::span<const std::int32_t>{} : choices.front());
}

template <class S>
Matrix<S> ReferenceStep<S>::feed_backward(int index, const LayerState& state,
                                          BlockWeights<S>& gradients) {
    const ModelSpec& model = setup_.model;
    const Matrix<S>& x = state.half.normed2;
    if (!model.is_moe_layer(index)) {
        const PhaseScope scope(context_, backward_of(Phase::dense_mlp));
        const std::int64_t all[] = {0, x.rows()};
        return expert_backward<S>(model.dense_activation, {&state.weights.dense, 1}, all, state.ffn,
                                  dy_, Summation::fast, {&gradients.dense, 1});
    }
    if (setup_.moe.head_parallel)
        return hp_backward<S>(context_, nullptr, setup_.moe.hp, state.weights.hp, x, state.hp, dy_,
                              gradients.hp);
    return ep_backward<S>(context_, setup_.moe.ep, state.weights.ep, x, state.ep, dy_,
                          gradients.ep);
}

template <class S>
void ReferenceStep<S>::backward(int index) {
    LayerState& state = layers_[static_cast<std::size_t>(index)];
    compute_again(index, state);
    BlockWeights<S> gradients = zero_gradients(state.weights);
    const Matrix<S> d_normed = feed_backward(index, state, gradients);
    dy_ = half_backward<S>(context_, attention(), state.weights.half, state.half, d_normed, dy_,
                           kNormEpsilon, gradients.half);
    add_block(setup_, parameters_, index, gradients, gradient_.data());
    state = {};
}

template <class S>
void ReferenceStep<S>::after() {
    const Section& section = parameters_.after();
    const WeightTensor &norm = section["final_norm"], &head = section["head"];
    const Matrix<S> norm_weight = read_matrix(norm, read_.data()),
                    head_weight = read_matrix(head, read_.data());
    Matrix<S> sum, normed, logits, log_sums;
    const auto target = [&](Eigen::Index t) {
        return tokens_[micro_batch_].target[static_cast<std::size_t>(t)];
    };
    {
        const PhaseScope scope(context_, forward_of(Phase::norm));
        sum = x_ + delta_;
        normed = rms_norm<S>(sum, norm_weight, kNormEpsilon);
    }
    {
        const PhaseScope scope(context_, forward_of(Phase::lm_head));
        logits = Matrix<S>::Zero(normed.rows(), head_weight.rows());
        add_product_nt<S>(logits, normed, head_weight, Summation::fast);
    }
    const double scale = 1.0 / static_cast<double>(setup_.all_tokens());
    {
        const PhaseScope scope(context_, forward_of(Phase::loss));
        log_sums.resize(logits.rows(), 1);
        for (Eigen::Index t = 0; t < logits.rows(); ++t) {
            log_sums(t) = log_sum(logits.row(t));
            loss_ += scale * static_cast<double>(log_sums(t) - logits(t, target(t)));
        }
    }
    {
        const PhaseScope scope(context_, backward_of(Phase::loss));
        for (Eigen::Index t = 0; t < logits.rows(); ++t) {
            logits.row(t).array() = (logits.row(t).array() - log_sums(t)).exp();
            logits(t, target(t)) -= S(1);
        }
        logits *= static_cast<S>(scale);
    }
    {
        const PhaseScope scope(context_, backward_of(Phase::lm_head));
        Eigen::Map<Matrix<S>> gradient(gradient_.data() + head.place, head.rows, head.columns);
        add_product_tn<S>(gradient, logits, normed, Summation::fast);
        normed.setZero();
        add_product<S>(normed, logits, head_weight, Summation::fast);
    }
    const PhaseScope scope(context_, backward_of(Phase::norm));
    Matrix<S> d_weight = Matrix<S>::Zero(1, norm.columns);
    dy_ = rms_norm_gradient<S>(sum, norm_weight, normed, kNormEpsilon, d_weight);
    Eigen::Map<Matrix<S>>(gradient_.data() + norm.place, 1, norm.columns) += d_weight;
}

template <class S>
void ReferenceStep<S>::reduce(const Section& section) {
    context_.communicator.all_reduce_sum(
        std::span(gradient_).subspan(static_cast<std::size_t>(section.begin),
                                     static_cast<std::size_t>(section.own - section.begin)));
}

template <class S>
void ReferenceStep<S>::bucket(int layer) {
    if (setup_.num_ranks == 1) return;
    const PhaseScope scope(context_, {Phase::grad_all_reduce, Pass::update},
                           &context_.communicator);
    if (layer + 1 == setup_.model.num_layers) reduce(parameters_.after());
    reduce(parameters_.layer(layer));
}

template <class S>
void ReferenceStep<S>::update() {
    if (setup_.num_ranks > 1) {
        const PhaseScope scope(context_, {Phase::grad_all_reduce, Pass::update},
                               &context_.communicator);
        reduce(parameters_.before());
    }
    const PhaseScope scope(context_, {Phase::optimizer, Pass::update});
    adamw();
}

// m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, p -= lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)
template <class S>
void ReferenceStep<S>::adamw() {
    const StepOptimizer& o = setup_.optimizer;
    ++step_;
    const double first = 1.0 - std::pow(o.beta1, step_), second = 1.0 - std::pow(o.beta2, step_);
    for (std::size_t i = 0; i < master_.size(); ++i) {
        const double g = static_cast<double>(gradient_[i]);
        first_[i] = static_cast<S>(o.beta1 * static_cast<double>(first_[i]) + (1.0 - o.beta1) * g);
        second_[i] =
            static_cast<S>(o.beta2 * static_cast<double>(second_[i]) + (1.0 - o.beta2) * g * g);
        master_[i] -=
            static_cast<S>(o.learning_rate * (static_cast<double>(first_[i]) / first) /
                           (std::sqrt(static_cast<double>(second_[i]) / second) + o.epsilon));
    }
}

template class ReferenceStep<float>;
template class ReferenceStep<double>;

}  // namespace headway::runtime
