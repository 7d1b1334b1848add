// Checks and timings of the EP layer of a rank that holds all experts.
#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/bench/compare.hpp"
#include "kernels/bench/registry.hpp"
#include "kernels/block/bench_state.hpp"
#include "kernels/ep_layer/bench_shapes.hpp"

namespace headway::kernels::bench {
namespace {

struct EpLayerState {
    EpLayerShape shape;
    BlockLibrary library;
    EpLayer layer;
    DeviceBuffer<bf16> x, dy, router, w1, w2, y, dx;
    DeviceBuffer<float> drouter, dw1, dw2;
    DeviceBuffer<unsigned char> saved, workspace;

    explicit EpLayerState(const EpLayerShape& s)
        : shape(s),
          layer(library.get(), s),
          x(random_normal<bf16>(std::size_t(s.num_tokens) * s.width, 1.0f, 121)),
          dy(random_normal<bf16>(x.size(), 1.0f, 122)),
          router(random_normal<bf16>(std::size_t(s.router_elements()),
                                     1 / std::sqrt(float(s.width)), 123)),
          w1(random_normal<bf16>(std::size_t(s.expert_elements()), 1 / std::sqrt(float(s.width)),
                                 124)),
          w2(random_normal<bf16>(w1.size(), 1 / std::sqrt(float(s.hidden)), 125)),
          y(x.size()),
          dx(x.size()),
          drouter(router.size()),
          dw1(w1.size()),
          dw2(w1.size()),
          saved(layer.saved_bytes()),
          workspace(layer.workspace_bytes()) {
        poison();
    }
    void poison() {
        for (DeviceBuffer<bf16>* one : {&y, &dx}) one->poison();
        for (DeviceBuffer<float>* one : {&drouter, &dw1, &dw2}) one->poison();
        saved.poison();
        workspace.poison();
    }
    void run(bool backward, cudaStream_t stream) const {
        const EpLayerParameters p{router.get(), w1.get(), w2.get()};
        layer.forward(p, x.get(), y.get(), saved.get(), workspace.get(), stream);
        if (backward)
            layer.backward(p, x.get(), dy.get(), {dx.get(), drouter.get(), dw1.get(), dw2.get()},
                           saved.get(), workspace.get(), stream);
    }
    [[nodiscard]] std::size_t bytes() const {
        std::size_t sum = saved.bytes() + workspace.bytes();
        for (const DeviceBuffer<bf16>* one : {&x, &dy, &router, &w1, &w2, &y, &dx})
            sum += one->bytes();
        for (const DeviceBuffer<float>* one : {&drouter, &dw1, &dw2}) sum += one->bytes();
        return sum;
    }
};

/// With the choices that the layer made, since a tie of bf16 products may fall either way.
CheckResult check_small(const EpLayerShape& timed, bool backward) {
    const EpLayerState s(small_ep_layer(timed));
    s.run(true, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    std::vector<std::int32_t> index(std::size_t(s.shape.num_rows()));
    HEADWAY_CUDA_CHECK(cudaMemcpy(index.data(), s.layer.choices(s.saved.get()),
                                  index.size() * sizeof(std::int32_t), cudaMemcpyDeviceToHost));
    const HostHpResult expected = ep_layer_reference({.shape = s.shape,
                                                      .x = host_as<float>(s.x),
                                                      .dy = host_as<float>(s.dy),
                                                      .w1 = host_as<float>(s.w1),
                                                      .w2 = host_as<float>(s.w2),
                                                      .router = host_as<float>(s.router),
                                                      .index = index});
    WorstError worst;
    const auto add = [&](const char* name, const auto& got, const std::vector<double>& wanted) {
        const std::vector<double> values = host_as<double>(got);
        worst.add(name, relative_error(values.data(), wanted.data(), wanted.size()));
    };
    add("y", s.y, expected.y);
    if (backward) {
        add("dx", s.dx, expected.dx);
        add("dR", s.drouter, expected.drouter);
        add("dW1", s.dw1, expected.dw1);
        add("dW2", s.dw2, expected.dw2);
    }
    return {.passed = worst.value < 1e-2,
            .error = worst.value,
            .detail = text_of("worst (%s) to host fp64, small", worst.name)};
}

CheckResult check(EpLayerState& s, bool backward) {
    CheckResult result = check_small(s.shape, backward);
    s.run(backward, nullptr);
    std::vector<DeviceRange> outputs = {range_of(s.y)};
    if (backward)
        outputs.insert(outputs.end(),
                       {range_of(s.dx), range_of(s.drouter), range_of(s.dw1), range_of(s.dw2)});
    const bool same = same_bits_again(outputs, [&] {
        s.poison();
        s.run(backward, nullptr);
    });
    if (!same) {
        result.passed = false;
        result.detail += " NOT REPEATABLE";
    }
    return result;
}

std::optional<Case> make(const Shape& shape, bool backward) {
    if (shape.num_heads != 1) return std::nullopt;
    const auto state = std::make_shared<EpLayerState>(ep_layer_shape(shape));
    Case made;
    made.check = [state, backward](cudaStream_t) { return check(*state, backward); };
    made.run = [state, backward](cudaStream_t stream) { state->run(backward, stream); };
    const double flops = ep_layer_flops(state->shape);
    const double weights = double(state->w1.bytes() + state->w2.bytes() + state->router.bytes());
    made.cost = {flops, double(state->x.bytes() + state->y.bytes()) + weights};
    if (backward)
        made.cost = {3 * flops, made.cost.bytes + 3 * double(state->x.bytes()) + 3 * weights};
    made.workspace_bytes = state->bytes();
    return made;
}

}  // namespace

void register_ep_layer_cases(Registry& registry) {
    for (const bool backward : {false, true})
        registry.push_back({.suite = "ep",
                            .op = backward ? "ep_layer_step" : "ep_layer_forward",
                            .impl = "hopper",
                            .make = [=](const Shape& s) { return make(s, backward); },
                            .shapes = ep_layer_shapes()});
}

}  // namespace headway::kernels::bench
