// Sections of a step that repeat: taking over what happened the first time must give the same as
// simulating them again, to the bit.
#include "sim/repetition.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "sim/simulate.hpp"
#include "tests/sim/table_cases.hpp"

namespace headway::sim {
namespace {

constexpr int kRanks = 16;

Cluster cluster() {
    Cluster c{.name = "test", .num_nodes = 4, .gpus_per_node = 4};
    c.nvlink = NvLink{.domain = 4, .bandwidth = 450.0 * GB / second};
    c.fabric = Fabric{.nics_per_node = 4, .nic = 10.0 * GB / second, .rails = true};
    return c;
}

class Builder {
  public:
    Task& add(Phase phase, int layer, Stream stream) {
        program.tasks.push_back({.phase = phase,
                                 .layer = layer,
                                 .micro_batch = micro_batch,
                                 .stream = stream,
                                 .after = {},
                                 .work = ComputeTask{}});
        const int task = static_cast<int>(program.tasks.size()) - 1;
        if (last_ >= 0) program.tasks.back().after = {last_};
        if (stream != Stream::gradient) last_ = task;
        return program.tasks.back();
    }

    // counts (a rendezvous), dispatch, experts that differ by rank, combine
    void layer(int index, const std::shared_ptr<const TrafficMatrix>& bytes) {
        add(Phase::count_exchange, index, Stream::communication).work =
            ExchangeTask{.group_size = kRanks, .stages = {{.latency = 7.0 * us}}};
        ExchangeStage stage{.matrices = {bytes}, .latency = 5.0 * us};
        add(Phase::dispatch, index, Stream::communication).work =
            ExchangeTask{.group_size = kRanks, .stages = {stage}};
        std::vector<Seconds> times;
        for (int r = 0; r < kRanks; ++r) times.push_back((100.0 + (7 * r + index) % 11 * 3.1) * us);
        add(Phase::expert, index, Stream::compute).work = ComputeTask{.per_rank = times};
        stage.transposed = true;
        add(Phase::combine, index, Stream::communication).work =
            ExchangeTask{.group_size = kRanks, .stages = {stage}};
    }

    void reduce() {
        add(Phase::grad_all_reduce, -1, Stream::gradient).work =
            ReduceTask{.group_size = kRanks, .bytes = 4'000'000, .latency = 10.0 * us};
    }

    Program program{.num_ranks = kRanks, .overlap = 1.25, .tasks = {}};
    int micro_batch = 0;

  private:
    int last_ = -1;
};

// `batches` micro-batches of three layers; gradients are reduced beside the last one.
Program step(int batches, bool same_draw) {
    Builder b;
    for (b.micro_batch = 0; b.micro_batch < batches; ++b.micro_batch) {
        for (int l = 0; l < 3; ++l) {
            TrafficMatrix m = cases::zipf(kRanks);
            for (std::int64_t& bytes : m.bytes)
                bytes = bytes / (l + 1) + (same_draw ? 0 : 1000 * b.micro_batch);
            b.layer(l, std::make_shared<const TrafficMatrix>(std::move(m)));
            if (b.micro_batch + 1 == batches) b.reduce();
        }
    }
    return b.program;
}

// HP-like: equal splits over all ranks, no rendezvous; ranks compute for different times between.
Program uniform_step(int batches) {
    Builder b;
    for (b.micro_batch = 0; b.micro_batch < batches; ++b.micro_batch) {
        for (int l = 0; l < 3; ++l) {
            const ExchangeStage stage{.uniform_bytes = 100'000, .latency = 5.0 * us};
            b.add(Phase::head_project, l, Stream::compute).work =
                ComputeTask{.per_rank = {(300.0 + 40.0 * l) * us}};
            b.add(Phase::head_scatter, l, Stream::communication).work =
                ExchangeTask{.group_size = kRanks, .stages = {stage}};
            std::vector<Seconds> times;
            for (int r = 0; r < kRanks; ++r) times.push_back((400.0 + (7 * r + l) % 11 * 3.1) * us);
            b.add(Phase::expert, l, Stream::compute).work = ComputeTask{.per_rank = times};
            b.add(Phase::head_gather, l, Stream::communication).work =
                ExchangeTask{.group_size = kRanks, .stages = {stage}};
            if (b.micro_batch + 1 == batches) b.reduce();
        }
    }
    return b.program;
}

SimulationResult run(const Program& program, double epsilon, bool repeat) {
    return simulate(program, Topology(cluster()), {.epsilon = epsilon, .repeat = repeat});
}

void expect_same(const SimulationResult& once, const SimulationResult& all) {
    EXPECT_EQ(all.repeated_sections, 0);
    EXPECT_EQ(once.step, all.step);
    EXPECT_EQ(once.rank_finish, all.rank_finish);
    EXPECT_EQ(once.messages, all.messages);
    EXPECT_EQ(once.instants, all.instants);
    EXPECT_EQ(once.events, all.events);
    ASSERT_EQ(once.timeline.spans.size(), all.timeline.spans.size());
    const auto key = [](const Span& s) {
        return std::tuple(s.begin.in(ps), s.rank, s.micro_batch, s.layer, static_cast<int>(s.phase),
                          s.duration.in(ps), s.bytes.in(byte), s.bottleneck);
    };
    std::vector<decltype(key(Span{}))> a, b;
    for (const Span& s : once.timeline.spans) a.push_back(key(s));
    for (const Span& s : all.timeline.spans) b.push_back(key(s));
    std::ranges::sort(a);
    std::ranges::sort(b);
    EXPECT_EQ(a, b);
    ASSERT_EQ(once.links.size(), all.links.size());
    for (std::size_t l = 0; l < once.links.size(); ++l) {
        EXPECT_EQ(once.links[l].busy, all.links[l].busy);
        EXPECT_NEAR(once.links[l].bytes.in(byte), all.links[l].bytes.in(byte), 1.0);
    }
    EXPECT_NEAR(once.error_bound.in(us), all.error_bound.in(us), 1e-6);
}

TEST(Repetition, GivesTheSameToTheBit) {
    for (const double epsilon : {0.0, 1e-2}) {
        const Program program = step(6, true);
        const SimulationResult once = run(program, epsilon, true);
        EXPECT_GT(once.repeated_sections, 3 * 3) << "micro-batches 2 to 5 repeat the first";
        expect_same(once, run(program, epsilon, false));
    }
}

// Without a rendezvous: between exchanges all ranks compute at once, and from the second
// micro-batch on they do so from the same state.
TEST(Repetition, StillMomentsNeedNoRendezvous) {
    for (const double epsilon : {0.0, 1e-2}) {
        const Program program = uniform_step(6);
        const SimulationResult once = run(program, epsilon, true);
        EXPECT_GE(once.repeated_sections, 3 * 3);
        expect_same(once, run(program, epsilon, false));
    }
}

// Micro-batches alike but for a reduction, far behind in the program, that may start as soon as the
// second one's experts are done: the section that it falls into is no repetition.
TEST(Repetition, WhatStartsEarlyTheSecondTimeIsSeen) {
    Program program = uniform_step(3);
    int expert = -1;
    for (std::size_t t = 0; t < program.tasks.size(); ++t) {
        if (program.tasks[t].phase == Phase::expert && program.tasks[t].micro_batch == 1 &&
            program.tasks[t].layer == 1)
            expert = static_cast<int>(t);
    }
    ASSERT_GE(expert, 0);
    for (Task& task : program.tasks) {
        if (task.stream == Stream::gradient) task.after = {expert};
    }
    for (const double epsilon : {0.0, 1e-2})
        expect_same(run(program, epsilon, true), run(program, epsilon, false));
}

TEST(Repetition, OtherDrawsAreSimulated) {
    const Program program = step(3, false);
    const SimulationResult r = run(program, 0.0, true);
    EXPECT_EQ(r.repeated_sections, 0);
    EXPECT_EQ(r.step, run(program, 0.0, false).step);
}

TEST(Repetition, TasksAreComparedByWhatTheyDo) {
    const Program program = step(2, true);  // micro-batches of 12 tasks, the second with reductions
    EXPECT_TRUE(same_tasks(program, 0, 12, 4));
    EXPECT_FALSE(same_tasks(program, 0, 12, 5)) << "a reduction comes in between";
    EXPECT_FALSE(same_tasks(program, 0, 4, 4)) << "another layer";
    EXPECT_FALSE(same_tasks(program, 0, 12, 1000)) << "beyond the end";
}

}  // namespace
}  // namespace headway::sim
