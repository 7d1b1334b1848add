// A pipelined step on a machine where the closed forms of its schedule hold: attention's core has
// no weights, all other work is GEMMs, whose backward is two of the forward's; head and embedding
// cost nothing, so that stages are even.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "models/cost/pipeline_step.hpp"
#include "models/cost/predict.hpp"
#include "models/vocab/error.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

using enum PipelineSchedule;

void set_rate(Profile& profile, Kernel kernel, double forward, double backward) {
    KernelCurves& curves = profile.kernel(kernel);
    curves.backward = curves.forward;
    curves.forward.front().rate = {forward, forward};
    curves.backward.front().rate = {backward, backward};
}

struct Layout {
    int p = 4, v = 1, m = 8;
    PipelineSchedule schedule = one_f_one_b;
    std::string stages;
};

Scenario scenario_of(const Layout& layout, int layers = 16) {
    Scenario s = toy::scenario(layout.p, 2);
    s.model.num_layers = layers;
    s.batch.num_micro_batches = layout.m;
    Plan plan = toy::ep(Dedup::none, 2);
    plan.parallel.pipeline_model_parallel_size = layout.p;
    plan.parallel.virtual_pipeline_model_parallel_size = layout.v;
    plan.parallel.pipeline_schedule = layout.schedule;
    plan.parallel.pipeline_model_parallel_layout = layout.stages;
    s.plans = {plan};
    return s;
}

struct Executed {
    Workload workload;
    StepTime step;

    const PipelineTime& pipeline() const { return *step.pipeline; }
    double makespan() const { return pipeline().times.makespan.in(second); }
    double f(std::size_t stage = 0) const { return pipeline().chunks[stage].forward.in(second); }
    double b(std::size_t stage = 0) const { return pipeline().chunks[stage].backward.in(second); }
    double w(std::size_t stage = 0) const { return pipeline().chunks[stage].weight.in(second); }
};

Executed execute(const Scenario& s, const Profile& profile) {
    Executed e{.workload = build_workload(s, s.plans[0]), .step = {}};
    PriceBook book(profile, s.cluster, s.model.dtype);
    e.step = price_step({e.workload, e.workload, {}}, profile, book);
    return e;
}

constexpr double kFree = 1e30;

void make_links_free(Scenario& s, Profile& profile) {
    s.cluster.nvlink->bandwidth = kFree * byte / second;
    s.cluster.fabric->nic = kFree * byte / second;
    for (TimeCurve& curve : profile.communication) {
        curve.link = kFree * byte / second;
        curve.seconds = {1e-30, 1e-30};
    }
}

// Chunks of F = 1, input gradient B, weight gradient W = 2 - B in units of the first chunk's
// forward: GEMMs take W forward and 2 W backward, attention's core 1 - W forward and B - W
// backward.
Executed execute_chunks(const Layout& layout, double w, double input) {
    Scenario s = scenario_of(layout);
    s.model.vocab_size = 1;
    s.cluster.device.memory_bandwidth = kFree * byte / second;
    Profile profile = toy::profile();
    make_links_free(s, profile);
    for (const Kernel k : {Kernel::gather, Kernel::streaming}) set_rate(profile, k, kFree, kFree);
    set_rate(profile, Kernel::attention, kFree, kFree);
    const double gemms = execute(s, profile).f();
    set_rate(profile, Kernel::attention, toy::kFlopRate, toy::kFlopRate);
    const Executed with = execute(s, profile);
    const double core = with.f() - gemms, core_back = with.b() - 2 * gemms;
    const double unit = gemms / w;
    if (w < 1.0)
        set_rate(profile, Kernel::attention, toy::kFlopRate * core / ((1 - w) * unit),
                 toy::kFlopRate * core_back / ((input - w) * unit));
    else
        set_rate(profile, Kernel::attention, kFree, kFree);
    const Executed e = execute(s, profile);
    EXPECT_NEAR(e.f(), unit, 1e-4 * unit);
    EXPECT_NEAR(e.w(), w * unit, 1e-4 * unit);
    EXPECT_NEAR(e.b(), (input + w) * unit, 1e-4 * unit);
    return e;
}

double in_forwards(const Layout& layout, double w, double input) {
    const Executed e = execute_chunks(layout, w, input);
    return e.makespan() / e.f();
}

// Published and hand-solved makespans in units of F; tests/schedule has the formulas.
TEST(PipelineStep, TakesTheTimesOfItsClosedForms) {
    constexpr double w = 0.7, input = 1.3, near = 1e-2;
    EXPECT_NEAR(in_forwards({.schedule = gpipe}, w, input), 33.0, near);
    EXPECT_NEAR(in_forwards({.schedule = one_f_one_b}, w, input), 33.0, near);
    EXPECT_NEAR(in_forwards({.v = 2, .schedule = interleaved}, w, input), 57.0, near);
    EXPECT_NEAR(in_forwards({.schedule = zb_h1}, w, input), 28.8, near);
    EXPECT_NEAR(in_forwards({.schedule = zb_h2}, w, input), 27.0, near);
    EXPECT_NEAR(in_forwards({.p = 8, .m = 20, .schedule = dualpipe}, 1, 1), 66.0, near);
    EXPECT_NEAR(in_forwards({.p = 4, .v = 2, .m = 10, .schedule = dualpipe_v}, 1, 1), 66.0, near);
    EXPECT_NEAR(in_forwards({.v = 2, .schedule = zb_v}, 1, 1), 51.0, near);
}

double sum_of_rows(const StepTime& step) {
    Seconds sum;
    for (const auto& phase : step.phases)
        for (const PhaseTotal& total : phase) sum += total.time;
    return sum.in(second);
}

Scenario skewed(const Layout& layout) {
    Scenario s = scenario_of(layout);
    s.routing.skew = Skew::zipf;
    s.routing.parameter = 0.5;
    return s;
}

// Rows are the busiest rank's, with what it waits for: they add up to the step under every
// schedule, and no rank has more or less than the makespan.
TEST(PipelineStep, RowsAddUpToTheStep) {
    for (const Layout& layout :
         {Layout{.schedule = gpipe}, Layout{}, Layout{.v = 2, .schedule = interleaved},
          Layout{.v = 2, .schedule = combined_1f1b}, Layout{.schedule = zb_h1},
          Layout{.schedule = zb_h2}, Layout{.v = 2, .schedule = zb_v}, Layout{.schedule = dualpipe},
          Layout{.v = 2, .schedule = dualpipe_v}}) {
        const Scenario s = skewed(layout);
        Profile profile = toy::profile();
        profile.overheads.overlap_slowdown = 1.2;
        const Executed e = execute(s, profile);
        const PipelineTimes& times = e.pipeline().times;
        EXPECT_NEAR(sum_of_rows(e.step), e.step.total.in(second), 1e-12);
        Seconds update;
        for (const PhaseTime& t : e.step.update) update += t.time;
        EXPECT_NEAR(e.step.total.in(second), (times.makespan + update).in(second), 1e-12);
        const std::size_t shown = e.pipeline().shown;
        for (std::size_t r = 0; r < times.busy.size(); ++r) {
            EXPECT_LE(times.busy[r], times.busy[shown]);
            EXPECT_GE(times.bubble(r).in(second), -1e-12);
        }
        const auto& idle = e.step.phases[static_cast<std::size_t>(Phase::pipeline_bubble)];
        EXPECT_NEAR((idle[0].time + idle[1].time + idle[2].time).in(second),
                    times.bubble(shown).in(second), 1e-12);
        const auto& p2p = e.step.phases[static_cast<std::size_t>(Phase::pipeline_p2p)];
        EXPECT_NEAR((p2p[0].time + p2p[1].time).in(second), times.message_wait[shown].in(second),
                    1e-12);
    }
}

// Popularity is drawn anew for every layer, and a stage is the sum of its own layers.
TEST(PipelineStep, StagesAreTheSumsOfTheirLayers) {
    Scenario s = skewed({.stages = "Ett|tttttttt|tttt|ttL"});
    s.model.num_dense_layers = 1;
    s.model.dense_width = 4096;
    const Executed e = execute(s, toy::profile());
    const std::vector<PipelineStage>& stages = e.workload.pipeline->stages;
    for (std::size_t i = 0; i < stages.size(); ++i) {
        Seconds forward, backward;
        for (int k = 0; k < stages[i].num_layers; ++k) {
            const auto layer = static_cast<std::size_t>(stages[i].first_layer + k);
            const LayerTime& time =
                e.step.layers[static_cast<std::size_t>(e.workload.entry_of_layer[layer])];
            forward += time.forward.total, backward += time.backward.total;
        }
        for (const LayerTime* outer : {&e.step.before, &e.step.after}) {
            if (!(outer == &e.step.before ? stages[i].embedding : stages[i].head_and_loss))
                continue;
            forward += outer->forward.total, backward += outer->backward.total;
        }
        EXPECT_NEAR(e.f(i), forward.in(second), 1e-15);
        EXPECT_NEAR(e.b(i), backward.in(second), 1e-15);
    }
    EXPECT_EQ(e.pipeline().shown, 1u);
    EXPECT_NE(e.step.layers[1].forward.total, e.step.layers[2].forward.total);
}

// One rank runs the same step as without an order: every row, reductions in buckets included.
TEST(PipelineStep, OnOneRankIsTheStepWithoutPipeline) {
    Scenario s = scenario_of({.p = 1, .m = 3});
    s.cluster = toy::cluster(4, 2);
    for (const PipelineSchedule schedule : {gpipe, one_f_one_b}) {
        s.plans[0].parallel.pipeline_schedule = schedule;
        Workload plain = build_workload(s, s.plans[0]), ordered = plain;
        ordered.pipeline = build_pipeline(s, s.plans[0]);
        Profile profile = toy::profile();
        profile.overheads.overlap_slowdown = 1.1;
        PriceBook book(profile, s.cluster, s.model.dtype), other = book;
        const StepTime a = price_step({plain, plain, {}}, profile, book),
                       b = price_step({ordered, ordered, {}}, profile, other);
        EXPECT_NEAR(b.total.in(second), a.total.in(second), 1e-12 * a.total.in(second));
        for (std::size_t i = 0; i < a.phases.size(); ++i)
            for (std::size_t pass = 0; pass < 3; ++pass) {
                EXPECT_EQ(b.phases[i][pass].count, a.phases[i][pass].count) << kPhaseNames[i];
                EXPECT_NEAR(b.phases[i][pass].time.in(second), a.phases[i][pass].time.in(second),
                            1e-12)
                    << kPhaseNames[i];
            }
        EXPECT_NEAR(other.total_sigma(), book.total_sigma(), 1e-9 * book.total_sigma());
    }
}

// x of a pair of one layer each, streams in the order C_b, D_f, D_b, C_f beside A_f, M_b, M_f, A_b.
// First forward and last backward have nothing beside them: f + (m - 1) x + b.
TEST(PipelineStep, PairsRunBesideEachOther) {
    Scenario s = scenario_of({.p = 1, .m = 5, .schedule = combined_1f1b}, 1);
    s.cluster = toy::cluster(1, 8);
    s.plans[0].group_size = 8;
    const Profile profile = toy::profile();
    const Executed e = execute(s, profile);
    const auto& forward = e.step.layers[0].forward.phases;
    const auto& backward = e.step.layers[0].backward.phases;
    const auto time_between = [](const std::vector<PhaseTime>& phases, int part) {
        int exchanges = 0;
        Seconds sum;
        for (const PhaseTime& t : phases) {
            const bool outer = t.work->phase == Phase::dispatch || t.work->phase == Phase::combine;
            if (outer) ++exchanges;
            if (part == 2 * exchanges - (outer ? 1 : 0)) sum += t.time;
        }
        return sum;
    };
    const Seconds head_f = e.step.after.forward.total, head_b = e.step.after.backward.total,
                  embed_f = e.step.before.forward.total, embed_b = e.step.before.backward.total;
    const auto f = [&](int part) { return time_between(forward, part); };
    const auto b = [&](int part) { return time_between(backward, part); };
    // Compute stream: [embed, head backward, b0] A_f M_b M_f A_b [f4, head] [embed backward]
    const Seconds start = embed_f + head_b + b(0);
    const Seconds c_b = start + b(1), a_f = start + f(0);
    const Seconds m_b = max(c_b, a_f) + b(2), d_f = max(c_b, a_f) + f(1);
    const Seconds d_b = max(m_b, d_f) + b(3), m_f = max(m_b, d_f) + f(2);
    const Seconds c_f = max(m_f, d_b) + f(3), a_b = max(m_f, d_b) + b(4);
    const Seconds x = max(c_f, a_b) + f(4) + head_f + embed_b;
    const Seconds whole = e.pipeline().chunks[0].forward + e.pipeline().chunks[0].backward;
    EXPECT_LT(x, whole);
    EXPECT_NEAR(e.makespan(), (whole + 4 * x).in(second), 1e-12);
}

// Weight gradients behind the exchanges only move work from before an exchange to behind it: they
// help where compute waits for the exchange, and nowhere do they hurt.
TEST(PipelineStep, DelayedWeightGradientsHideMore) {
    for (const bool heads : {false, true}) {
        int shorter = 0;
        for (const double slower : {1, 4, 16, 64}) {
            Scenario s = scenario_of({.p = 1, .m = 4, .schedule = combined_1f1b}, 6);
            s.cluster = toy::cluster(2, 4);
            if (heads) {
                const Parallel parallel = s.plans[0].parallel;
                s.plans[0] = toy::hp(8, s.model, 8);
                s.plans[0].parallel = parallel;
            }
            s.plans[0].group_size = 8;
            Profile profile = toy::profile();
            for (TimeCurve& curve : profile.communication) curve.seconds.back() *= slower;
            const Executed at_once = execute(s, profile);
            s.plans[0].parallel.delay_wgrad_compute = true;
            const Executed delayed = execute(s, profile);
            EXPECT_LE(delayed.makespan(), (1 + 1e-12) * at_once.makespan());
            shorter += delayed.makespan() < 0.999 * at_once.makespan() ? 1 : 0;
            const auto expert = [](const Executed& e) {
                return e.step.phases[static_cast<std::size_t>(Phase::expert)][1];
            };
            EXPECT_EQ(expert(delayed).count, expert(at_once).count);
            EXPECT_EQ(expert(delayed).flops, expert(at_once).flops);
            EXPECT_NEAR(sum_of_rows(delayed.step), delayed.step.total.in(second), 1e-12);
        }
        EXPECT_GT(shorter, 0);
    }
}

// Two ranks of two replicas each. The second rank's gradients leave a backward of the first before
// the end, in one buffer; the first one's leave layer by layer in its last backward.
TEST(PipelineStep, GradientsHideInTheBubbleOfTheirStage) {
    Scenario s = scenario_of({.p = 2, .m = 4}, 8);
    s.cluster = toy::cluster(4, 2);  // EP groups of 2, two of them a stage
    const Executed e = execute(s, toy::profile());
    const PipelineWork& work = *e.workload.pipeline;
    const Profile profile = toy::profile();
    PriceBook prices(profile, s.cluster, s.model.dtype);
    const auto time_of = [&](std::size_t stage, double share) {
        Seconds sum;
        for (const PhaseWork& phase : work.reductions[stage]) {
            ReduceWork part = std::get<ReduceWork>(phase.work);
            part.bytes *= share;
            sum += prices.reduce(part, 0.0).time;
        }
        return sum;
    };
    const Seconds last_backward = e.pipeline().chunks[0].backward;
    const Seconds second_rank = max(Seconds{}, time_of(1, 1.0) - last_backward);
    Seconds shown;
    for (const PhaseTime& t : e.step.update)
        if (t.work->phase != Phase::optimizer) shown += t.time;
    EXPECT_GE(shown, second_rank);
    // The last bucket has the embedding's backward alone to hide behind.
    EXPECT_GE(shown, time_of(0, 1.0 / 4) - e.step.before.backward.total);
    EXPECT_LE(shown, max(second_rank, time_of(0, 1.0)));
}

TEST(PipelineStep, RefusesWhatHasNoOrder) {
    const auto message = [](const Scenario& s) {
        try {
            build_workload(s, s.plans[0]);
        } catch (const InputError& e) {
            return std::string(e.what());
        }
        return std::string();
    };
    EXPECT_NE(message(scenario_of({.v = 2, .m = 6, .schedule = interleaved})).find("4 or 8"),
              std::string::npos);
    EXPECT_NE(message(scenario_of({}, 15)).find("15 layers do not spread"), std::string::npos);
    Scenario pairs = scenario_of({.v = 2, .schedule = combined_1f1b});
    pairs.plans[0].overlap_chunks = 2;
    EXPECT_NE(message(pairs).find("overlap_chunks"), std::string::npos);
    pairs.plans[0].overlap_chunks = 1;
    pairs.plans[0].recompute = RecomputeLevel::full;
    EXPECT_THROW(execute(pairs, toy::profile()), InputError);
}

// Two nodes of four, two ranks a stage: between stages 0 and 1 NVLink, between 1 and 2 the NIC.
TEST(PipelineStep, MessagesTakeThePathBetweenTheirStages) {
    Scenario s = scenario_of({});
    s.cluster = toy::cluster(2, 4);
    const PipelineWork work = build_pipeline(s, s.plans[0]);
    EXPECT_EQ(work.paths,
              (std::vector{PathClass::nvlink, PathClass::nic, PathClass::nvlink, PathClass::nic}));
    // T d b
    EXPECT_DOUBLE_EQ(work.message.in(byte), 4096.0 * 1024 * 2);
    const Executed e = execute(s, toy::profile());
    EXPECT_NEAR(e.pipeline().hops[0].time.in(second), 1e-6 + 4096.0 * 1024 * 2 / toy::kLink, 1e-12);
}

}  // namespace
}  // namespace headway
