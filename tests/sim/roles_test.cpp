// Programs of several roles: pipeline ranks with lists of their own and messages between them.
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <stdexcept>

#include "models/schedule/pipeline_order.hpp"
#include "models/schedule/pipeline_times.hpp"
#include "sim/simulate.hpp"

namespace headway::sim {
namespace {

constexpr Bandwidth kNic = 10.0 * GB / second;

// One GPU a node, so that every message has NICs of its own ranks only.
Cluster hosts(int num_nodes) {
    Cluster c{.name = "hosts", .num_nodes = num_nodes, .gpus_per_node = 1};
    c.fabric = Fabric{.nics_per_node = 1, .nic = kNic};
    return c;
}

// Tasks of the roles, one role after the other.
class Roles {
  public:
    Roles(int num_ranks, int num_roles) : lists_(static_cast<std::size_t>(num_roles)) {
        program_.num_ranks = num_ranks;
    }

    int compute(int role, std::vector<Seconds> times, std::vector<int> receives = {}) {
        return add(role, {.phase = Phase::expert,
                          .receives = std::move(receives),
                          .work = ComputeTask{.per_rank = std::move(times)}});
    }
    int send(int role, int to_role, int message, std::int64_t bytes, int after,
             Seconds latency = {}, Pass pass = Pass::forward) {
        return add(
            role,
            {.phase = Phase::pipeline_p2p,
             .pass = pass,
             .stream = pass == Pass::forward ? Stream::send_forward : Stream::send_backward,
             .after = {after},
             .work = SendTask{
                 .to_role = to_role, .message = message, .bytes = bytes, .latency = latency}});
    }
    int exchange(int role, int group_size, ExchangeStage stage) {
        return add(role,
                   {.phase = Phase::dispatch,
                    .stream = Stream::communication,
                    .work = ExchangeTask{.group_size = group_size, .stages = {std::move(stage)}}});
    }

    // `after` of a task counts in its role until here.
    Program take() {
        for (const std::vector<Task>& list : lists_) {
            const int first = static_cast<int>(program_.tasks.size());
            for (Task task : list) {
                for (int& a : task.after) a += first;
                program_.tasks.push_back(std::move(task));
            }
            program_.role_ends.push_back(static_cast<int>(program_.tasks.size()));
        }
        return std::move(program_);
    }

  private:
    int add(int role, Task task) {
        std::vector<Task>& list = lists_[static_cast<std::size_t>(role)];
        list.push_back(std::move(task));
        return static_cast<int>(list.size()) - 1;
    }

    Program program_;
    std::vector<std::vector<Task>> lists_;
};

struct Messages {
    std::int64_t bytes = 0;
    Seconds latency;

    Seconds hop() const { return latency + static_cast<double>(bytes) * byte / kNic; }
};

using Duration = std::function<Seconds(int, const PipelineStep&)>;

// An order as a program: one compute task a step, a message wherever an item's maker is on another
// rank. The number of a message: (part, direction, stage, micro-batch) of the item that it is for.
Program program_of(const PipelineOrder& order, const Duration& duration, const Messages& messages) {
    Roles roles(order.ranks, order.ranks);
    const auto elsewhere = [&](const PipelineItem& item, int stage) {
        return stage >= 0 && stage < order.stages &&
               order.rank_of(item.direction, stage) != order.rank_of(item.direction, item.stage);
    };
    // Messages to a role are numbered as they are first needed.
    std::vector<std::vector<int>> numbers(
        static_cast<std::size_t>(order.ranks),
        std::vector<int>(static_cast<std::size_t>(4 * order.stages * order.micro_batches), -1));
    std::vector<int> used(numbers.size(), 0);
    const auto number = [&](int role, bool forward, int direction, int stage, int micro_batch) {
        int& n = numbers[static_cast<std::size_t>(role)][static_cast<std::size_t>(
            ((direction * 2 + (forward ? 0 : 1)) * order.stages + stage) * order.micro_batches +
            micro_batch)];
        if (n < 0) n = used[static_cast<std::size_t>(role)]++;
        return n;
    };
    for (int rank = 0; rank < order.ranks; ++rank) {
        for (const PipelineStep& step : order.steps[static_cast<std::size_t>(rank)]) {
            std::vector<PipelineItem> items{step.item};
            if (step.beside) items.push_back(*step.beside);
            std::vector<int> receives;
            for (const PipelineItem& i : items) {
                const bool forward = i.part == PipelinePart::forward;
                if (i.part != PipelinePart::backward_weight &&
                    elsewhere(i, i.stage + (forward ? -1 : 1)))
                    receives.push_back(number(rank, forward, i.direction, i.stage, i.micro_batch));
            }
            const int task = roles.compute(rank, {duration(rank, step)}, receives);
            for (const PipelineItem& i : items) {
                const bool forward = i.part == PipelinePart::forward;
                const int to = i.stage + (forward ? 1 : -1);
                if (i.part == PipelinePart::backward_weight || !elsewhere(i, to)) continue;
                const int role = order.rank_of(i.direction, to);
                roles.send(rank, role, number(role, forward, i.direction, to, i.micro_batch),
                           messages.bytes, task, messages.latency,
                           forward ? Pass::forward : Pass::backward);
            }
        }
    }
    return roles.take();
}

Seconds time_of(const PipelineItem& item, double f, double input, double weight) {
    switch (item.part) {
        case PipelinePart::forward:
            return f * ms;
        case PipelinePart::backward:
            return (input + weight) * ms;
        case PipelinePart::backward_input:
            return input * ms;
        case PipelinePart::backward_weight:
            return weight * ms;
    }
    return {};
}

// The same on all stages; a pair takes both, or `pair`.
Duration equal_stages(double f, double input, double weight, double pair = 0.0) {
    return [=](int, const PipelineStep& step) {
        if (step.beside && pair > 0.0) return pair * ms;
        const Seconds first = time_of(step.item, f, input, weight);
        return step.beside ? first + time_of(*step.beside, f, input, weight) : first;
    };
}

Seconds simulated(const PipelineOrder& order, const Duration& duration,
                  const Messages& messages = {}) {
    return simulate(program_of(order, duration, messages), Topology(hosts(order.ranks))).step;
}

Seconds executed(const PipelineOrder& order, const Duration& duration, Seconds hop = {}) {
    return run_pipeline(order, duration, [&](int, int, int) { return hop; }).makespan;
}

// p = 4, m = 8, (F, B_in, W) = (1, 1.3, 0.7): (m + p - 1)(F + B) = 33.
TEST(Roles, OneFOneB) {
    const PipelineOrder order =
        pipeline_order(PipelineSchedule::one_f_one_b, {.ranks = 4, .micro_batches = 8});
    EXPECT_NEAR(simulated(order, equal_stages(1.0, 1.3, 0.7)).in(ms), 33.0, 1e-6);
}

struct Case {
    PipelineSchedule schedule;
    PipelineShape shape;
    Duration duration;
    double makespan;
};

// The published and executed values of each order, with free links.
TEST(Roles, OrdersTakeTheirKnownTimes) {
    const auto equal = equal_stages(1.0, 1.3, 0.7);
    for (const Case& c : std::vector<Case>{
             {PipelineSchedule::gpipe, {4, 1, 8}, equal, 33.0},
             {PipelineSchedule::interleaved, {4, 2, 8}, equal, 57.0},
             {PipelineSchedule::combined_1f1b, {4, 2, 8}, equal_stages(1.0, 1.3, 0.7, 2.4), 50.4},
             {PipelineSchedule::zb_h1, {4, 1, 8}, equal, 28.8},
             {PipelineSchedule::dualpipe, {8, 1, 20}, equal_stages(1.0, 1.0, 1.0, 3.0), 66.0},
             {PipelineSchedule::dualpipe, {8, 1, 20}, equal_stages(1.0, 1.0, 1.0, 2.4), 57.6}}) {
        const PipelineOrder order = pipeline_order(c.schedule, c.shape);
        EXPECT_NEAR(simulated(order, c.duration).in(ms), c.makespan, 1e-6) << name(c.schedule);
    }
}

// Any order, with uneven stages and messages that only take latency: what run_pipeline says.
TEST(Roles, RandomOrdersTakeTheTimeOfTheirExecution) {
    std::mt19937 random(7);
    const auto pick = [&](int low, int high) {
        return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
    };
    int seen = 0;
    for (int i = 0; i < 200; ++i) {
        const auto schedule = static_cast<PipelineSchedule>(i % 9);
        const PipelineShape shape{
            .ranks = pick(1, 6), .chunks = pick(1, 3), .micro_batches = pick(1, 24)};
        if (!pipeline_rule_broken(schedule, shape).empty()) continue;
        const PipelineOrder order = pipeline_order(schedule, shape);
        std::vector<double> slow;
        for (int s = 0; s < order.stages; ++s) slow.push_back(1.0 + 0.1 * pick(0, 9));
        const double f = 0.1 * pick(5, 15), input = 0.1 * pick(5, 15), weight = 0.1 * pick(3, 9);
        const Duration duration = [&](int, const PipelineStep& step) {
            const auto of = [&](const PipelineItem& item) {
                return slow[static_cast<std::size_t>(item.stage)] * time_of(item, f, input, weight);
            };
            return step.beside ? of(step.item) + of(*step.beside) : of(step.item);
        };
        const Messages messages{.latency = 0.01 * pick(0, 20) * ms};
        EXPECT_NEAR(simulated(order, duration, messages).in(ms),
                    executed(order, duration, messages.latency).in(ms), 1e-6)
            << name(schedule) << " p " << shape.ranks << " v " << shape.chunks << " m "
            << shape.micro_batches;
        ++seen;
    }
    EXPECT_GT(seen, 50);
}

// Hop time h = latency + bytes / NIC: 1F1B grows by 2 h ((p - 1) m / p + p - 2), as the hop is on
// the loop of a forward and its backward.
TEST(Roles, MessagesLengthenOneFOneB) {
    const Messages messages{.bytes = 400'000, .latency = 10.0 * us};
    const double h = messages.hop().in(ms);  // 0.05
    for (const auto& [p, m] : {std::pair{4, 16}, {4, 32}, {8, 64}}) {
        const PipelineOrder order =
            pipeline_order(PipelineSchedule::one_f_one_b, {.ranks = p, .micro_batches = m});
        const double grown = 2.0 * h * ((p - 1) * m / p + p - 2);
        EXPECT_NEAR(simulated(order, equal_stages(1.0, 1.3, 0.7), messages).in(ms),
                    3.0 * (m + p - 1) + grown, 1e-6)
            << p << " " << m;
    }
}

// Interleaved: 2 (p v - 1) h once, while h <= f.
TEST(Roles, MessagesLengthenInterleavedOnce) {
    const int p = 4, v = 2, m = 8;
    const Messages messages{.bytes = 400'000, .latency = 10.0 * us};
    const PipelineOrder order = pipeline_order(PipelineSchedule::interleaved, {p, v, m});
    EXPECT_NEAR(simulated(order, equal_stages(1.0, 1.3, 0.7), messages).in(ms),
                57.0 + 2.0 * (p * v - 1) * messages.hop().in(ms), 1e-6);
}

// Two roles of two ranks: rank 0 sends S to rank 2 and, in the all-to-all of its role, S to rank 1
// from the same moment on: its NIC gives each half, so both need 2 S / NIC. Rank 1's own message to
// rank 3 waits for the same.
TEST(Roles, AMessageSharesTheNicWithAnExchange) {
    const std::int64_t S = 1'000'000;
    Roles roles(4, 2);
    const int start = roles.compute(0, {Seconds{}});
    roles.exchange(0, 2, {.uniform_bytes = S});
    roles.send(0, 1, 0, S, start);
    roles.compute(1, {1.0 * us}, {0});
    const SimulationResult r = simulate(roles.take(), Topology(hosts(4)));
    const Seconds shared = 2.0 * S * byte / kNic;
    EXPECT_NEAR(r.rank_finish[0].in(us), shared.in(us), 1e-5);
    EXPECT_NEAR(r.rank_finish[2].in(us), (shared + 1.0 * us).in(us), 1e-5);
    EXPECT_NEAR(r.rank_finish[3].in(us), (shared + 1.0 * us).in(us), 1e-5);
}

// Messages of one kind leave a rank one after the other; the sender's own work goes on.
TEST(Roles, MessagesOfAKindFollowEachOther) {
    const std::int64_t S = 1'000'000;
    Roles roles(2, 2);
    const int made = roles.compute(0, {1.0 * us});
    roles.send(0, 1, 0, S, made);
    roles.send(0, 1, 1, S, made);
    roles.compute(0, {5.0 * us});
    roles.compute(1, {2.0 * us}, {0});
    roles.compute(1, {2.0 * us}, {1});
    const SimulationResult r = simulate(roles.take(), Topology(hosts(2)));
    const double once = (S * byte / kNic).in(us);
    std::vector<double> ends;
    for (const Span& span : r.timeline.spans)
        if (span.rank == 1) ends.push_back((span.begin + span.duration).in(us));
    EXPECT_EQ(ends.size(), 2U);
    EXPECT_NEAR(ends.front(), 1.0 + once + 2.0, 1e-5);
    EXPECT_NEAR(ends.back(), 1.0 + 2.0 * once + 2.0, 1e-5);
    for (const Span& span : r.timeline.spans) {
        if (span.rank == 0 && span.begin > 0.5 * us && span.phase == Phase::expert) {
            EXPECT_NEAR(span.begin.in(us), 1.0, 1e-5) << "compute does not wait for the message";
        }
        if (span.phase == Phase::pipeline_p2p) {
            EXPECT_EQ(span.bytes.in(byte), 1e6);
            EXPECT_EQ(span.bottleneck, "nic");
        }
    }
}

// A rank's place in its role chooses its times, its matrix and the rank that it sends to.
TEST(Roles, PlacesInARole) {
    Roles roles(8, 2);
    std::vector<std::shared_ptr<const TrafficMatrix>> matrices;
    for (const std::int64_t bytes : {1'000'000, 2'000'000}) {
        TrafficMatrix m(2);
        m.at(0, 1) = bytes;
        matrices.push_back(std::make_shared<const TrafficMatrix>(m));
    }
    const int made = roles.compute(0, {1.0 * us, 2.0 * us, 3.0 * us, 4.0 * us});
    roles.send(0, 1, 0, 1000, made);
    roles.compute(1, {10.0 * us, 20.0 * us, 30.0 * us, 40.0 * us}, {0});
    ExchangeStage stage{};
    stage.matrices = matrices;
    roles.exchange(1, 2, stage);
    const SimulationResult r = simulate(roles.take(), Topology(hosts(8)));
    int seen = 0;
    for (const Span& span : r.timeline.spans) {
        const int place = span.rank - 4;
        if (place < 0) continue;
        // The message shares a NIC with the exchange: at most twice its time alone, 0.1 us.
        if (span.phase == Phase::expert) {
            EXPECT_NEAR((span.begin + span.duration).in(us), 11.0 * (place + 1) + 0.1, 0.11)
                << place;
        } else {
            EXPECT_NEAR(span.duration.in(us), place < 2 ? 100.0 : 200.0, 0.11) << place;
        }
        ++seen;
    }
    EXPECT_EQ(seen, 8);
}

// The same program as one role with its end written out.
TEST(Roles, OneRoleIsAProgramWithoutRoles) {
    Program plain{.num_ranks = 2, .overlap = 1.2};
    plain.tasks.push_back(
        {.phase = Phase::expert, .work = ComputeTask{.per_rank = {1.0 * us, 2.0 * us}}});
    plain.tasks.push_back(
        {.phase = Phase::dispatch,
         .stream = Stream::communication,
         .after = {0},
         .work = ExchangeTask{.group_size = 2, .stages = {{.uniform_bytes = 5000}}}});
    Program written = plain;
    written.role_ends = {2};
    const Topology topology(hosts(2));
    const SimulationResult a = simulate(plain, topology), b = simulate(written, topology);
    EXPECT_EQ(a.rank_finish, b.rank_finish);
    EXPECT_EQ(a.events, b.events);
    EXPECT_EQ(a.sections, b.sections);
}

std::string failure(Roles& roles, int ranks) {
    try {
        (void)simulate(roles.take(), Topology(hosts(ranks)));
    } catch (const std::logic_error& e) {
        return e.what();
    }
    return "";
}

// Each of two roles waits for the other's message first.
TEST(Roles, ADeadlockSaysWhoWaitsForWhat) {
    Roles roles(2, 2);
    for (int role = 0; role < 2; ++role) {
        const int made = roles.compute(role, {1.0 * us}, {0});
        roles.send(role, 1 - role, 0, 1000, made);
    }
    EXPECT_EQ(failure(roles, 2),
              "simulate: rank 0 never ends task 0 (expert forward, layer -1, micro-batch 0); "
              "message 0 has not come");
}

TEST(Roles, MessagesAreSentOnceAndReceived) {
    Roles nobody(2, 2);
    nobody.compute(1, {1.0 * us}, {0});
    EXPECT_EQ(failure(nobody, 2),
              "simulate: message 0 to role 1 is sent 0 times and waited for 1 times");
    Roles twice(2, 2);
    const int made = twice.compute(0, {1.0 * us});
    twice.send(0, 1, 0, 1, made);
    twice.send(0, 1, 0, 1, made);
    twice.compute(1, {1.0 * us}, {0});
    EXPECT_EQ(failure(twice, 2),
              "simulate: message 0 to role 1 is sent 2 times and waited for 1 times");
    Roles unread(2, 2);
    unread.send(0, 1, 0, 1, unread.compute(0, {1.0 * us}));
    EXPECT_EQ(failure(unread, 2),
              "simulate: message 0 to role 1 is sent 1 times and waited for 0 times");
    Roles itself(2, 2);
    itself.send(0, 0, 0, 1, itself.compute(0, {1.0 * us}));
    EXPECT_EQ(failure(itself, 2), "simulate: task 1 of role 0 sends to role 0");
}

// Contended, batched or exact: the same bits every time, whether sections may repeat or not.
TEST(Roles, TwoRunsAreTheSameToTheBit) {
    const PipelineOrder order = pipeline_order(PipelineSchedule::dualpipe, {4, 1, 8});
    const Program program = program_of(order, equal_stages(1.0, 1.0, 1.0), {.bytes = 9'000'000});
    const Topology topology(hosts(4));
    for (const double epsilon : {0.0, 0.01}) {
        const SimulationResult a = simulate(program, topology, {.epsilon = epsilon}),
                               b = simulate(program, topology, {.epsilon = epsilon}),
                               c = simulate(program, topology,
                                            {.epsilon = epsilon, .repeat = false});
        EXPECT_EQ(a.rank_finish, b.rank_finish);
        EXPECT_EQ(a.rank_finish, c.rank_finish);
        EXPECT_EQ(a.events, b.events);
        EXPECT_EQ(a.repeated_sections, 0);
    }
}

// Batched, each set of links carries its part of a message: here both ends' NICs are in exchanges
// of their roles, of S bytes a pair, so that both parts take 2 S / NIC, as the whole does; where
// only the receiver's is, its part does.
TEST(Roles, BatchedMessagesAreCarriedInParts) {
    const std::int64_t S = 1'000'000;
    for (const bool sender_too : {true, false}) {
        const auto program = [&] {
            Roles roles(4, 2);
            const int start = roles.compute(0, {Seconds{}});
            if (sender_too) roles.exchange(0, 2, {.uniform_bytes = S});
            roles.exchange(1, 2, {.uniform_bytes = S});
            roles.send(0, 1, 0, S, start);
            roles.compute(1, {1.0 * us}, {0});
            return roles.take();
        };
        const Topology topology(hosts(4));
        const SimulationResult exact = simulate(program(), topology),
                               batched = simulate(program(), topology, {.epsilon = 0.001});
        const double shared = (2.0 * S * byte / kNic).in(us);
        EXPECT_NEAR(exact.step.in(us), shared + 1.0, 1e-3);
        EXPECT_NEAR(batched.step.in(us), shared + 1.0, 0.01 * shared);
        EXPECT_LE(std::abs((batched.step - exact.step).in(us)), batched.error_bound.in(us));
        EXPECT_EQ(batched.messages, exact.messages + 2) << "two messages in two parts";
        ASSERT_EQ(batched.links.size(), exact.links.size());
        for (std::size_t l = 0; l < exact.links.size(); ++l)
            EXPECT_EQ(batched.links[l].bytes, exact.links[l].bytes);
    }
}

// An order whose messages fill the links between all its ranks: batched and exact agree.
TEST(Roles, BatchedOrdersStayNearExactOnes) {
    for (const PipelineSchedule schedule :
         {PipelineSchedule::one_f_one_b, PipelineSchedule::dualpipe}) {
        const PipelineOrder order = pipeline_order(schedule, {4, 1, 8});
        const Program program =
            program_of(order, equal_stages(1.0, 1.0, 1.0), {.bytes = 6'000'000});
        const Topology topology(hosts(4));
        const SimulationResult exact = simulate(program, topology),
                               batched = simulate(program, topology, {.epsilon = 0.01});
        EXPECT_NEAR(batched.step / exact.step, 1.0, 0.01) << name(schedule);
    }
}

}  // namespace
}  // namespace headway::sim
