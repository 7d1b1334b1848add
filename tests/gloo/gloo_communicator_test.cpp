// Ranks that are processes and exchange through Gloo against ranks that are threads: the same
// results and the same booked bytes, to the last bit, and every failure named on all ranks.
#include "runtime/gloo/gloo_communicator.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/process/forked_ranks.hpp"
#include "tests/runtime/run_layers.hpp"

namespace headway::runtime {
namespace {

// What a rank computed, and what it sent.
struct Outcome {
    std::vector<double> values;
    TrafficLedger ledger;

    friend bool operator==(const Outcome&, const Outcome&) = default;
};
using RankBody = std::function<Outcome(Communicator&)>;

void append(const Matrix<double>& m, std::vector<double>& values) {
    values.insert(values.end(), m.data(), m.data() + m.size());
}

Outcome collectives(Communicator& comm) {
    Outcome outcome;
    const int n = comm.size(), rank = comm.rank();
    comm.enter({Phase::dispatch, Pass::forward});
    // Uneven, with nothing for some: source s sends (s + 2 d) % 3 numbers to d.
    std::vector<std::int64_t> sent, received;
    std::vector<double> out;
    std::int64_t total = 0;
    for (int d = 0; d < n; ++d) {
        const int count = (rank + 2 * d) % 3;
        sent.push_back(count * 8);
        for (int i = 0; i < count; ++i) out.push_back(100.0 * rank + 10.0 * d + i);
        received.push_back((d + 2 * rank) % 3 * 8);
        total += received.back() / 8;
    }
    outcome.values.resize(static_cast<std::size_t>(total));
    comm.all_to_all_v(out.data(), sent, outcome.values.data(), received);
    comm.enter({Phase::combine, Pass::backward});
    // Not associative: only one order of the sum gives these bits.
    std::vector<double> terms;
    for (int i = 0; i < 5; ++i) terms.push_back(1.0 / (3.0 + rank + i));
    comm.all_reduce_sum(std::span<double>(terms));
    outcome.values.insert(outcome.values.end(), terms.begin(), terms.end());
    const auto half = comm.split(rank % 2);
    std::vector<double> part{0.1 * rank, 0.7};
    half->all_reduce_sum(std::span<double>(part));
    half->barrier();
    outcome.values.insert(outcome.values.end(), part.begin(), part.end());
    const std::int64_t own[] = {rank, 7};
    for (const std::int64_t count : comm.all_gather_counts(own))
        outcome.values.push_back(static_cast<double>(count));
    outcome.ledger = comm.traffic();
    return outcome;
}

Outcome ep_layer(const LayerCase& c, Communicator& comm) {
    Outcome outcome;
    RankContext context{comm};
    const auto tokens = c.tokens[static_cast<std::size_t>(comm.rank())];
    const auto weights = make_ep_weights<double>(c.dims(), c.ep(), comm.size(), comm.rank(), kSeed);
    const auto x = make_tokens<double>(tokens, c.hidden, comm.rank(), kSeed);
    auto gradients = zeros_like(weights);
    EpState<double> state;
    append(ep_forward<double>(context, c.ep(), weights, x, state, {}), outcome.values);
    append(ep_backward<double>(context, c.ep(), weights, x, state,
                               output_gradient<double>(c, comm.rank()), gradients),
           outcome.values);
    append(gradients.router.weight, outcome.values);
    for (const ExpertWeights<double>& expert : gradients.experts) append(expert.up, outcome.values);
    outcome.ledger = comm.traffic();
    return outcome;
}

Outcome hp_layer(const LayerCase& c, Communicator& comm) {
    Outcome outcome;
    RankContext context{comm};
    const HpShape shape = c.hp();
    const auto peers = comm.split(comm.rank() / shape.sharers());
    const auto tokens = c.tokens[static_cast<std::size_t>(comm.rank())];
    const auto weights = make_hp_weights<double>(c.dims(), shape, comm.rank(), kSeed);
    const auto x = make_tokens<double>(tokens, c.hidden, comm.rank(), kSeed);
    auto gradients = zeros_like(weights);
    HpState<double> state;
    append(hp_forward<double>(context, peers.get(), shape, weights, x, state, {}), outcome.values);
    append(hp_backward<double>(context, peers.get(), shape, weights, x, state,
                               output_gradient<double>(c, comm.rank()), gradients),
           outcome.values);
    outcome.ledger = comm.traffic();
    return outcome;
}

void expect_equal_backends(int num_ranks, const RankBody& body) {
    auto expected = std::make_shared<std::vector<Outcome>>(static_cast<std::size_t>(num_ranks));
    run_on_threads(num_ranks, [expected, body](Communicator& comm) {
        (*expected)[static_cast<std::size_t>(comm.rank())] = body(comm);
    });
    const auto ranks = run_forked({.num_ranks = num_ranks}, [&](SideChannel& channel) {
        const auto comm = make_gloo_communicator(channel, {.host = "127.0.0.1"});
        const Outcome outcome = body(*comm);
        const Outcome& same = (*expected)[static_cast<std::size_t>(comm->rank())];
        if (outcome.values.size() != same.values.size() ||
            std::memcmp(outcome.values.data(), same.values.data(), 8 * same.values.size()) != 0)
            throw std::runtime_error("other values than the threads");
        if (outcome.ledger != same.ledger) throw std::runtime_error("other bytes were booked");
        channel.barrier();
    });
    for (const ForkedRank& rank : ranks) EXPECT_EQ(rank.exit_code, 0) << rank.message;
}

TEST(GlooCommunicator, CollectivesEqualThoseOfThreads) {
    for (const int n : {1, 2, 5, 8}) expect_equal_backends(n, collectives);
}

TEST(GlooCommunicator, LayersEqualThoseOfThreadsToTheLastBit) {
    const std::vector<std::int64_t> two{5, 3}, eight{4, 3, 0, 5, 6, 2, 7, 1};
    for (const auto& tokens : {two, eight}) {
        const int n = static_cast<int>(tokens.size());
        for (const Dedup dedup : {Dedup::none, Dedup::rank, Dedup::node}) {
            const LayerCase c{.num_experts = 16,
                              .top_k = 3,
                              .tokens = tokens,
                              .dedup = dedup,
                              .summation = Summation::fixed_order,
                              .ranks_per_node = std::min(n, 4)};
            expect_equal_backends(n, [&](Communicator& comm) { return ep_layer(c, comm); });
        }
        for (const int heads : {2, 8}) {
            const LayerCase c{.num_experts = 8,
                              .tokens = tokens,
                              .num_heads = heads,
                              .head_width = 2,
                              .summation = Summation::fixed_order};
            expect_equal_backends(n, [&](Communicator& comm) { return hp_layer(c, comm); });
        }
    }
}

// Rank 1 of 3 ends in the dispatch, while the others wait for what it does not send.
std::vector<ForkedRank> run_until(const std::function<void()>& end_of_rank_1) {
    return run_forked({.num_ranks = 3, .options = short_deadlines()}, [&](SideChannel& channel) {
        const auto comm = make_gloo_communicator(channel, {.host = "127.0.0.1"});
        comm->enter({Phase::dispatch, Pass::forward});
        if (comm->rank() == 1) {
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
            end_of_rank_1();
        }
        comm->barrier();
    });
}

TEST(GlooCommunicator, AThrowingRankIsNamedByAll) {
    for (const ForkedRank& rank : run_until([] { throw std::runtime_error("no luck"); })) {
        EXPECT_EQ(rank.exit_code, kRankFailureExit);
        EXPECT_EQ(rank.message, "rank 1 failed in phase dispatch (forward): no luck");
        EXPECT_LT(rank.seconds, 15.0);
    }
}

TEST(GlooCommunicator, AKilledRankIsNamedByTheOthers) {
    const auto ranks = run_until([] { raise(SIGKILL); });
    EXPECT_EQ(ranks[1].signal, SIGKILL);
    for (const int other : {0, 2}) {
        const ForkedRank& rank = ranks[static_cast<std::size_t>(other)];
        EXPECT_EQ(rank.exit_code, kRankFailureExit);
        EXPECT_EQ(rank.message.find("rank 1 failed in phase dispatch (forward): "), 0U)
            << rank.message;
        EXPECT_LT(rank.seconds, 15.0);
    }
}

TEST(GlooCommunicator, AStoppedRankEndsTheOthersThatWaitForIt) {
    const auto ranks = run_until([] { raise(SIGSTOP); });
    for (const int other : {0, 2}) {
        const ForkedRank& rank = ranks[static_cast<std::size_t>(other)];
        EXPECT_EQ(rank.exit_code, 9);  // stuck in Gloo, ended by the side channel
        EXPECT_LT(rank.seconds, 15.0);
    }
}

}  // namespace
}  // namespace headway::runtime
