// What a layer sends and computes, on a machine with constant rates, solved by hand.
#include "models/cost/predict.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "models/cost/moe_layer.hpp"
#include "models/vocab/error.hpp"
#include "models/workload/inclusion.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

const PhaseCost& traffic_phase(const PlanPrediction& plan, Phase wanted,
                               Pass pass = Pass::forward) {
    const auto found =
        std::find_if(plan.phases.begin(), plan.phases.end(),
                     [&](const PhaseCost& c) { return c.phase == wanted && c.pass == pass; });
    if (found == plan.phases.end()) throw std::logic_error("phase not in plan");
    return *found;
}

PlanPrediction run_traffic(const Scenario& s, const Plan& plan) {
    return predict_plan(s, plan, toy::profile());
}

// N = 8, T = 4096, k = 4, d = 1024, b = 2: a rank sends T k d b (N-1)/N bytes off-rank, in each of
// 2 layers.
TEST(Predict, NaiveDispatchIsTkdbTimesNMinusOneOverN) {
    const Scenario s = toy::scenario();
    const PlanPrediction p = run_traffic(s, s.plans[0]);
    const double bytes = 4096.0 * 4 * 1024 * 2 * 7 / 8;
    EXPECT_DOUBLE_EQ(traffic_phase(p, Phase::dispatch).bytes.in(byte), 2 * bytes);
    EXPECT_NEAR(traffic_phase(p, Phase::dispatch).time.in(second), 2 * (1e-6 + bytes / toy::kLink),
                1e-12);
    EXPECT_DOUBLE_EQ(p.traffic.sent_mean.in(byte), 2 * bytes);  // dispatch and combine of one layer
}

// Experts: T k rows on each rank, 2 GEMMs of 2 d f FLOPs a row; activation reads and writes f b
// bytes a row.
TEST(Predict, ExpertsAreTwoGemmsAndAnActivation) {
    const Scenario s = toy::scenario();
    const PlanPrediction p = run_traffic(s, s.plans[0]);
    const double rows = 4096.0 * 4, flops = 4 * rows * 1024 * 512, bytes = 2 * rows * 512 * 2;
    EXPECT_NEAR(traffic_phase(p, Phase::expert).time.in(second),
                2 * (flops / toy::kFlopRate + bytes / toy::kByteRate), 1e-12);
    EXPECT_NEAR(traffic_phase(p, Phase::expert, Pass::backward).flops.in(flop), 2 * 2 * flops, 1.0);
}

TEST(Predict, DedupFollowsDistinctDestinations) {
    const Scenario s = toy::scenario();
    const PlanPrediction p = run_traffic(s, toy::ep(Dedup::rank, 8));
    const double copies = distinct_destinations({64, 4, 1, 1}, 8);
    EXPECT_NEAR(traffic_phase(p, Phase::dispatch).bytes.in(byte),
                2 * 4096 * copies * 1024 * 2 * 7 / 8, 1.0);
}

// Two nodes of 4: over the NIC one copy to the other node with probability D_2 / 2; inside, every
// (token, rank) pair is forwarded by one of N/4 = 2 entry ranks, and those addressed to the entry
// itself do not move: N - N/4 = 6 sources a rank.
TEST(Predict, NodeDedupSendsOneCopyPerNodeAndForwards) {
    const Scenario s = toy::scenario(2, 4);
    const PlanPrediction p = run_traffic(s, toy::ep(Dedup::node, 8));
    const RouterShape router{64, 4, 1, 1};
    const double row = 4096.0 * 1024 * 2;
    const double nic = row * uniform_hit_probability(router, 2),
                 inside = row * uniform_hit_probability(router, 8) * 6;
    EXPECT_NEAR(p.traffic.by_path[static_cast<std::size_t>(PathClass::nic)].in(byte), 2 * nic, 1.0);
    EXPECT_NEAR(p.traffic.by_path[static_cast<std::size_t>(PathClass::nvlink)].in(byte), 2 * inside,
                1.0);
    // The stages overlap but for one latency.
    EXPECT_NEAR(traffic_phase(p, Phase::dispatch).time.in(second),
                2 * (2e-6 + std::max(nic, inside) / toy::kLink), 1e-10);
}

// The rank that forwards makes a copy for each rank of its node that a row from the n - 1 other
// nodes goes on to, L = N / n ranks: F = T q_N (N - L) in all; back, it reads them and writes the
// T q_n (n - 1) sums. Sampled tokens have as many.
TEST(Predict, NodeDedupCountsTheCopiesOfTheForwardingRank) {
    for (const auto& [nodes, gpus] : {std::pair{2, 4}, {4, 2}}) {
        Scenario s = toy::scenario(nodes, gpus);
        s.routing.noise = true;
        const Plan plan = toy::ep(Dedup::node, 8);
        const RouterShape router{64, 4, 1, 1};
        const double row = 1024 * 2, T = 4096;
        const double made = T * uniform_hit_probability(router, 8) * (8 - gpus);
        const double came = T * uniform_hit_probability(router, nodes) * (nodes - 1);
        const GroupLoad load = expected_load(s, plan, 0);
        EXPECT_NEAR(load.copies_forwarded, made, 1e-9 * made);
        EXPECT_NEAR(sampled_load(s, plan, 0, 0).copies_forwarded, made, 0.01 * made);
        const LayerWork work = build_moe_layer(s, plan, load, 0);
        for (const auto* phases : {&work.forward, &work.backward}) {
            for (const PhaseWork& phase : *phases) {
                const auto* exchange = std::get_if<ExchangeWork>(&phase.work);
                if (exchange == nullptr) continue;
                const bool outward =
                    (phase.phase == Phase::dispatch) == (phase.pass == Pass::forward);
                EXPECT_NEAR(exchange->forwarder.bytes.in(byte),
                            row * (made + (outward ? made : came)), 1.0);
                EXPECT_DOUBLE_EQ(exchange->own_share, 1.0 / nodes);
            }
        }
    }
}

// As the layers are run, the stages follow each other: the NIC's bytes beside the half of the
// inside's that are of own tokens, the copies between, the other half. Counts: twice.
TEST(Predict, LayersAreRunStageAfterStage) {
    const Scenario s = toy::scenario(2, 4);
    const Plan plan = toy::ep(Dedup::node, 8);
    Profile profile = toy::profile();
    profile.overheads.count_exchange = 30 * us;
    const RouterShape router{64, 4, 1, 1};
    const double row = 1024 * 2, T = 4096, nic = T * uniform_hit_probability(router, 2),
                 inside = T * uniform_hit_probability(router, 8) * 6;
    const double made = T * uniform_hit_probability(router, 8) * 4;
    const double first = 1e-6 + row * std::max(nic, inside / 2) / toy::kLink,
                 second_stage = 1e-6 + row * inside / 2 / toy::kLink;
    for (const Span& span : predict_moe_layers(s, plan, profile, 1).timeline.spans) {
        const double time = span.duration.in(second);
        if (span.phase == Phase::count_exchange) {
            EXPECT_NEAR(time, 60e-6, 1e-12);
        }
        if (span.phase != Phase::dispatch && span.phase != Phase::combine) continue;
        const bool outward = (span.phase == Phase::dispatch) == (span.pass == Pass::forward);
        const double between = row * (made + (outward ? made : nic)) / toy::kByteRate;
        EXPECT_NEAR(time, first + between + second_stage, 1e-12);
    }
}

// Where a profile knows the whole phase, c_0 + c_1 sent k + c_2 T k: both stages together tell of
// the T (q_n (n-1) + q_N (N-n)) copies that leave their rank, as a rank-dedup of N/(N-1) times as
// many copies does, which T q_N N are of T tokens.
TEST(Predict, NodeDedupSendsTheRecordsOfBothStages) {
    const Scenario s = toy::scenario(2, 4);
    Profile profile = toy::profile();
    profile.phases = {{.layer = LayerKind::ep_rank,
                       .phase = Phase::count_exchange,
                       .pass = Pass::forward,
                       .terms = {Term::fixed, Term::copy_choices, Term::choices},
                       .seconds = {50e-6, 1e-9, 3e-9}}};
    const RouterShape router{64, 4, 1, 1};
    const double leaving =
        4096 * (uniform_hit_probability(router, 2) + 6 * uniform_hit_probability(router, 8));
    for (const Span& span :
         predict_moe_layers(s, toy::ep(Dedup::node, 8), profile, 1).timeline.spans) {
        if (span.phase != Phase::count_exchange) continue;
        const double sent = leaving * 8 / 7, whole = 8 * 4096 * uniform_hit_probability(router, 8);
        EXPECT_NEAR(span.duration.in(second),
                    2 * 50e-6 + 1e-9 * 4 * sent + 3e-9 * 4 * 4096 * sent / whole, 1e-12);
    }
}

// HP: T H d_h b (N-1)/N each way, for every k, skew and seed.
TEST(Predict, HeadParallelTrafficIsIndependentOfRouting) {
    const double bytes = 4096.0 * 1024 * 2 * 7 / 8;
    for (int k : {1, 2, 8, 32}) {
        for (double skew : {0.0, 1.0}) {
            Scenario s = toy::scenario();
            s.model.moe.top_k = k;
            s.routing = {.noise = true,
                         .skew = skew > 0 ? Skew::zipf : Skew::none,
                         .parameter = skew,
                         .seed = 5};
            const PlanPrediction p = run_traffic(s, toy::hp(8, s.model, 8));
            EXPECT_DOUBLE_EQ(traffic_phase(p, Phase::head_scatter).bytes.in(byte), 2 * bytes);
            EXPECT_DOUBLE_EQ(p.traffic.sent_max.in(byte), 2 * bytes);
            EXPECT_DOUBLE_EQ(p.traffic.imbalance, 1.0);
        }
    }
}

TEST(Predict, HeadTwinHasTheExpertFlopsOfTheEpLayer) {
    const Scenario s = toy::scenario();
    const PlanPrediction ep = run_traffic(s, s.plans[0]),
                         hp = run_traffic(s, toy::hp(8, s.model, 8));
    EXPECT_DOUBLE_EQ(traffic_phase(ep, Phase::expert).flops.in(flop),
                     traffic_phase(hp, Phase::expert).flops.in(flop));
}

TEST(Predict, NaiveTrafficIsLinearInKAndDedupSaturates) {
    double last_naive = 0.0, last_dedup = 0.0;
    for (int k : {1, 2, 4, 8, 16}) {
        Scenario s = toy::scenario();
        s.model.moe.top_k = k;
        const double naive = run_traffic(s, s.plans[0]).traffic.sent_mean.in(byte);
        const double dedup = run_traffic(s, toy::ep(Dedup::rank, 8)).traffic.sent_mean.in(byte);
        EXPECT_DOUBLE_EQ(naive, k * 2 * 4096.0 * 1024 * 2 * 7 / 8);
        EXPECT_LE(dedup, std::min(naive, 2 * 4096.0 * 1024 * 2 * 7) * (1 + 1e-12));
        EXPECT_GT(naive, last_naive);
        EXPECT_GT(dedup, last_dedup);
        last_naive = naive;
        last_dedup = dedup;
    }
}

TEST(Predict, MoreBandwidthIsNeverSlowerAndMoreSkewNeverFaster) {
    Scenario s = toy::scenario(2, 4);
    s.plans = {toy::ep(Dedup::none, 8, "ep")};
    Seconds last = 1e9 * second;
    for (double factor : {0.5, 1.0, 2.0, 8.0}) {
        s.cluster.fabric->nic = factor * toy::kLink * byte / second;
        const Seconds step = run_traffic(s, s.plans[0]).step;
        EXPECT_LE(step, last);
        last = step;
    }
    double load = 0.0;
    for (double skew : {0.0, 0.3, 0.6, 0.9, 1.2}) {
        s.routing = {.noise = true,
                     .skew = skew > 0 ? Skew::zipf : Skew::none,
                     .parameter = skew,
                     .per_layer = false,
                     .seed = 3};
        const double imbalance = run_traffic(s, s.plans[0]).traffic.imbalance;
        EXPECT_GT(imbalance, load);
        load = imbalance;
    }
}

// The closed form of the busiest rank against sampled tokens: the stated bias is at most 2 points
// of load.
TEST(Predict, ClosedFormAgreesWithSampling) {
    Scenario s = toy::scenario();
    for (const Routing& routing :
         {Routing{.seed = 1},
          Routing{.skew = Skew::zipf, .parameter = 0.8, .per_layer = false, .seed = 2}}) {
        s.routing = routing;
        for (Dedup dedup : {Dedup::none, Dedup::rank}) {
            const Plan plan = toy::ep(dedup, 8);
            const PlanPrediction closed = predict_plan(s, plan, toy::profile());
            const PlanPrediction sampled =
                predict_plan(s, plan, toy::profile(), {.samples = 24, .threads = 2});
            EXPECT_NEAR(closed.traffic.imbalance / sampled.traffic.imbalance, 1.0, 0.02);
            EXPECT_NEAR(closed.step / sampled.step, 1.0, 0.02);
        }
    }
}

TEST(Predict, SamplingIsTheSameOnAnyNumberOfThreads) {
    Scenario s = toy::scenario();
    s.routing = {.seed = 9};
    const Seconds one =
        predict_plan(s, s.plans[0], toy::profile(), {.samples = 6, .threads = 1}).step;
    EXPECT_EQ(one, predict_plan(s, s.plans[0], toy::profile(), {.samples = 6, .threads = 4}).step);
}

}  // namespace
}  // namespace headway
