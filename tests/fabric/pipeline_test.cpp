// Pipelined steps: what the simulator executes is what the prediction says, where nothing contends;
// and what contends.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "models/cost/predict.hpp"
#include "models/cost/program.hpp"
#include "models/vocab/error.hpp"
#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

using enum PipelineSchedule;

struct Layout {
    PipelineSchedule schedule = one_f_one_b;
    int p = 4, v = 1, m = 8;
    std::string stages;  // of 16 layers; empty: evenly
    int group = 2;       // EP
    bool delay_wgrad = false;
    double nic = 1.0;  // times its bandwidth

    std::string text() const {
        return std::string(name(schedule)) + " p " + std::to_string(p) + " v " + std::to_string(v) +
               " m " + std::to_string(m) + " " + stages;
    }
};

// Two nodes of one GPU a stage, so that a message has two NICs to itself; experts drawn evenly.
Scenario scenario_of(const Layout& layout) {
    Scenario s = toy::scenario(2 * layout.p, 1);
    s.model.num_layers = 16;
    s.model.mtp_num_layers = static_cast<int>(std::ranges::count(layout.stages, 'm'));
    s.model.vocab_size = 4000;
    s.batch.num_micro_batches = layout.m;
    s.cluster.fabric->nic = layout.nic * s.cluster.fabric->nic;
    Plan plan = toy::ep(Dedup::none, layout.group);
    plan.parallel.pipeline_model_parallel_size = layout.p;
    plan.parallel.virtual_pipeline_model_parallel_size = layout.v;
    plan.parallel.pipeline_schedule = layout.schedule;
    plan.parallel.pipeline_model_parallel_layout = layout.stages;
    plan.parallel.delay_wgrad_compute = layout.delay_wgrad;
    s.plans = {plan};
    return s;
}

sim::SimulationResult simulated(const Scenario& s, sim::SimulateOptions options = {}) {
    return sim::simulate(build_program(s, s.plans[0], toy::profile()), sim::Topology(s.cluster),
                         options);
}

double difference(const Scenario& s) {
    const PlanPrediction predicted = predict_plan(s, s.plans[0], toy::profile(), {});
    return simulated(s).step / predicted.step - 1.0;
}

// p, v, m and uneven stages (embedding and head apart, a long first stage) of every order.
const std::vector<Layout>& layouts() {
    static const std::vector<Layout> all = {
        {gpipe, 4, 1, 8},
        {one_f_one_b, 2, 1, 4},
        {one_f_one_b, 4, 1, 8},
        {one_f_one_b, 8, 1, 16},
        {one_f_one_b, 4, 1, 5, "Et*6|t*4|t*4|ttL"},
        {one_f_one_b, 4, 1, 8, "E|t*8|t*8|L"},
        {interleaved, 4, 2, 8},
        {interleaved, 2, 4, 6},
        {interleaved, 4, 2, 8, "Et|ttt|tt|tt|tt|tt|tt|ttL"},
        {combined_1f1b, 4, 2, 8},
        {combined_1f1b, 2, 2, 4},
        {.schedule = combined_1f1b, .p = 4, .v = 2, .m = 8, .delay_wgrad = true},
        {zb_h1, 4, 1, 8},
        {zb_h2, 4, 1, 8},
        {zb_v, 4, 2, 8},
        {.schedule = dualpipe, .p = 4, .m = 8, .nic = 1000.0},  // see below
        {dualpipe_v, 4, 2, 8},
    };
    return all;
}

TEST(PipelineSimulation, TakesThePredictedTimeWhereNothingContends) {
    for (const Layout& layout : layouts())
        EXPECT_LT(std::abs(difference(scenario_of(layout))), 0.01) << layout.text();
}

// Experts cut over the two ranks of a node: gathers and scatters of their rows, over NVLink, are
// part of M, beside the exchanges of the other micro-batch over the NICs.
TEST(PipelineSimulation, PairsOfCutExpertsTakeThePredictedTime) {
    for (const bool delay : {false, true}) {
        Scenario s = scenario_of({.schedule = combined_1f1b, .p = 2, .v = 2, .m = 4});
        s.cluster = toy::cluster(4, 2);
        s.plans[0].parallel.expert_tensor_parallel_size = 2;
        s.plans[0].parallel.delay_wgrad_compute = delay;
        s.plans[0].overlap_grad_all_reduce = false;
        EXPECT_LT(std::abs(difference(s)), 0.01);
    }
}

// Parameters that come ahead of the first forwards: what shows of them on the first rank, the
// others have them before their first micro-batch arrives.
TEST(PipelineSimulation, GathersParametersAheadAsPredicted) {
    for (Layout layout : layouts()) {
        layout.group = 1;
        Scenario s = scenario_of(layout);
        s.plans[0].parallel.data_parallel_sharding_strategy = DataParallelSharding::optim;
        const double reductions = difference(s);
        const Seconds behind = predict_plan(s, s.plans[0], toy::profile(), {}).step;
        s.plans[0].overlap_param_gather = true;
        const Seconds ahead = predict_plan(s, s.plans[0], toy::profile(), {}).step;
        EXPECT_LT(ahead, behind) << layout.text();
        EXPECT_NEAR(difference(s), reductions, 0.003) << layout.text();
    }
}

// DualPipe's two messages of a pair go to the same rank at once: over one NIC each has half of it
// or, while a third passes, less.
TEST(PipelineSimulation, MessagesOfAPairShareTheNic) {
    const Layout layout{.schedule = dualpipe, .p = 4, .m = 8};
    const Scenario s = scenario_of(layout);
    Seconds message, longest;
    for (const Task& task : build_program(s, s.plans[0], toy::profile()).tasks) {
        const auto* send = std::get_if<SendTask>(&task.work);
        if (send != nullptr && task.pass != Pass::update)
            message = send->latency +
                      static_cast<double>(send->bytes) * byte / (toy::kLink * byte / second);
    }
    for (const Span& span : simulated(s).timeline.spans)
        if (span.phase == Phase::pipeline_p2p) longest = max(longest, span.duration);
    EXPECT_GE(longest / message, 1.9);
}

// All orders of one model compute the same, whatever they split: the sum over tasks of a stage rank
// is that of a plan without a pipeline.
TEST(PipelineProgram, ComputesWhatAStepWithoutAPipelineDoes) {
    const auto computed = [](const Scenario& s) {
        std::map<Pass, double> sums;  // of rank 0 of every role
        for (const Task& task : build_program(s, s.plans[0], toy::profile()).tasks)
            if (const auto* work = std::get_if<ComputeTask>(&task.work))
                sums[task.pass] += work->per_rank[0].in(second);
        return sums;
    };
    Scenario plain = scenario_of({});
    plain.plans[0].parallel = {};
    const std::map<Pass, double> expected = computed(plain);
    for (const Layout& layout : layouts()) {
        if (layout.m != 8 || layout.schedule == dualpipe) continue;
        const std::map<Pass, double> sums = computed(scenario_of(layout));
        for (const Pass pass : {Pass::forward, Pass::backward})
            EXPECT_NEAR(sums.at(pass) / expected.at(pass), 1.0, 1e-9) << layout.text();
    }
}

// Messages of a micro-batch: to every stage but the first, and back; bytes T d b.
TEST(PipelineProgram, SendsOneMessageABoundaryMicroBatchAndDirection) {
    for (const Layout& layout : {Layout{.p = 4, .m = 8}, Layout{interleaved, 4, 2, 8}}) {
        const Scenario s = scenario_of(layout);
        std::map<Pass, int> sent;
        for (const Task& task : build_program(s, s.plans[0], toy::profile()).tasks) {
            const auto* send = std::get_if<SendTask>(&task.work);
            if (send == nullptr || task.pass == Pass::update) continue;
            ++sent[task.pass];
            EXPECT_EQ(send->bytes, 4096 * 1024 * 2);
            EXPECT_EQ(task.phase, Phase::pipeline_p2p);
        }
        const int boundaries = layout.p * layout.v - 1;
        EXPECT_EQ(sent[Pass::forward], boundaries * layout.m) << layout.text();
        EXPECT_EQ(sent[Pass::backward], boundaries * layout.m) << layout.text();
    }
}

// Skewed routing is drawn for each layer and group: stages compute for different times, and the
// micro-batches of one draw the same.
TEST(PipelineProgram, DrawsRoutingForEachStage) {
    Scenario s = scenario_of({});
    s.routing = {.noise = true, .skew = Skew::zipf, .parameter = 1.0, .seed = 3};
    const Program program = build_program(s, s.plans[0], toy::profile(), {.num_draws = 1});
    std::map<int, std::map<int, Seconds>> experts;  // [layer][micro-batch] of rank 0 of the role
    for (const Task& task : program.tasks)
        if (task.phase == Phase::expert && task.pass == Pass::forward)
            experts[task.layer][task.micro_batch] = std::get<ComputeTask>(task.work).per_rank[0];
    ASSERT_EQ(experts.size(), 16U);
    for (const auto& [layer, by_batch] : experts) {
        EXPECT_EQ(by_batch.size(), 8U);
        EXPECT_EQ(by_batch.at(0), by_batch.at(7));
    }
    EXPECT_NE(experts.at(0).at(0), experts.at(15).at(0));
    const Program drawn = build_program(s, s.plans[0], toy::profile(), {.num_draws = 0});
    ASSERT_EQ(drawn.tasks.size(), program.tasks.size());
    const auto step = [&](const Program& p) {
        return sim::simulate(p, sim::Topology(s.cluster)).step;
    };
    EXPECT_NEAR(step(drawn) / step(program), 1.0, 0.05);
}

// Tied embeddings: the first and the last stage exchange the table's gradients before the update.
TEST(PipelineProgram, SharesTiedGradientsBetweenTheEnds) {
    Scenario s = scenario_of({});
    s.model.tied_embeddings = true;
    const Program program = build_program(s, s.plans[0], toy::profile());
    std::vector<int> roles;
    for (int role = 0; role < program.num_roles(); ++role) {
        for (int t = program.tasks_begin(role); t < program.tasks_end(role); ++t) {
            const Task& task = program.tasks[static_cast<std::size_t>(t)];
            const auto* send = std::get_if<SendTask>(&task.work);
            if (send == nullptr || task.phase != Phase::grad_all_reduce) continue;
            roles.push_back(role);
            EXPECT_EQ(send->to_role, 3 - role);
            EXPECT_EQ(send->bytes, 4LL * 4000 * 1024);  // fp32
        }
    }
    EXPECT_EQ(roles, (std::vector{0, 3}));
    EXPECT_LT(std::abs(difference(s)), 0.01);
}

// Layers of multi-token prediction beside the loss and apart from it: the embedding's gradients are
// exchanged between the first rank and theirs, and behind them messages are 1 + n times as long.
TEST(PipelineSimulation, LayersOfMultiTokenPredictionTakeThePredictedTime) {
    struct Copied {
        Layout layout;
        int copy = 0;      // rank; 0: that of the embedding
        int messages = 0;  // longer ones, of a micro-batch and direction
    };
    for (const Copied& c :
         {Copied{{one_f_one_b, 4, 1, 8, "Et*4|t*4|t*4|t*4mL"}, 3},
          Copied{{one_f_one_b, 4, 1, 8, "Et*5|t*5|t*6mm|L"}, 2, 1},
          Copied{{interleaved, 4, 2, 8, "Ett|tt|tt|tt|tt|tt|ttt|tmL"}, 3},
          Copied{{interleaved, 4, 2, 8, "Ettt|ttt|tt|tt|tt|ttttm||L"}, 1, 2},
          Copied{{combined_1f1b, 4, 2, 8, "Ett|tt|tt|tt|tt|tt|ttt|tmL"}, 3},
          Copied{{zb_h1, 4, 1, 8, "Et*4|t*4|t*4|t*4mL"}, 3},
          Copied{{zb_v, 4, 2, 8, "Ett|tt|tt|tt|tt|tt|ttt|tmL"}, 0},
          Copied{{zb_v, 4, 2, 8, "Ett|tt|tt|tt|tt|tt|ttttm|L"}, 1, 1},
          Copied{{.schedule = dualpipe, .p = 4, .m = 8, .stages = "Et*5|t*5|t*6m|L", .nic = 1000.0},
                 2,
                 1}}) {
        const Scenario s = scenario_of(c.layout);
        EXPECT_LT(std::abs(difference(s)), 0.01) << c.layout.text();
        const Program program = build_program(s, s.plans[0], toy::profile());
        const int n = s.model.mtp_num_layers, last = c.layout.p - 1;
        int longer = 0;
        std::vector<std::pair<int, int>> tables;  // from, to
        for (int role = 0; role <= last; ++role) {
            for (int t = program.tasks_begin(role); t < program.tasks_end(role); ++t) {
                const Task& task = program.tasks[static_cast<std::size_t>(t)];
                const auto* send = std::get_if<SendTask>(&task.work);
                if (send == nullptr) continue;
                longer += task.pass == Pass::forward && send->bytes == (1 + n) * 4096LL * 1024 * 2;
                if (task.phase == Phase::grad_all_reduce && send->bytes == 4LL * 4000 * 1024)
                    tables.emplace_back(role, send->to_role);
            }
        }
        EXPECT_EQ(longer, c.messages * c.layout.m) << c.layout.text();
        std::vector<std::pair<int, int>> expected;
        if (c.copy > 0) expected = {{0, c.copy}, {c.copy, 0}};
        if (c.layout.schedule == dualpipe) expected = {{0, 2}, {1, 3}, {2, 0}, {3, 1}};
        EXPECT_EQ(tables, expected) << c.layout.text();
    }
}

TEST(PipelineProgram, CannotLeaveLayersOut) {
    const Scenario s = scenario_of({});
    EXPECT_THROW((void)build_program(s, s.plans[0], toy::profile(), {.num_layers = 4}), InputError);
}

}  // namespace
}  // namespace headway
