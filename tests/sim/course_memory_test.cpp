// Collectives that come again take the course noted the first time: the same must come out as when
// each is simulated, to the bit.
#include "sim/course_memory.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "sim/simulate.hpp"

namespace headway::sim {
namespace {

constexpr int kRanksOfRole = 8;

Cluster nodes(int num_nodes) {
    Cluster c{.name = "nodes", .num_nodes = num_nodes, .gpus_per_node = 4};
    c.nvlink = NvLink{.domain = 4, .bandwidth = 100.0 * GB / second};
    c.fabric = Fabric{.nics_per_node = 4, .nic = 10.0 * GB / second, .rails = true};
    return c;
}

// What one pipeline rank does, again and again.
class Role {
  public:
    int add(Task task, bool in_line = true) {
        if (in_line && last_ >= 0) task.after.push_back(last_);
        tasks_.push_back(std::move(task));
        const int number = static_cast<int>(tasks_.size()) - 1;
        if (in_line) last_ = number;
        return number;
    }
    int last() const { return last_; }
    void append_to(Program& program) const {
        const int first = static_cast<int>(program.tasks.size());
        for (Task task : tasks_) {
            for (int& a : task.after) a += first;
            program.tasks.push_back(std::move(task));
        }
        program.role_ends.push_back(static_cast<int>(program.tasks.size()));
    }

  private:
    std::vector<Task> tasks_;
    int last_ = -1;
};

struct Draw {
    std::mt19937 random;

    int below(int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); }
    ExchangeTask exchange() {
        const auto algorithm = static_cast<ExchangeAlgorithm>(below(3));
        ExchangeTask task{.group_size = kRanksOfRole, .algorithm = algorithm};
        const int stages = algorithm == ExchangeAlgorithm::grouped ? 1 + below(2) : 1;
        task.in_chunks = stages > 1 && below(2) == 0;
        const bool apart = below(2) == 0;  // no rail sends to another: each is a cell
        for (int s = 0; s < stages; ++s) {
            TrafficMatrix m(kRanksOfRole);
            for (std::size_t pair = 0; pair < m.bytes.size(); ++pair) {
                const int from = static_cast<int>(pair) / kRanksOfRole,
                          to = static_cast<int>(pair) % kRanksOfRole;
                const bool across = from / 4 != to / 4 && from % 4 != to % 4;
                const bool sends = below(4) > 0 && !(apart && across);
                m.bytes[pair] = sends ? below(400'000) : 0;
            }
            task.stages.push_back(
                {.matrices = {std::make_shared<const TrafficMatrix>(m)}, .latency = below(9) * us});
        }
        return task;
    }
    ComputeTask compute() {
        ComputeTask task;
        for (int r = 0; r < kRanksOfRole; ++r) task.per_rank.push_back((40 + below(60)) * us);
        return task;
    }
};

// Roles in a row, each with layers of its own that all micro-batches go through; gradients are
// reduced beside some, and messages go to the next role.
Program pipeline(unsigned seed, int num_roles, int micro_batches) {
    Draw draw{.random = std::mt19937(seed)};
    Program program{.num_ranks = num_roles * kRanksOfRole, .overlap = 1.25, .tasks = {}};
    for (int role = 0; role < num_roles; ++role) {
        Role tasks;
        const int layers = 1 + draw.below(3);
        std::vector<TaskWork> works;
        for (int l = 0; l < 2 * layers; ++l) {
            works.emplace_back(draw.compute());
            works.emplace_back(draw.exchange());
        }
        const std::int64_t bytes = draw.below(3) * 700'000;
        const bool reduces = draw.below(2) == 0;
        for (int m = 0; m < micro_batches; ++m) {
            for (std::size_t w = 0; w < works.size(); ++w) {
                const bool computes = std::holds_alternative<ComputeTask>(works[w]);
                Task task{.phase = computes ? Phase::expert : Phase::dispatch,
                          .layer = static_cast<int>(w / 2),
                          .micro_batch = m,
                          .stream = computes ? Stream::compute : Stream::communication,
                          .work = works[w]};
                if (w == 0 && role > 0) task.receives = {m};
                tasks.add(std::move(task));
            }
            if (role + 1 < num_roles)
                tasks.add({.phase = Phase::pipeline_p2p,
                           .micro_batch = m,
                           .stream = Stream::send_forward,
                           .after = {tasks.last()},
                           .work = SendTask{.to_role = role + 1, .message = m, .bytes = bytes}},
                          false);
            if (reduces && m % 2 == 1)
                tasks.add({.phase = Phase::grad_all_reduce,
                           .micro_batch = m,
                           .stream = Stream::gradient,
                           .after = {tasks.last()},
                           .work = ReduceTask{.group_size = kRanksOfRole, .bytes = 900'000}},
                          false);
        }
        tasks.append_to(program);
    }
    return program;
}

void expect_same_use(const SimulationResult& a, const SimulationResult& b) {
    EXPECT_EQ(b.repeated_collectives, 0);
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.rank_finish, b.rank_finish);
    EXPECT_EQ(a.messages, b.messages);
    EXPECT_EQ(a.instants, b.instants);
    EXPECT_EQ(a.events, b.events);
    EXPECT_NEAR(a.error_bound.in(us), b.error_bound.in(us), 1e-6);
    ASSERT_EQ(a.links.size(), b.links.size());
    for (std::size_t l = 0; l < a.links.size(); ++l) {
        EXPECT_EQ(a.links[l].busy, b.links[l].busy) << a.links[l].name;
        EXPECT_NEAR(a.links[l].bytes.in(byte), b.links[l].bytes.in(byte), 1.0);
    }
    ASSERT_EQ(a.phases.size(), b.phases.size());
    for (std::size_t p = 0; p < a.phases.size(); ++p) {
        EXPECT_EQ(a.phases[p].time, b.phases[p].time);
        EXPECT_EQ(a.phases[p].bytes, b.phases[p].bytes);
    }
}

TEST(CourseMemory, GivesTheSameToTheBit) {
    std::int64_t repeated = 0;
    for (unsigned seed = 0; seed < 40; ++seed) {
        const int num_roles = 1 + static_cast<int>(seed) % 3;
        const Program program = pipeline(seed, num_roles, 8);
        const Topology topology(nodes(2 * num_roles));
        for (const double epsilon : {0.0, 0.01}) {
            SCOPED_TRACE(testing::Message() << "seed " << seed << ", epsilon " << epsilon);
            const SimulationResult once = simulate(program, topology, {.epsilon = epsilon});
            expect_same_use(once,
                            simulate(program, topology, {.epsilon = epsilon, .repeat = false}));
            repeated += once.repeated_collectives;
        }
    }
    EXPECT_GT(repeated, 1'000);
}

// Two ranks that send each other S bytes over NICs of bandwidth B: each exchange takes S / B from
// the arrival of the later one, four times. The first is simulated, three follow it.
TEST(CourseMemory, AnExchangeThatComesAgainIsNotSimulated) {
    Program program{.num_ranks = 2, .tasks = {}};
    for (int m = 0; m < 4; ++m) {
        program.tasks.push_back({.phase = Phase::expert,
                                 .micro_batch = m,
                                 .stream = Stream::compute,
                                 .work = ComputeTask{.per_rank = {100.0 * us, 130.0 * us}}});
        if (m > 0) program.tasks.back().after = {2 * m - 1};
        program.tasks.push_back(
            {.phase = Phase::dispatch,
             .micro_batch = m,
             .stream = Stream::communication,
             .after = {2 * m},
             .work = ExchangeTask{.group_size = 2, .stages = {{.uniform_bytes = 1'000'000}}}});
    }
    Cluster c{.name = "two", .num_nodes = 2, .gpus_per_node = 1};
    c.fabric = Fabric{.nics_per_node = 1, .nic = 10.0 * GB / second};
    // A compute task of each micro-batch is another, lest the whole section repeats.
    for (int m = 0; m < 4; ++m)
        std::get<ComputeTask>(program.tasks[static_cast<std::size_t>(2 * m)].work).flops = m * flop;
    const SimulationResult r = simulate(program, Topology(c), {});
    EXPECT_NEAR(r.step.in(us), 4 * (130.0 + 100.0), 1e-5);
    EXPECT_EQ(r.repeated_collectives, 3);
    EXPECT_EQ(r.messages, 4 * 2);
    for (const LinkUse& link : r.links) {
        EXPECT_NEAR(link.bytes.in(byte), 4e6, 1.0);
        EXPECT_NEAR(link.busy.in(us), 4 * 100.0, 1e-5);
    }
}

// Stage 1: 0 with 1, 2 with 3; stage 2: 1 with 2. Rank 1 waits for 0, 2 and, through 2, for 3; rank
// 0 for 1 alone.
TEST(CourseMemory, WhomADepartureWaitsFor) {
    const auto message = [](int from, int to) {
        Message m;
        m.from = from;
        m.to = to;
        return m;
    };
    Operation operation{.members = {0, 1, 2, 3}, .stages = {}};
    operation.stages.push_back({.messages = {message(0, 1), message(3, 2)}});
    operation.stages.push_back({.messages = {message(1, 2)}});
    EXPECT_EQ(waits_of(operation), (std::vector<std::uint64_t>{0b0011, 0b1111, 0b1111, 0b1100}));
    operation.stages[1].collective = true;
    EXPECT_EQ(waits_of(operation), std::vector<std::uint64_t>(4, 0b1111));
}

}  // namespace
}  // namespace headway::sim
