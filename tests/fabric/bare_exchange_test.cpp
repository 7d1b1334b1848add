// The exchanges of a layer by themselves: in closed form, and simulated on the same links.
#include "models/cost/bare_exchange.hpp"

#include <gtest/gtest.h>

#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

double simulated(const BareExchange& exchange, const Scenario& s) {
    Program program{.num_ranks = s.cluster.num_ranks()};
    program.tasks.push_back(
        {.phase = exchange.phase, .stream = Stream::communication, .work = exchange.task});
    return sim::simulate(program, sim::Topology(s.cluster)).step.in(second);
}

// Four hosts in two leaves, 2:1: a trunk is as wide as one NIC. An even exchange of b = T k / N d e
// a pair: a NIC carries 3 b, a trunk 2 x 2 b.
TEST(BareExchange, TrunksDecideAnEvenExchange) {
    Scenario s = toy::scenario(4, 1);
    s.cluster.nvlink.reset();
    s.cluster.fabric->nodes_per_leaf = 2;
    s.cluster.fabric->oversubscription = 2.0;
    const auto exchanges = bare_exchanges(s, s.plans[0], ideal_links(s.cluster), 0);
    ASSERT_EQ(exchanges.size(), 4u);
    const double expected = 4.0 * (4096 * 4 / 4 * 1024 * 2) / toy::kLink;
    for (const BareExchange& exchange : exchanges) {
        EXPECT_NEAR(exchange.predicted.in(second), expected, 1e-6 * expected);
        EXPECT_NEAR(simulated(exchange, s), expected, 1e-6 * expected);
    }
    EXPECT_EQ(exchanges[0].phase, Phase::dispatch);
    EXPECT_EQ(exchanges[0].pass, Pass::forward);
    EXPECT_EQ(exchanges[3].phase, Phase::dispatch);
    EXPECT_EQ(exchanges[3].pass, Pass::backward);
}

// Two nodes of 4 and node-dedup: c = T (1 - C(32, 4) / C(64, 4)) copies over each NIC, then those
// and the own node's over NVLink: each rank gets of 2 ranks of its number T (1 - C(56, 4) / C(64,
// 4)) copies for each of its 3 neighbours. One stage after the other.
TEST(BareExchange, StagesOfNodeDedupFollowOneAnother) {
    const Scenario s = toy::scenario(2, 4);
    const Plan plan = toy::ep(Dedup::node, 8);
    const auto missed = [](double others) {
        return others * (others - 1) * (others - 2) * (others - 3) / (64.0 * 63 * 62 * 61);
    };
    const double copy = 1024 * 2, over_nic = 4096 * (1 - missed(32)) * copy,
                 inside = 3 * 2 * 4096 * (1 - missed(56)) * copy;
    const double expected = (over_nic + inside) / toy::kLink;
    for (const BareExchange& exchange : bare_exchanges(s, plan, ideal_links(s.cluster), 0)) {
        EXPECT_NEAR(exchange.predicted.in(second), expected, 1e-3 * expected);
        EXPECT_NEAR(simulated(exchange, s), expected, 1e-3 * expected);
    }
}

// The runtime of headway tells gates beside the rows under dedup, and moves the planes of HP in
// memory: neither is the exchange.
TEST(BareExchange, WhatTheRuntimeDoesBesidesIsLeftOut) {
    const Scenario s = toy::scenario();
    for (Plan plan : {toy::ep(Dedup::rank, 8), toy::hp(16, s.model, 8)}) {
        plan.implementation = Implementation::headway;
        const auto exchanges = bare_exchanges(s, plan, ideal_links(s.cluster), 0);
        EXPECT_EQ(exchanges.size(), 4u);
    }
}

}  // namespace
}  // namespace headway
