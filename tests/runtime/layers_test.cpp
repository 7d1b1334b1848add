// The reference layers against an independent dense evaluation, against finite differences, and N
// ranks against one.
#include <gtest/gtest.h>

#include <functional>

#include "models/vocab/error.hpp"
#include "tests/runtime/dense_layer.hpp"
#include "tests/runtime/run_layers.hpp"

namespace headway::runtime {
namespace {

EpWeights<double> full_ep_weights(const LayerCase& c) {
    return make_ep_weights<double>(c.dims(), c.ep(), 1, 0, kSeed);
}
HpWeights<double> full_hp_weights(const LayerCase& c) {
    HpShape shape = c.hp();
    shape.tokens = {0};
    return make_hp_weights<double>(c.dims(), shape, 0, kSeed);
}

double max_difference(const Matrix<double>& a, const Matrix<double>& b) {
    EXPECT_EQ(a.rows(), b.rows());
    EXPECT_EQ(a.cols(), b.cols());
    return a.size() == 0 ? 0.0 : (a - b).cwiseAbs().maxCoeff();
}

std::vector<LayerCase> ep_cases() {
    std::vector<LayerCase> cases;
    for (Dedup dedup : {Dedup::none, Dedup::rank}) {
        for (Activation a : {Activation::gelu, Activation::gelu_tanh, Activation::swiglu,
                             Activation::quick_geglu}) {
            cases.push_back({.activation = a, .dedup = dedup});
        }
        cases.push_back({.top_k = 1, .dedup = dedup});
        cases.push_back({.top_k = 4, .dedup = dedup});              // k = E
        cases.push_back({.tokens = {4, 0, 7, 1}, .dedup = dedup});  // E = N, an idle rank
        cases.push_back({.num_experts = 8, .top_k = 3, .tokens = {9, 2}, .dedup = dedup});
        cases.push_back({.tokens = {6}, .dedup = dedup});  // one rank
        cases.push_back({.dedup = dedup, .latent_width = 3, .shared_width = 4});
        cases.push_back({.tokens = {0, 0}, .dedup = dedup});
        cases.push_back({.dedup = dedup, .aux_free_bias = true});
    }
    return cases;
}

std::vector<LayerCase> hp_cases() {
    std::vector<LayerCase> cases;
    for (Activation a :
         {Activation::gelu, Activation::gelu_tanh, Activation::swiglu, Activation::quick_geglu}) {
        cases.push_back({.activation = a, .num_heads = 2, .head_width = 3});
    }
    cases.push_back({.top_k = 1, .num_heads = 4, .head_width = 2});
    cases.push_back({.top_k = 4, .tokens = {3, 0, 5, 2}, .num_heads = 4, .head_width = 2});
    cases.push_back({.tokens = {6}, .num_heads = 3, .head_width = 2});
    cases.push_back({.shared_width = 4, .num_heads = 2, .head_width = 3});
    cases.push_back({.aux_free_bias = true, .num_heads = 4, .head_width = 2});
    // HP x EP: N = 4 ranks, H = 2 and 1 heads.
    for (Dedup dedup : {Dedup::none, Dedup::rank}) {
        cases.push_back({.tokens = {4, 3, 0, 5}, .dedup = dedup, .num_heads = 2, .head_width = 3});
        cases.push_back({.tokens = {2, 3, 1, 5}, .dedup = dedup, .num_heads = 1, .head_width = 4});
    }
    return cases;
}

// y = sum over all experts of mask * gate * FFN, to 1e-12.
TEST(EpLayer, EqualsTheDenseEvaluation) {
    for (const LayerCase& c : ep_cases()) {
        const auto run = run_ep<double>(c);
        const auto y = dense::ep(c.activation, c.top_k, full_ep_weights(c), all_tokens<double>(c));
        EXPECT_LT(max_difference(stacked(run.y), y), 1e-12);
    }
}

TEST(HpLayer, EqualsTheDenseEvaluation) {
    for (const LayerCase& c : hp_cases()) {
        const auto run = run_hp<double>(c);
        const auto y = dense::hp(c.activation, c.num_experts, c.top_k, full_hp_weights(c),
                                 all_tokens<double>(c));
        EXPECT_LT(max_difference(stacked(run.y), y), 1e-12);
    }
}

// fp32 against fp64 to a few units of 2^-24 times the number of terms.
TEST(EpLayer, Fp32FollowsFp64) {
    const LayerCase c{.hidden = 16, .tokens = {9, 5}};
    const auto y32 = stacked(run_ep<float>(c).y);
    const auto y64 = stacked(run_ep<double>(c).y);
    EXPECT_LT((y32.cast<double>() - y64).cwiseAbs().maxCoeff(), 1e-5);
}

// Loss L = sum(y * dout). For a parameter p: dL/dp = (L(p + h) - L(p - h)) / 2h + O(h^2), with L by
// the dense evaluation under the routing of the run (a choice that flips has no derivative).
void expect_slope(double& parameter, double gradient, const std::function<double()>& loss) {
    const double kept = parameter, h = 1e-5;
    parameter = kept + h;
    const double above = loss();
    parameter = kept - h;
    const double below = loss();
    parameter = kept;
    EXPECT_NEAR(gradient, (above - below) / (2 * h), 1e-7 * std::max(1.0, std::abs(gradient)));
}

void expect_slopes(Matrix<double>& parameters, const Matrix<double>& gradient,
                   const std::function<double()>& loss) {
    ASSERT_EQ(parameters.size(), gradient.size());
    for (Eigen::Index i = 0; i < parameters.size(); ++i)
        expect_slope(parameters.data()[i], gradient.data()[i], loss);
}

TEST(EpLayer, GradientsAreTheSlopesOfTheLoss) {
    for (LayerCase c : ep_cases()) {
        c.tokens.resize(std::min<std::size_t>(c.tokens.size(), 2));
        const auto run = run_ep<double>(c);
        const int n = static_cast<int>(c.tokens.size());
        auto w = full_ep_weights(c);
        auto x = all_tokens<double>(c);
        const auto dout = all_output_gradients<double>(c);
        const auto loss = [&] {
            return dense::ep(c.activation, c.top_k, w, x).cwiseProduct(dout).sum();
        };
        expect_slopes(x, stacked(run.dx), loss);
        auto router = run.gradients[0].router.weight;
        for (int r = 1; r < n; ++r)
            router += run.gradients[static_cast<std::size_t>(r)].router.weight;
        expect_slopes(w.router.weight, router, loss);
        const int local = c.num_experts / n;
        for (int e = 0; e < c.num_experts; ++e) {
            auto& expert = w.experts[static_cast<std::size_t>(e)];
            const auto& gradient = run.gradients[static_cast<std::size_t>(e / local)]
                                       .experts[static_cast<std::size_t>(e % local)];
            expect_slopes(expert.up, gradient.up, loss);
            expect_slopes(expert.gate, gradient.gate, loss);
            expect_slopes(expert.down, gradient.down, loss);
        }
        if (c.latent_width == 0) continue;
        auto down = run.gradients[0].latent_down, up = run.gradients[0].latent_up;
        auto shared_up = run.gradients[0].shared->up;
        for (int r = 1; r < n; ++r) {
            down += run.gradients[static_cast<std::size_t>(r)].latent_down;
            up += run.gradients[static_cast<std::size_t>(r)].latent_up;
            shared_up += run.gradients[static_cast<std::size_t>(r)].shared->up;
        }
        expect_slopes(w.latent_down, down, loss);
        expect_slopes(w.latent_up, up, loss);
        expect_slopes(w.shared->up, shared_up, loss);
    }
}

TEST(HpLayer, GradientsAreTheSlopesOfTheLoss) {
    for (const LayerCase& c : hp_cases()) {
        const auto run = run_hp<double>(c);
        const HpShape shape = c.hp();
        auto w = full_hp_weights(c);
        auto x = all_tokens<double>(c);
        const auto dout = all_output_gradients<double>(c);
        const auto loss = [&] {
            return dense::hp(c.activation, c.num_experts, c.top_k, w, x).cwiseProduct(dout).sum();
        };
        expect_slopes(x, stacked(run.dx), loss);
        Matrix<double> project = Matrix<double>::Zero(w.project.rows(), w.project.cols());
        Matrix<double> merge = Matrix<double>::Zero(w.merge.rows(), w.merge.cols());
        for (const auto& g : run.gradients) {
            project += g.project;
            merge += g.merge;
        }
        expect_slopes(w.project, project, loss);
        expect_slopes(w.merge, merge, loss);
        for (int r = 0; r < shape.num_ranks(); ++r) {
            const auto& g = run.gradients[static_cast<std::size_t>(r)];
            const int local = c.num_experts / shape.sharers();
            for (std::size_t i = 0; i < g.experts.size(); ++i) {
                const int own_head = static_cast<int>(i) / local;
                const int expert = r % shape.sharers() * local + static_cast<int>(i) % local;
                auto& full = w.experts[static_cast<std::size_t>(
                    (shape.first_head(r) + own_head) * c.num_experts + expert)];
                expect_slopes(full.up, g.experts[i].up, loss);
                expect_slopes(full.gate, g.experts[i].gate, loss);
                expect_slopes(full.down, g.experts[i].down, loss);
            }
        }
        for (int h = 0; h < c.num_heads; ++h) {
            Matrix<double> router;
            for (int r = 0; r < shape.num_ranks(); ++r) {
                const int own = h - shape.first_head(r);
                if (own < 0 || own >= shape.heads_per_rank()) continue;
                const auto& g = run.gradients[static_cast<std::size_t>(r)]
                                    .routers[static_cast<std::size_t>(own)]
                                    .weight;
                if (router.size() == 0) {
                    router = g;
                } else {
                    router += g;
                }
            }
            expect_slopes(w.routers[static_cast<std::size_t>(h)].weight, router, loss);
        }
    }
}

// With a fixed order of summation N ranks give the very bits of one rank: outputs, token gradients,
// and every weight's gradient (projections added up rank by rank).
TEST(HpLayer, ManyRanksEqualOneRankBitwise) {
    for (const std::vector<std::int64_t>& tokens :
         {std::vector<std::int64_t>{5, 3}, {7, 0, 2, 4}, {3, 3, 3, 3}}) {
        LayerCase many{.hidden = 12,
                       .num_experts = 6,
                       .top_k = 2,
                       .tokens = tokens,
                       .num_heads = 4,
                       .head_width = 3,
                       .summation = Summation::fixed_order};
        const auto split = run_hp<double>(many);
        HpShape shape = many.hp();
        std::int64_t total = 0;
        for (std::int64_t t : tokens) total += t;
        shape.tokens = {total};
        shape.runs = tokens;
        HpWeights<double> gradients;
        Matrix<double> y, dx;
        run_on_threads(1, [&](Communicator& comm) {
            RankContext context{comm};
            const auto w = make_hp_weights<double>(many.dims(), shape, 0, kSeed);
            HpState<double> state;
            const auto x = all_tokens<double>(many);
            y = hp_forward<double>(context, nullptr, shape, w, x, state);
            gradients = zeros_like(w);
            dx = hp_backward<double>(context, nullptr, shape, w, x, state,
                                     all_output_gradients<double>(many), gradients);
        });
        EXPECT_EQ(stacked(split.y), y);
        EXPECT_EQ(stacked(split.dx), dx);
        Matrix<double> project = split.gradients[0].project, merge = split.gradients[0].merge;
        std::size_t router = 0, expert = 0;
        for (std::size_t r = 0; r < tokens.size(); ++r) {
            const auto& g = split.gradients[r];
            if (r > 0) {
                project += g.project;
                merge += g.merge;
            }
            for (const auto& own : g.routers)
                EXPECT_EQ(own.weight, gradients.routers[router++].weight);
            for (const auto& own : g.experts) {
                EXPECT_EQ(own.up, gradients.experts[expert].up);
                EXPECT_EQ(own.down, gradients.experts[expert++].down);
            }
        }
        EXPECT_EQ(project, gradients.project);
        EXPECT_EQ(merge, gradients.merge);
    }
}

TEST(EpLayer, ManyRanksEqualOneRank) {
    for (const LayerCase& c : ep_cases()) {
        const auto many = run_ep<double>(c);
        LayerCase one = c;
        one.tokens = {0};
        for (std::int64_t t : c.tokens) one.tokens[0] += t;
        const auto w = full_ep_weights(c);
        Matrix<double> y;
        run_on_threads(1, [&](Communicator& comm) {
            RankContext context{comm};
            EpState<double> state;
            y = ep_forward<double>(context, one.ep(), w, all_tokens<double>(c), state);
        });
        EXPECT_LT(max_difference(stacked(many.y), y), 1e-12);
    }
}

// Capacity ceil(c T k / E) rows an expert and source: with every token forced to expert 0 first,
// only the first ceil(c T k / E) tokens keep it; the others get gate_1 FFN_1 alone.
TEST(EpLayer, CapacityDropsTheLastTokens) {
    LayerCase c{.tokens = {4}, .capacity_factor = 1.0};  // ceil(1 * 4 * 2 / 4) = 2
    const std::vector<std::vector<std::int32_t>> forced = {{0, 1, 0, 2, 0, 3, 0, 1}};
    const auto dropped = stacked(run_ep<double>(c, forced).y);
    c.capacity_factor.reset();
    const auto full = stacked(run_ep<double>(c, forced).y);
    EXPECT_EQ(dropped.topRows(2), full.topRows(2));
    EXPECT_GT((dropped.bottomRows(2) - full.bottomRows(2)).cwiseAbs().minCoeff(), 0.0);
}

TEST(HpLayer, RanksThatDoNotDivideTheHeadsAreAnErrorThatListsValidOnes) {
    LayerCase c{.num_experts = 4, .tokens = {1, 1, 1}, .num_heads = 4, .head_width = 2};
    try {
        check_ranks(c.hp());
        FAIL() << "3 ranks for 4 heads were accepted";
    } catch (const InputError& error) {
        EXPECT_STREQ(error.what(),
                     "ranks: 4 heads with 4 experts each cannot be laid over 3 ranks; accepted: 1, "
                     "2, 4, 8, 16 ranks");
    }
    c.tokens.resize(8);
    EXPECT_NO_THROW(check_ranks(c.hp()));
}

TEST(Router, TiesGoToTheLowerIndexAndNanComesLast) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> scores = {1, nan, 3, 1, 3, nan};
    std::vector<std::int32_t> chosen(6);
    select_top_k<float>(scores, chosen);
    EXPECT_EQ(chosen, (std::vector<std::int32_t>{2, 4, 0, 3, 1, 5}));
    chosen.resize(3);
    select_top_k<float>(scores, chosen);
    EXPECT_EQ(chosen, (std::vector<std::int32_t>{2, 4, 0}));
}

// The bias decides who is chosen, the gates are the softmax of the bare logits of the chosen.
TEST(Router, BiasSteersTheChoiceOnly) {
    RouterWeights<double> router{Matrix<double>(3, 1), {0.0, 0.0, 10.0}};
    router.weight << 2.0, 1.0, 0.0;
    const Matrix<double> x = Matrix<double>::Ones(1, 1);
    const RowBlock block{.count = 1};
    const auto routed = route<double>({.top_k = 2}, {&router, 1}, x, {&block, 1});
    EXPECT_EQ(routed.expert, (std::vector<std::int32_t>{2, 0}));
    EXPECT_NEAR(routed.gate[0], 1.0 / (1.0 + std::exp(2.0)), 1e-15);
    EXPECT_EQ(routed.num_non_finite, 0);
}

TEST(Router, NonFiniteLogitsAreCountedAndGetNoWeight) {
    RouterWeights<double> router{Matrix<double>(2, 1), {}};
    router.weight << std::numeric_limits<double>::quiet_NaN(), 1.0;
    const Matrix<double> x = Matrix<double>::Ones(1, 1);
    const RowBlock block{.count = 1};
    const auto routed = route<double>({.top_k = 2}, {&router, 1}, x, {&block, 1});
    EXPECT_EQ(routed.expert, (std::vector<std::int32_t>{1, 0}));
    EXPECT_EQ(routed.gate, (std::vector<double>{1.0, 0.0}));
    EXPECT_EQ(routed.num_non_finite, 1);
}

}  // namespace
}  // namespace headway::runtime
