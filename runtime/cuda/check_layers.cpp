#include "runtime/cuda/check_layers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <span>

#include "kernels/check.hpp"
#include "models/workload/random.hpp"
#include "models/workload/traffic.hpp"
#include "runtime/cuda/ep_layer.hpp"
#include "runtime/cuda/hp_ep_layer.hpp"
#include "runtime/cuda/hp_layer.hpp"
#include "runtime/thread_communicator.hpp"

namespace headway::runtime {
namespace {

using bf16 = __nv_bfloat16;
using Doubles = std::vector<double>;
using DoubleMatrix = Matrix<double>;

struct Case {
    bool head_parallel = true;
    Dedup dedup = Dedup::none;
    int tokens = 0, hidden = 0, heads = 1, head_width = 0, experts = 0, top_k = 1, expert_width = 0;
    Activation activation = Activation::gelu;

    std::string name() const {
        const char* kind = head_parallel ? (dedup == Dedup::none ? "HP" : "HP, EP rank-dedup")
                                         : (dedup == Dedup::none ? "EP naive" : "EP rank-dedup");
        return fmt::format("{} T={} d={} H={} d_h={} E={} k={} f={} {}", kind, tokens, hidden,
                           heads, head_width, experts, top_k, expert_width,
                           headway::kActivationNames[static_cast<std::size_t>(activation)]);
    }
};

LayerSetup setup_of(const Case& c, int num_ranks) {
    LayerSetup s{.head_parallel = c.head_parallel, .num_ranks = num_ranks};
    s.num_routers = c.head_parallel ? c.heads : 1;
    s.dims = {.hidden = c.hidden, .expert_width = c.expert_width};
    const SparseShape sparse{.num_experts = c.experts,
                             .activation = c.activation,
                             .dedup = c.dedup,
                             .fused = c.head_parallel};
    const RoutingRule rule{.top_k = c.top_k};
    if (c.head_parallel) {
        s.hp = {.num_heads = c.heads,
                .head_width = c.head_width,
                .tokens = std::vector<std::int64_t>(static_cast<std::size_t>(num_ranks), c.tokens),
                .sparse = sparse,
                .routing = rule};
    } else {
        s.ep = {.sparse = sparse, .routing = rule};
    }
    s.router = {.num_experts = c.experts, .top_k = c.top_k};
    return s;
}

// Distinct choices; every third expert gets no token where enough others are left.
Assignment choices(const Case& c, int head, int source) {
    Random random({7, static_cast<std::uint64_t>(head), static_cast<std::uint64_t>(source)});
    std::vector<std::int32_t> allowed;
    for (int e = 0; e < c.experts; ++e) {
        if (e % 3 != 0 || c.experts - c.experts / 3 - 1 < c.top_k) allowed.push_back(e);
    }
    Assignment a{.num_tokens = c.tokens, .top_k = c.top_k};
    for (int t = 0; t < c.tokens; ++t) {
        for (int j = 0; j < c.top_k; ++j) {
            const std::size_t left = allowed.size() - static_cast<std::size_t>(j);
            std::swap(allowed[static_cast<std::size_t>(j)],
                      allowed[static_cast<std::size_t>(j) + random.below(left)]);
            a.expert.push_back(allowed[static_cast<std::size_t>(j)]);
        }
    }
    return a;
}

double to_bf16(double v) {
    return static_cast<double>(__bfloat162float(__float2bfloat16_rn(static_cast<float>(v))));
}
void round_to_bf16(DoubleMatrix& m) {
    for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = to_bf16(m.data()[i]);
}
void round_to_float(DoubleMatrix& m) {
    for (Eigen::Index i = 0; i < m.size(); ++i)
        m.data()[i] = static_cast<double>(static_cast<float>(m.data()[i]));
}
void round_to_bf16(std::vector<ExpertWeights<double>>& experts) {
    for (ExpertWeights<double>& e : experts) {
        round_to_bf16(e.up);
        round_to_bf16(e.gate);
        round_to_bf16(e.down);
    }
}

Doubles flat(const DoubleMatrix& m) {
    return {m.data(), m.data() + m.size()};
}
Doubles flat_transposed(const DoubleMatrix& m) {
    return flat(DoubleMatrix(m.transpose()));
}
void append(Doubles& to, const Doubles& values) {
    to.insert(to.end(), values.begin(), values.end());
}

// The first weights of all experts as the kernels store them: hidden units outermost, the gate's
// before the others.
Doubles first_weights(const std::vector<ExpertWeights<double>>& experts) {
    Doubles all;
    for (const ExpertWeights<double>& e : experts) {
        if (e.gate.size() > 0) append(all, flat_transposed(e.gate));
        append(all, flat_transposed(e.up));
    }
    return all;
}
Doubles second_weights(const std::vector<ExpertWeights<double>>& experts, bool transposed) {
    Doubles all;
    for (const ExpertWeights<double>& e : experts)
        append(all, transposed ? flat_transposed(e.down) : flat(e.down));
    return all;
}

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

// What the reference gives one rank, in the kernels' layouts.
struct Expected {
    Doubles y, dx;
    std::vector<std::pair<std::string, Doubles>> gradients;  // in the order of the layer's sizes()
};

struct Inputs {
    DoubleMatrix x, dy;
};
Inputs inputs_of(const Case& c, int rank) {
    Inputs in{make_tokens<double>(c.tokens, c.hidden, rank, 1),
              make_tokens<double>(c.tokens, c.hidden, rank, 2)};
    round_to_bf16(in.x);
    round_to_bf16(in.dy);
    return in;
}

HpWeights<double> hp_weights(const LayerSetup& s, int rank) {
    auto w = make_hp_weights<double>(s.dims, s.hp, rank, 1);
    round_to_bf16(w.project);
    round_to_bf16(w.merge);
    round_to_bf16(w.experts);
    // A head that is shared has EP's router, with bf16 weights.
    for (auto& router : w.routers)
        s.hp.sharers() > 1 ? round_to_bf16(router.weight) : round_to_float(router.weight);
    return w;
}
EpWeights<double> ep_weights(const LayerSetup& s, int rank) {
    auto w = make_ep_weights<double>(s.dims, s.ep, s.num_ranks, rank, 1);
    round_to_bf16(w.experts);
    round_to_bf16(w.router.weight);
    return w;
}

Doubles all_routers(const HpWeights<double>& w) {
    Doubles all;
    for (const auto& router : w.routers) append(all, flat(router.weight));
    return all;
}

std::vector<std::pair<std::string, Doubles>> hp_tensors(const HpWeights<double>& w) {
    return {{"project", flat_transposed(w.project)},
            {"merge", flat_transposed(w.merge)},
            {"w1", first_weights(w.experts)},
            {"w2", second_weights(w.experts, false)},
            {"router", all_routers(w)}};
}
std::vector<std::pair<std::string, Doubles>> ep_tensors(const EpWeights<double>& w) {
    return {{"router", flat(w.router.weight)},
            {"w1", first_weights(w.experts)},
            {"w2", second_weights(w.experts, true)}};
}

Expected reference(const Case& c, const LayerSetup& s, int wanted_rank) {
    auto result = std::make_shared<Expected>();
    run_on_threads(s.num_ranks, [=](Communicator& comm) {
        RankContext context{.communicator = comm};
        const int rank = comm.rank();
        const Inputs in = inputs_of(c, rank);
        Expected own;
        DoubleMatrix y, dx;
        if (c.head_parallel) {
            const auto weights = hp_weights(s, rank);
            auto gradients = zeros_like(weights);
            std::vector<Assignment> chosen;
            for (const HeadBlock& b : head_blocks(s.hp, rank))
                chosen.push_back(choices(c, s.hp.first_head(rank) + b.rows.head, b.source));
            const std::vector<std::span<const std::int32_t>> forced = [&] {
                std::vector<std::span<const std::int32_t>> spans;
                for (const Assignment& a : chosen) spans.emplace_back(a.expert);
                return spans;
            }();
            HpState<double> state;
            std::unique_ptr<Communicator> peers;
            if (s.hp.sharers() > 1) peers = comm.split(rank / s.hp.sharers());
            y = hp_forward<double>(context, peers.get(), s.hp, weights, in.x, state, forced);
            dx = hp_backward<double>(context, peers.get(), s.hp, weights, in.x, state, in.dy,
                                     gradients);
            own.gradients = hp_tensors(gradients);
            // A shared head stores its second weights as EP does.
            if (peers) own.gradients[3].second = second_weights(gradients.experts, true);
        } else {
            const auto weights = ep_weights(s, rank);
            auto gradients = zeros_like(weights);
            const Assignment chosen = choices(c, 0, rank);
            EpState<double> state;
            y = ep_forward<double>(context, s.ep, weights, in.x, state, chosen.expert);
            dx = ep_backward<double>(context, s.ep, weights, in.x, state, in.dy, gradients);
            own.gradients = ep_tensors(gradients);
        }
        own.y = flat(y);
        own.dx = flat(dx);
        if (rank == wanted_rank) *result = std::move(own);
    });
    return *result;
}

// What rank `rank` holds of its head's choices, one source after the other.
Assignment held_choices(const Case& c, const LayerSetup& s, int rank) {
    Assignment held{.top_k = c.top_k};
    for (const HeadBlock& b : head_blocks(s.hp, rank)) {
        const Assignment a = choices(c, s.hp.first_head(rank) + b.rows.head, b.source);
        held.num_tokens += a.num_tokens;
        held.expert.insert(held.expert.end(), a.expert.begin(), a.expert.end());
    }
    return held;
}

// HP x EP: bytes among the ranks that share a head, of every head.
TrafficMatrix expected_traffic_in_heads(const Case& c, const LayerSetup& s) {
    TrafficMatrix all(s.num_ranks);
    const int sharers = s.hp.sharers();
    for (int first = 0; first < s.num_ranks; first += sharers) {
        std::vector<Assignment> held;
        for (int m = 0; m < sharers; ++m) held.push_back(held_choices(c, s, first + m));
        const TrafficMatrix own =
            scaled(dispatch_copies(held, c.experts, c.dedup), 2 * std::int64_t{c.head_width});
        for (int i = 0; i < sharers; ++i) {
            for (int j = 0; j < sharers; ++j) all.at(first + i, first + j) = own.at(i, j);
        }
    }
    return all;
}

// Bytes this rank must send to each, in the exchanges of forward and backward.
TrafficMatrix expected_traffic(const Case& c, const LayerSetup& s) {
    if (c.head_parallel)
        return scaled(head_scatter_copies(s.hp.tokens, c.heads), 2 * std::int64_t{c.head_width});
    std::vector<Assignment> all;
    for (int r = 0; r < s.num_ranks; ++r) all.push_back(choices(c, 0, r));
    return scaled(dispatch_copies(all, c.experts, c.dedup), 2 * std::int64_t{c.hidden});
}

// `out` travels in the first of the two phases forward and in the second backward; its transpose
// otherwise.
void check_exchanges(const DeviceContext& context, const Case& c, const TrafficMatrix& out,
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

void check_traffic(const DeviceContext& context, const Case& c, const LayerSetup& s,
                   const TrafficLedger& before, std::vector<LayerCheck>& checks) {
    if (s.num_ranks == 1) return;
    const std::array experts{Phase::dispatch, Phase::combine};
    const std::array heads{Phase::head_scatter, Phase::head_gather};
    check_exchanges(context, c, expected_traffic(c, s), c.head_parallel ? heads : experts, before,
                    checks);
    if (c.head_parallel && s.hp.sharers() > 1)
        check_exchanges(context, c, expected_traffic_in_heads(c, s), experts, before, checks);
}

std::int32_t* upload_choices(DeviceContext& context, const Case& c, const LayerSetup& s) {
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
void run_and_compare(DeviceContext& context, const Case& c, const LayerSetup& s, Layer& layer,
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

void check_hp(DeviceContext& context, const Case& c, std::vector<LayerCheck>& checks) {
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

void check_ep(DeviceContext& context, const Case& c, std::vector<LayerCheck>& checks) {
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

void check_hp_ep(DeviceContext& context, const Case& c, std::vector<LayerCheck>& checks) {
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

std::vector<Case> cases(int num_ranks) {
    const int n = num_ranks;
    std::vector<Case> all = {
        {true, Dedup::none, 333, 256, 2 * n, 64, 16, 4, 128},
        {true, Dedup::none, 77, 128, n, 128, 8, 1, 64},
        {true, Dedup::none, 512, 256, n, 64, 32, 8, 192, Activation::gelu_tanh},
        {true, Dedup::none, 200, 256, n, 256, 12, 3, 128},
        {true, Dedup::none, 129, 128, 2 * n, 64, 16, 2, 64, Activation::swiglu},
        {false, Dedup::none, 333, 256, 1, 0, 4 * n, 2, 192},
        {false, Dedup::none, 77, 128, 1, 0, std::max(n, 2), 1, 64},
        {false, Dedup::none, 500, 384, 1, 0, 16 * n, 8, 128, Activation::gelu_tanh},
        {false, Dedup::none, 130, 128, 1, 0, 8 * n, 1, 256},
    };
    if (n > 1) {
        all.push_back({false, Dedup::rank, 333, 256, 1, 0, 4 * n, 2, 192});
        all.push_back({false, Dedup::rank, 500, 384, 1, 0, 16 * n, 8, 128});
        all.push_back({false, Dedup::rank, 77, 128, 1, 0, 2 * n, 1, 64});
    }
    for (int heads = 1; heads < n; heads *= 2) {  // HP x EP: n / heads ranks share a head
        all.push_back({true, Dedup::none, 200, 256, heads, 128, 4 * n, 3, 128});
        all.push_back({true, Dedup::rank, 77, 128, heads, 64, 2 * n, 2, 64, Activation::gelu_tanh});
    }
    return all;
}

}  // namespace

std::vector<LayerCheck> check_layers(DeviceContext& context) {
    std::vector<LayerCheck> checks;
    for (const Case& c : cases(context.communicator.size())) {
        const ArenaScope scope(context.arena);
        const bool shared_heads = c.head_parallel && c.heads < context.communicator.size();
        const auto check = shared_heads ? check_hp_ep : c.head_parallel ? check_hp : check_ep;
        check(context, c, checks);
    }
    return checks;
}

}  // namespace headway::runtime
