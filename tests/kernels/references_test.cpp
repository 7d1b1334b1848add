// The host references that judge the kernels, on cases whose answer is known without them.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "kernels/hp_layer/hp_layer.hpp"

namespace headway::kernels {
namespace {

// d = 1, x = 1: the logits are R itself.
HostRouting route(const std::vector<float>& logits, int k, const std::vector<float>& bias = {}) {
    const RouterShape shape{1, 1, 1, int(logits.size()), k};
    return router_reference(shape, {1.0f}, logits, bias);
}

TEST(RouterReference, ChoosesTheLargestAndNormalisesOverThem) {
    const HostRouting routing = route({0.0f, 2.0f, 1.0f, -1.0f}, 2);
    EXPECT_EQ(routing.index, (std::vector<int32_t>{1, 2}));
    const double weight = 1 / (1 + std::exp(-1.0));  // softmax of {2, 1}
    EXPECT_NEAR(routing.gate[0], weight, 1e-15);
    EXPECT_NEAR(routing.gate[1], 1 - weight, 1e-15);
}

TEST(RouterReference, EqualScoresGoToTheLowerExpertAndNanGoesLast) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(route({1, 3, 3, 3}, 2).index, (std::vector<int32_t>{1, 2}));
    EXPECT_EQ(route({nan, 0, nan, -5}, 3).index, (std::vector<int32_t>{1, 3, 0}));
}

TEST(RouterReference, InfinitiesAreOrderedAndMinusZeroEqualsZero) {
    const float inf = std::numeric_limits<float>::infinity();
    EXPECT_EQ(route({-inf, 5, inf, -1}, 4).index, (std::vector<int32_t>{2, 1, 3, 0}));
    EXPECT_EQ(route({-0.0f, 0.0f, -1}, 2).index, (std::vector<int32_t>{0, 1}));
    EXPECT_EQ(route({0.0f, -0.0f, -1}, 2).index, (std::vector<int32_t>{0, 1}));
}

TEST(RouterReference, BiasSelectsButDoesNotWeigh) {
    const HostRouting routing = route({0.0f, 1.0f, 2.0f}, 2, {10.0f, 0.0f, 0.0f});
    EXPECT_EQ(routing.index, (std::vector<int32_t>{0, 2}));
    EXPECT_NEAR(routing.gate[0], 1 / (1 + std::exp(2.0)), 1e-15);  // softmax of {0, 2}
}

struct Routed {
    GroupingShape shape;
    std::vector<int32_t> index;
    std::vector<float> gate;
};

Routed random_routed(int heads, int tokens, int experts, int k) {
    Routed out{{heads, tokens, experts, k}, {}, {}};
    std::mt19937 random(std::uint32_t(heads * 1000 + tokens + experts + k));
    for (int64_t token = 0; token < out.shape.num_subtokens(); ++token) {
        std::set<int32_t> chosen;
        while (int(chosen.size()) < k) chosen.insert(int32_t(random() % unsigned(experts)));
        out.index.insert(out.index.end(), chosen.begin(), chosen.end());
        for (int j = 0; j < k; ++j) out.gate.push_back(float(out.gate.size()));
    }
    return out;
}

TEST(GroupingReference, RowsAreAPermutationSortedByGroupThenToken) {
    for (const auto& [heads, tokens, experts, k] :
         {std::tuple{1, 1, 1, 1}, {2, 300, 16, 3}, {3, 257, 5, 5}, {1, 1000, 64, 8}}) {
        const Routed in = random_routed(heads, tokens, experts, k);
        const HostGrouping out = group_rows_reference(in.shape, in.index, in.gate);
        ASSERT_EQ(out.expert_offset.back(), in.shape.num_rows());
        std::vector<bool> seen(in.index.size());
        for (std::size_t pair = 0; pair < in.index.size(); ++pair) {
            const int32_t row = out.token_row[pair];
            const auto token = int32_t(pair) / k;
            const int group = token / tokens * experts + in.index[pair];
            ASSERT_FALSE(seen[row]);
            seen[row] = true;
            EXPECT_EQ(out.row_token[row], token);
            EXPECT_EQ(out.row_gate[row], in.gate[pair]);
            EXPECT_GE(row, out.expert_offset[group]);
            EXPECT_LT(row, out.expert_offset[group + 1]);
        }
        for (int group = 0; group < in.shape.num_groups(); ++group)
            for (int row = out.expert_offset[group] + 1; row < out.expert_offset[group + 1]; ++row)
                EXPECT_LT(out.row_token[row - 1], out.row_token[row]);
        // k of the T_b tokens' choices each: a head's rows are T_b k whatever the routing.
        for (int head = 0; head <= heads; ++head)
            EXPECT_EQ(out.expert_offset[head * experts], head * tokens * k);
    }
}

TEST(GroupingReference, TilesCoverEveryRowOnceAndNeverCrossGroups) {
    const Routed in = random_routed(2, 700, 4, 2);
    const HostGrouping out = group_rows_reference(in.shape, in.index, in.gate);
    ASSERT_LE(int64_t(out.tiles.size()), in.shape.max_tiles());
    int32_t next = 0;
    for (const TileDescriptor& tile : out.tiles) {
        EXPECT_EQ(tile.row_begin, next);
        EXPECT_GE(tile.num_rows, 1);
        EXPECT_LE(tile.num_rows, expert_tile_rows);
        EXPECT_GE(tile.row_begin, out.expert_offset[tile.group]);
        next += tile.num_rows;
        EXPECT_LE(next, out.expert_offset[tile.group + 1]);
    }
    EXPECT_EQ(next, in.shape.num_rows());
    EXPECT_EQ(out.tile_offset.back(), int32_t(out.tiles.size()));
}

// L = sum dy . y as a function of one number of the layer; its slope by central differences.
struct Probe {
    HostHpLayer layer;

    [[nodiscard]] double loss() const {
        const HostHpResult result = hp_layer_reference(layer);
        double sum = 0;
        for (std::size_t i = 0; i < result.y.size(); ++i) sum += layer.dy[i] * result.y[i];
        return sum;
    }
    double slope(float& number) {
        const float was = number, step = 1e-3f;
        number = was + step;
        const double up = loss(), at_up = number;
        number = was - step;
        const double down = loss(), at_down = number;
        number = was;
        return (up - down) / (at_up - at_down);
    }
};

Probe small_probe() {
    Probe probe;
    probe.layer.shape = {
        .num_heads = 2, .num_tokens = 5, .width = 8, .num_experts = 4, .hidden = 6, .top_k = 2};
    const HpLayerShape& s = probe.layer.shape;
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0.0f, 0.5f);
    const auto fill = [&](std::vector<float>& values, std::size_t n) {
        values.resize(n);
        for (float& value : values) value = normal(random);
    };
    const auto tokens = std::size_t(s.router().num_subtokens()),
               groups = std::size_t(s.experts().num_groups);
    fill(probe.layer.x, tokens * s.width);
    fill(probe.layer.dy, tokens * s.width);
    fill(probe.layer.w1, groups * s.hidden * s.width);
    fill(probe.layer.w2, groups * s.hidden * s.width);
    fill(probe.layer.router, groups * s.width);
    return probe;
}

TEST(HpLayerReference, GradientsAreTheSlopesOfTheLoss) {
    Probe probe = small_probe();
    const HostHpResult result = hp_layer_reference(probe.layer);
    const auto compare = [&](std::vector<float>& values, const std::vector<double>& gradient,
                             std::size_t stride) {
        double largest = 0;
        for (std::size_t i = 0; i < values.size(); i += stride) {
            largest = std::max(largest, std::abs(gradient[i]));
            EXPECT_NEAR(probe.slope(values[i]), gradient[i], 2e-4) << "number " << i;
        }
        EXPECT_GT(largest, 1e-3);  // the comparison saw more than zeros
    };
    compare(probe.layer.x, result.dx, 3);
    compare(probe.layer.router, result.drouter, 1);
    compare(probe.layer.w1, result.dw1, 5);
    compare(probe.layer.w2, result.dw2, 5);
}

TEST(HpLayerMemory, SavesTheRoutingAndNoActivations) {
    const HpLayerShape shape{.num_heads = 2,
                             .num_tokens = 1024,
                             .width = 128,
                             .num_experts = 16,
                             .hidden = 256,
                             .top_k = 4};
    const HpLayerMemory memory = hp_layer_memory({}, shape);
    const auto rows = std::size_t(shape.experts().num_rows);
    EXPECT_GE(memory.saved, rows * 20);  // index, gate, row_token, row_gate, token_row: 4 B each
    EXPECT_LT(memory.saved, rows * 20 + 8192);
    EXPECT_GE(memory.forward_workspace, rows * shape.width * 2);  // y by row
}

}  // namespace
}  // namespace headway::kernels
