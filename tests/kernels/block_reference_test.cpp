// The fp64 references of attention and of the block, which judge the kernels: known answers, and
// gradients against central differences of the forward pass.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/block/block.hpp"
#include "kernels/block/ep_block.hpp"

namespace headway::kernels {
namespace {

std::vector<double> normal(std::size_t count, unsigned seed, double sigma = 1.0) {
    std::mt19937 random(seed);
    std::normal_distribution<double> draw(0.0, sigma);
    std::vector<double> out(count);
    for (double& value : out) value = draw(random);
    return out;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

std::vector<double> moved(const std::vector<double>& from, const std::vector<double>& along,
                          double step) {
    std::vector<double> out = from;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += step * along[i];
    return out;
}

TEST(AttentionReference, OneTokenPassesItsValueOn) {
    const AttentionShape shape{1, 1, 2, 8};
    const HostAttention one{shape, normal(48, 1), normal(16, 2)};
    const HostAttentionResult out = attention_reference(one);
    for (std::size_t i = 0; i < 16; ++i) {
        EXPECT_DOUBLE_EQ(out.o[i], one.qkv[32 + i]);
        EXPECT_NEAR(out.dqkv[i], 0, 1e-15);       // dQ
        EXPECT_NEAR(out.dqkv[16 + i], 0, 1e-15);  // dK
        EXPECT_DOUBLE_EQ(out.dqkv[32 + i], one.d_o[i]);
    }
}

// Q = 0: every earlier token weighs the same, no later one weighs at all, sequences do not mix.
TEST(AttentionReference, ZeroQueriesGiveTheMeanOfTheValuesSoFar) {
    const AttentionShape shape{2, 5, 1, 8};
    HostAttention a{shape, normal(2 * 5 * 24, 3), normal(2 * 5 * 8, 4)};
    for (std::size_t row = 0; row < 10; ++row)
        for (std::size_t i = 0; i < 8; ++i) a.qkv[row * 24 + i] = 0;
    const HostAttentionResult out = attention_reference(a);
    for (std::size_t sequence = 0; sequence < 2; ++sequence)
        for (std::size_t row = 0; row < 5; ++row)
            for (std::size_t i = 0; i < 8; ++i) {
                double mean = 0;
                for (std::size_t j = 0; j <= row; ++j)
                    mean += a.qkv[(sequence * 5 + j) * 24 + 16 + i] / double(row + 1);
                EXPECT_NEAR(out.o[(sequence * 5 + row) * 8 + i], mean, 1e-14);
            }
}

TEST(AttentionReference, GradientIsTheDerivativeOfTheForward) {
    for (const AttentionShape& shape :
         {AttentionShape{2, 7, 2, 8}, AttentionShape{2, 7, 6, 8, 2}}) {
        const auto tokens = std::size_t(shape.num_tokens());
        HostAttention a{shape, normal(tokens * std::size_t(shape.qkv_width()), 5),
                        normal(tokens * std::size_t(shape.width()), 6)};
        const std::vector<double> direction = normal(a.qkv.size(), 7), start = a.qkv;
        const double gradient = dot(attention_reference(a).dqkv, direction);
        const double step = 1e-5;
        a.qkv = moved(start, direction, step);
        const double after = dot(attention_reference(a).o, a.d_o);
        a.qkv = moved(start, direction, -step);
        const double before = dot(attention_reference(a).o, a.d_o);
        EXPECT_NEAR((after - before) / (2 * step), gradient, 1e-7 * std::abs(gradient));
    }
}

HostBlock small_block() {
    HostBlock block;
    block.shape.layer = {2, 6, 8, 4, 8, 2};
    block.shape.attention = {2, 3, 1, 16};
    const std::size_t elements = 6 * 16;
    block.parameters = normal(std::size_t(block_layout(block.shape).total), 8, 0.4);
    block.x = normal(elements, 9);
    block.delta = normal(elements, 10);
    block.dy = normal(elements, 11);
    for (int pair = 0; pair < 2 * 6; ++pair) {  // two different experts a sub-token
        block.index.push_back(pair % 4);
        block.index.push_back((pair + 1 + pair % 3) % 4);
    }
    return block;
}

// The layer's reference reads fp32, so a step must be far above its rounding.
TEST(BlockReference, GradientsAreTheDerivativesOfTheForward) {
    const HostBlock block = small_block();
    const HostBlockResult result = block_reference(block);
    const double step = 2e-3;
    const auto slope = [&](const std::vector<double>& x, const std::vector<double>& parameters) {
        double ends[2];
        for (const int side : {0, 1}) {
            HostBlock at = block;
            at.x = moved(block.x, x, side == 0 ? -step : step);
            at.parameters = moved(block.parameters, parameters, side == 0 ? -step : step);
            ends[side] = dot(block_reference(at).y, block.dy);
        }
        return (ends[1] - ends[0]) / (2 * step);
    };
    const std::vector<double> still_x(block.x.size()), still(block.parameters.size());
    const std::vector<double> x = normal(block.x.size(), 12, 0.1);
    EXPECT_NEAR(slope(x, still), dot(result.dx, x), 2e-3 * std::abs(dot(result.dx, x)));
    const BlockLayout at = block_layout(block.shape);
    const std::int64_t ends[] = {at.norm1,   at.norm2, at.router, at.qkv, at.output,
                                 at.project, at.merge, at.w1,     at.w2,  at.total};
    for (std::size_t part = 0; part + 1 < std::size(ends); ++part) {
        std::vector<double> along = still;
        const std::vector<double> drawn = normal(along.size(), 13 + unsigned(part), 0.1);
        for (std::int64_t i = ends[part]; i < ends[part + 1]; ++i) along[i] = drawn[i];
        const double expected = dot(result.gradients, along);
        EXPECT_NEAR(slope(still_x, along), expected, 2e-3 * std::abs(expected) + 1e-3)
            << "tensor " << part;
    }
}

// y = h + m depends on x + delta alone.
TEST(BlockReference, ResidualAndDeltaAreAdded) {
    HostBlock block = small_block();
    const std::vector<double> y = block_reference(block).y;
    block.x = moved(block.x, block.delta, 1.0);
    block.delta.assign(block.delta.size(), 0.0);
    const std::vector<double> other = block_reference(block).y;
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], other[i], 1e-6);
}

HostEpBlock small_ep_block() {
    HostEpBlock block;
    block.shape = {
        .attention = {2, 3, 1, 16},
        .layer = {.num_tokens = 6, .width = 16, .num_experts = 4, .hidden = 8, .top_k = 2}};
    const std::size_t elements = 6 * 16;
    block.parameters = normal(std::size_t(ep_block_layout(block.shape).total), 31, 0.4);
    block.x = normal(elements, 32);
    block.delta = normal(elements, 33);
    block.dy = normal(elements, 34);
    block.index = {0, 1, 2, 3, 1, 0, 3, 1, 2, 0, 1, 3};
    return block;
}

// As for the block with the HP layer: every tensor along a random direction.
TEST(EpBlockReference, GradientsAreTheDerivativesOfTheForward) {
    const HostEpBlock block = small_ep_block();
    const HostBlockResult result = ep_block_reference(block);
    const double step = 2e-3;
    const auto slope = [&](const std::vector<double>& x, const std::vector<double>& parameters) {
        double ends[2];
        for (const int side : {0, 1}) {
            HostEpBlock at = block;
            at.x = moved(block.x, x, side == 0 ? -step : step);
            at.parameters = moved(block.parameters, parameters, side == 0 ? -step : step);
            ends[side] = dot(ep_block_reference(at).y, block.dy);
        }
        return (ends[1] - ends[0]) / (2 * step);
    };
    const std::vector<double> still_x(block.x.size()), still(block.parameters.size());
    const std::vector<double> x = normal(block.x.size(), 35, 0.1);
    EXPECT_NEAR(slope(x, still), dot(result.dx, x), 2e-3 * std::abs(dot(result.dx, x)));
    const EpBlockLayout at = ep_block_layout(block.shape);
    const std::int64_t ends[] = {at.norm1,  at.norm2, at.qkv, at.output,
                                 at.router, at.w1,    at.w2,  at.total};
    for (std::size_t part = 0; part + 1 < std::size(ends); ++part) {
        std::vector<double> along = still;
        const std::vector<double> drawn = normal(along.size(), 36 + unsigned(part), 0.1);
        for (std::int64_t i = ends[part]; i < ends[part + 1]; ++i) along[i] = drawn[i];
        const double expected = dot(result.gradients, along);
        EXPECT_NEAR(slope(still_x, along), expected, 2e-3 * std::abs(expected) + 1e-3)
            << "tensor " << part;
    }
}

// One expert and k = 1: the gate is 1 and the layer is a plain MLP, y = W2 gelu(W1 x), with W2
// [d, f] as EP stores it; the router gets no gradient.
TEST(EpLayerReference, OneExpertIsAPlainMlp) {
    const EpLayerShape shape{
        .num_tokens = 2, .width = 8, .num_experts = 1, .hidden = 16, .top_k = 1};
    const auto narrow = [](const std::vector<double>& v) {
        return std::vector<float>(v.begin(), v.end());
    };
    const HostEpLayer layer{.shape = shape,
                            .x = narrow(normal(16, 41)),
                            .dy = narrow(normal(16, 42)),
                            .w1 = narrow(normal(128, 43)),
                            .w2 = narrow(normal(128, 44)),
                            .router = narrow(normal(8, 45)),
                            .index = {0, 0}};
    const HostHpResult out = ep_layer_reference(layer);
    for (std::size_t t = 0; t < 2; ++t)
        for (std::size_t i = 0; i < 8; ++i) {
            double y = 0;
            for (std::size_t u = 0; u < 16; ++u) {
                double pre = 0;
                for (std::size_t c = 0; c < 8; ++c)
                    pre += double(layer.w1[u * 8 + c]) * layer.x[t * 8 + c];
                y +=
                    double(layer.w2[i * 16 + u]) * 0.5 * pre * (1 + std::erf(pre / std::sqrt(2.0)));
            }
            EXPECT_NEAR(out.y[t * 8 + i], y, 1e-9 + 1e-6 * std::abs(y));
        }
    for (const double d : out.drouter) EXPECT_NEAR(d, 0, 1e-9);
}

}  // namespace
}  // namespace headway::kernels
