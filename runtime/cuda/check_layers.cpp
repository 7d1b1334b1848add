#include "runtime/cuda/check_layers.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "kernels/check.hpp"
#include "runtime/cuda/check_reference.hpp"
#include "runtime/cuda/ep_layer.hpp"
#include "runtime/cuda/hp_ep_layer.hpp"
#include "runtime/cuda/hp_layer.hpp"

namespace headway::runtime {
namespace {

using bf16 = __nv_bfloat16;

template <class T>
void upload(T* to, const Doubles& from) {
    std::vector<T> narrow(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) narrow[i] = T(static_cast<float>(from[i]));
    HEADWAY_CUDA_CHECK(
        cudaMemcpy(to, narrow.data(), narrow.size() * sizeof(T), cudaMemcpyHostToDevice));
}

template <class T>
double relative_l2(const T* device, const Doubles& expected) {
    std::vector<T> got(expected.size());
    HEADWAY_CUDA_CHECK(
        cudaMemcpy(got.data(), device, got.size() * sizeof(T), cudaMemcpyDeviceToHost));
    double difference = 0.0, norm = 0.0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double value = static_cast<double>(static_cast<float>(got[i]));
        difference += (value - expected[i]) * (value - expected[i]);
        norm += expected[i] * expected[i];
    }
    return norm > 0.0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

// `out` travels in the first of the two phases forward and in the second backward; its transpose
// otherwise.
void check_exchanges(const DeviceContext& context, const LayerCase& c, const TrafficMatrix& out,
                     const std::array<Phase, 2>& phases, const TrafficLedger& before,
                     std::vector<LayerCheck>& checks) {
    const TrafficMatrix back = out.transposed();
    const int rank = context.communicator.rank();
    const TrafficLedger& now = context.communicator.traffic();
    for (const Pass pass : {Pass::forward, Pass::backward}) {
        for (const Phase phase : phases) {
            const bool outward = (phase == phases[0]) == (pass == Pass::forward);
            const auto after = now.find({phase, pass}), old = before.find({phase, pass});
            double wrong = 0.0;
            for (int r = 0; r < context.communicator.size(); ++r) {
                const auto i = static_cast<std::size_t>(r);
                std::int64_t sent = after == now.end() ? 0 : after->second[i];
                if (old != before.end()) sent -= old->second[i];
                wrong += std::abs(static_cast<double>(sent - (outward ? out : back).at(rank, r)));
            }
            checks.push_back({c.name(), fmt::format("bytes of {} {}", name(pass), name(phase)),
                              wrong, wrong == 0.0});
        }
    }
}

void check_traffic(const DeviceContext& context, const LayerCase& c, const LayerSetup& s,
                   const TrafficLedger& before, std::vector<LayerCheck>& checks) {
    if (s.num_ranks == 1) return;
    const std::array experts{Phase::dispatch, Phase::combine};
    const std::array heads{Phase::head_scatter, Phase::head_gather};
    check_exchanges(context, c, expected_traffic(c, s), c.head_parallel ? heads : experts, before,
                    checks);
    if (c.head_parallel && s.hp.sharers() > 1)
        check_exchanges(context, c, expected_traffic_in_heads(c, s), experts, before, checks);
}

std::int32_t* upload_choices(DeviceContext& context, const LayerCase& c, const LayerSetup& s) {
    std::vector<std::int32_t> all;
    const int rank = context.communicator.rank();
    if (c.head_parallel && s.hp.sharers() > 1) {
        all = held_choices(c, s, rank).expert;
    } else if (c.head_parallel) {
        for (int h = 0; h < s.hp.heads_per_rank(); ++h) {
            for (int source = 0; source < s.num_ranks; ++source) {
                const Assignment a = choices(c, s.hp.first_head(rank) + h, source);
                all.insert(all.end(), a.expert.begin(), a.expert.end());
            }
        }
    } else {
        all = choices(c, 0, rank).expert;
    }
    auto* at = context.arena.take<std::int32_t>(static_cast<std::int64_t>(all.size()));
    HEADWAY_CUDA_CHECK(
        cudaMemcpy(at, all.data(), all.size() * sizeof(std::int32_t), cudaMemcpyHostToDevice));
    return at;
}

// Runs the layer twice, so that nothing of a first run is needed for a second, and compares.
template <class Layer, class Compare>
void run_and_compare(DeviceContext& context, const LayerCase& c, const LayerSetup& s, Layer& layer,
                     std::vector<LayerCheck>& checks, Compare&& compare_gradients) {
    const int rank = context.communicator.rank();
    const std::int64_t n = std::int64_t{c.tokens} * c.hidden;
    const Inputs in = inputs_of(c, rank);
    auto* x = context.arena.take<bf16>(n);
    auto* dy = context.arena.take<bf16>(n);
    auto* y = context.arena.take<bf16>(n);
    auto* dx = context.arena.take<bf16>(n);
    upload(x, flat(in.x));
    upload(dy, flat(in.dy));
    const std::int32_t* forced = upload_choices(context, c, s);
    TrafficLedger before;
    for (int i = 0; i < 2; ++i) {
        before = context.communicator.traffic();
        HEADWAY_CUDA_CHECK(cudaMemset(y, 0xFF, sizeof(bf16) * static_cast<std::size_t>(n)));
        HEADWAY_CUDA_CHECK(cudaMemset(dx, 0xFF, sizeof(bf16) * static_cast<std::size_t>(n)));
        layer.forward(x, y, forced);
        layer.backward(x, dy, dx);
        context.communicator.wait(context.stream);
    }
    const Expected expected = reference(c, s, rank);
    const auto add = [&](const std::string& what, double error) {
        checks.push_back({c.name(), what, error, error < kLayerTolerance});
    };
    add("y", relative_l2(y, expected.y));
    add("dx", relative_l2(dx, expected.dx));
    compare_gradients(expected, add);
    check_traffic(context, c, s, before, checks);
}

void check_hp(DeviceContext& context, const LayerCase& c, std::vector<LayerCheck>& checks) {
    const LayerSetup s = setup_of(c, context.communicator.size());
    CudaHpLayer layer(context, s);
    const auto tensors = hp_tensors(hp_weights(s, context.communicator.rank()));
    const CudaHpLayer::Weights& w = layer.weights();
    bf16* const narrow[] = {w.project, w.merge, w.w1, w.w2};
    for (std::size_t i = 0; i < 4; ++i) upload(narrow[i], tensors[i].second);
    upload(w.router, tensors[4].second);
    const CudaHpLayer::Gradients& g = layer.gradients();
    const float* const got[] = {g.project, g.merge, g.w1, g.w2, g.router};
    run_and_compare(context, c, s, layer, checks, [&](const Expected& e, auto&& add) {
        for (std::size_t i = 0; i < 5; ++i)
            add("d " + e.gradients[i].first, relative_l2(got[i], e.gradients[i].second));
    });
}

void check_ep(DeviceContext& context, const LayerCase& c, std::vector<LayerCheck>& checks) {
    const LayerSetup s = setup_of(c, context.communicator.size());
    CudaEpLayer layer(context, s, c.tokens);
    const auto tensors = ep_tensors(ep_weights(s, context.communicator.rank()));
    const CudaEpLayer::Weights& w = layer.weights();
    bf16* const narrow[] = {w.router, w.w1, w.w2};
    for (std::size_t i = 0; i < 3; ++i) upload(narrow[i], tensors[i].second);
    const CudaEpLayer::Gradients& g = layer.gradients();
    const float* const got[] = {g.router, g.w1, g.w2};
    run_and_compare(context, c, s, layer, checks, [&](const Expected& e, auto&& add) {
        for (std::size_t i = 0; i < 3; ++i)
            add("d " + e.gradients[i].first, relative_l2(got[i], e.gradients[i].second));
    });
}

void check_hp_ep(DeviceContext& context, const LayerCase& c, std::vector<LayerCheck>& checks) {
    const LayerSetup s = setup_of(c, context.communicator.size());
    CudaHpEpLayer layer(context, s);
    const auto w = hp_weights(s, context.communicator.rank());
    const CudaEpLayer& head = layer.head();
    upload(layer.projections().project, flat_transposed(w.project));
    upload(layer.projections().merge, flat_transposed(w.merge));
    upload(head.weights().router, all_routers(w));
    upload(head.weights().w1, first_weights(w.experts));
    upload(head.weights().w2, second_weights(w.experts, true));
    run_and_compare(context, c, s, layer, checks, [&](const Expected& e, auto&& add) {
        const CudaEpLayer::Gradients& g = head.gradients();
        const float* const got[] = {layer.gradients().project, layer.gradients().merge, g.w1, g.w2,
                                    g.router};
        for (std::size_t i = 0; i < 5; ++i)
            add("d " + e.gradients[i].first, relative_l2(got[i], e.gradients[i].second));
    });
}

}  // namespace

std::vector<LayerCheck> check_layers(DeviceContext& context) {
    std::vector<LayerCheck> checks;
    for (const LayerCase& c : layer_cases(context.communicator.size())) {
        const ArenaScope scope(context.arena);
        const bool shared_heads = c.head_parallel && c.heads < context.communicator.size();
        const auto check = shared_heads ? check_hp_ep : c.head_parallel ? check_hp : check_ep;
        check(context, c, checks);
    }
    return checks;
}

}  // namespace headway::runtime
