#include <memory>

#include "kernels/bench/registry.hpp"
#include "kernels/bench/routing.hpp"
#include "kernels/grouping/bench_buffers.hpp"

namespace headway::kernels::bench {

namespace {

struct State {
    GroupingShape shape;
    HostRoutingInput routing;
    DeviceBuffer<int32_t> index;
    DeviceBuffer<float> gate;
    GroupingBuffers buffers;

    State(const Shape& s, bool hot)
        : shape{s.num_heads, s.num_tokens, s.num_experts, s.top_k},
          routing(random_routing(s, 7, hot)),
          index(routing.index.size()),
          gate(routing.gate.size()),
          buffers(shape) {
        index.from_host(routing.index);
        gate.from_host(routing.gate);
    }
    void run(cudaStream_t stream) const {
        count_choices(shape, index.get(), buffers.counts.get(), stream);
        group_rows(shape, index.get(), gate.get(), buffers.counts.get(), buffers.output(), stream);
    }
};

bool same_tiles(const std::vector<TileDescriptor>& expected,
                const std::vector<TileDescriptor>& got) {
    for (std::size_t i = 0; i < expected.size(); ++i)
        if (expected[i].group != got[i].group || expected[i].row_begin != got[i].row_begin ||
            expected[i].num_rows != got[i].num_rows)
            return false;
    return true;
}

CheckResult check(State& state, cudaStream_t stream) {
    state.buffers.poison();
    state.run(stream);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const HostGrouping expected =
        group_rows_reference(state.shape, state.routing.index, state.routing.gate);
    const GroupingBuffers& got = state.buffers;
    std::string wrong;
    const auto require = [&](bool equal, const char* what) {
        if (!equal) wrong += std::string(" ") + what;
    };
    require(got.expert_offset.to_host() == expected.expert_offset, "expert_offset");
    require(got.tile_offset.to_host() == expected.tile_offset, "tile_offset");
    require(got.row_token.to_host() == expected.row_token, "row_token");
    require(got.token_row.to_host() == expected.token_row, "token_row");
    require(got.row_gate.to_host() == expected.row_gate, "row_gate");
    require(got.num_tiles.to_host()[0] == int(expected.tiles.size()), "num_tiles");
    require(same_tiles(expected.tiles, got.tiles.to_host()), "tiles");
    return {.passed = wrong.empty(),
            .error = 0,
            .detail = wrong.empty() ? "equals host sort" : "differs:" + wrong};
}

std::optional<Case> make(const Shape& shape, bool hot) {
    if (shape.top_k > shape.num_experts) return std::nullopt;
    const auto state = std::make_shared<State>(shape, hot);
    Case made;
    made.check = [state](cudaStream_t stream) { return check(*state, stream); };
    made.run = [state](cudaStream_t stream) { state->run(stream); };
    // index and gate in; row_token, row_gate and token_row out.
    made.cost = {.flops = 0, .bytes = 20.0 * double(shape.num_rows())};
    made.workspace_bytes = state->buffers.counts.bytes();
    return made;
}

// Three plain launches with nothing to do, of the grids of count, prefix and scatter: the scale of
// what launches cost on this device.
__global__ void empty_kernel() {}

std::optional<Case> make_floor(const Shape& shape) {
    const GroupingShape grouping{shape.num_heads, shape.num_tokens, shape.num_experts, shape.top_k};
    Case made;
    made.check = [](cudaStream_t stream) {
        empty_kernel<<<1, 1, 0, stream>>>();
        check_launch();
        return CheckResult{.passed = true, .error = 0, .detail = "nothing to check"};
    };
    made.run = [grouping](cudaStream_t stream) {
        const dim3 blocks(unsigned(grouping.counts_per_head()), unsigned(grouping.num_heads));
        const dim3 columns(unsigned(grouping.num_experts + 31) / 32, unsigned(grouping.num_heads));
        empty_kernel<<<blocks, 256, 0, stream>>>();
        empty_kernel<<<columns, 1024, 0, stream>>>();
        empty_kernel<<<blocks, 256, 0, stream>>>();
        check_launch();
    };
    return made;
}

// Every block size, k with a kernel of its own and without, E from 1 to the most, ragged ends.
std::vector<Shape> edge_shapes() {
    std::vector<Shape> shapes = small_shapes();
    const std::vector<Shape> more = {
        {"one", 1, 64, 1, 64, 1, 1},          {"k32", 1, 64, 32, 64, 2000, 32},
        {"odd", 3, 64, 33, 64, 777, 5},       {"wide", 2, 64, 1000, 64, 3000, 13},
        {"widest", 1, 64, 3000, 64, 1500, 1}, {"blocks", 16, 64, 64, 64, 16300, 2},
        {"k1", 4, 64, 128, 64, 65536, 1},     {"long", 2, 64, 24, 64, 70001, 3}};
    shapes.insert(shapes.end(), more.begin(), more.end());
    return shapes;
}

}  // namespace

void register_grouping_cases(Registry& registry) {
    registry.push_back(
        {"moe", "grouping", "counting", [](const Shape& s) { return make(s, false); }});
    registry.push_back({"moe", "grouping", "empty launches", make_floor});
    for (const bool hot : {false, true})
        registry.push_back({.suite = "moe",
                            .op = hot ? "grouping_hot" : "grouping_edge",
                            .impl = "counting",
                            .make = [hot](const Shape& s) { return make(s, hot); },
                            .shapes = edge_shapes(),
                            .timed = false});
}

}  // namespace headway::kernels::bench
