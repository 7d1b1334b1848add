#include "runtime/cuda/check_reference.hpp"

#include <cuda_bf16.h>

#include <memory>
#include <span>

#include "runtime/thread_communicator.hpp"

namespace headway::runtime {
namespace {

double to_bf16(double v) {
    return static_cast<double>(__bfloat162float(__float2bfloat16_rn(static_cast<float>(v))));
}
void round_to_bf16(Matrix<double>& m) {
    for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = to_bf16(m.data()[i]);
}
void round_to_float(Matrix<double>& m) {
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

void append(Doubles& to, const Doubles& values) {
    to.insert(to.end(), values.begin(), values.end());
}

}  // namespace

Doubles flat(const Matrix<double>& m) {
    return {m.data(), m.data() + m.size()};
}
Doubles flat_transposed(const Matrix<double>& m) {
    return flat(Matrix<double>(m.transpose()));
}
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

Inputs inputs_of(const LayerCase& c, int rank) {
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

Expected reference(const LayerCase& c, const LayerSetup& s, int wanted_rank) {
    auto result = std::make_shared<Expected>();
    run_on_threads(s.num_ranks, [=](Communicator& comm) {
        RankContext context{.communicator = comm};
        const int rank = comm.rank();
        const Inputs in = inputs_of(c, rank);
        Expected own;
        Matrix<double> y, dx;
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

}  // namespace headway::runtime
