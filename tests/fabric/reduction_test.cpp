// Reductions over a fabric: price and simulation are of the same rings.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "models/cost/price.hpp"
#include "models/cost/program_tasks.hpp"
#include "sim/simulate.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

struct Shape {
    int nodes, gpus, nics, nodes_per_leaf, group, stride;
    bool rails;
    bool pairwise = false;
    std::string text() const {
        return std::to_string(nodes) + " nodes of " + std::to_string(gpus) + " GPUs and " +
               std::to_string(nics) + " NICs, " + std::to_string(nodes_per_leaf) +
               " a leaf, group " + std::to_string(group) + " stride " + std::to_string(stride) +
               (pairwise ? ", pairwise" : "");
    }
};

Scenario scenario_of(const Shape& shape) {
    Scenario s = toy::scenario(shape.nodes, shape.gpus);
    s.cluster.nvlink->bandwidth = 20.0 * toy::kLink * byte / second;
    s.cluster.nvlink->pairwise = shape.pairwise;
    s.cluster.fabric->nics_per_node = shape.nics;
    s.cluster.fabric->nodes_per_leaf = shape.nodes_per_leaf;
    s.cluster.fabric->rails = shape.rails;
    s.plans = {toy::ep(Dedup::none, 1)};
    return s;
}

ReduceWork reduction(const Shape& shape) {
    return {.group_size = shape.group, .stride = shape.stride, .bytes = 1.0 * GB};
}

// All groups reduce at once.
Seconds simulated(const Scenario& s, const ReduceTask& task) {
    Program program{.num_ranks = s.cluster.num_ranks(), .tasks = {}};
    program.tasks.push_back({.phase = Phase::grad_all_reduce,
                             .pass = Pass::update,
                             .stream = Stream::gradient,
                             .after = {},
                             .work = task});
    return sim::simulate(program, sim::Topology(s.cluster)).step;
}

ReduceTask task_of(const Scenario& s, const Profile& profile, const ReduceWork& work) {
    const Workload workload = build_workload(s, s.plans[0]);
    return TaskPricer(s, s.plans[0], profile, workload).reduce_task(work, 1.0);
}

constexpr std::array kShapes = {
    Shape{4, 4, 4, 0, 16, 1, false},
    Shape{4, 4, 4, 2, 16, 1, false},  // one leaf, two leaves
    Shape{4, 4, 4, 1, 16, 1, false},
    Shape{4, 4, 4, 2, 4, 4, false},  // replicas
    Shape{4, 4, 4, 2, 16, 1, true},
    Shape{4, 4, 4, 2, 4, 4, true},  // rails
    Shape{4, 8, 2, 2, 32, 1, false},
    Shape{4, 8, 2, 2, 4, 8, false},  // shared NICs
    Shape{4, 8, 2, 2, 16, 2, false},
    Shape{4, 8, 8, 2, 8, 4, false},  // several to an island
    Shape{4, 4, 8, 2, 16, 1, false},
    Shape{4, 4, 8, 2, 4, 4, false},  // two NICs a GPU
    Shape{1, 8, 8, 0, 8, 1, false},
    Shape{1, 8, 8, 0, 4, 2, false},  // inside a node
    // Pairwise links: all of a node, some, two; over nodes, by all and by every other.
    Shape{1, 8, 8, 0, 8, 1, false, true},
    Shape{1, 8, 8, 0, 4, 2, false, true},
    Shape{1, 8, 8, 0, 2, 1, false, true},
    Shape{4, 8, 8, 2, 32, 1, false, true},
    Shape{4, 8, 8, 2, 16, 2, false, true},
    Shape{2, 3, 3, 0, 6, 1, false, true},
};

// On a non-blocking tree a ring takes what it takes under one leaf, priced and simulated alike.
TEST(Reduction, SimulatedAsPriced) {
    for (const Shape& shape : kShapes) {
        const Scenario s = scenario_of(shape);
        const Profile profile = toy::profile();
        const ReduceWork work = reduction(shape);
        const RingTime priced = PriceBook(profile, s.cluster, Dtype::bf16).ring_time(work);
        const Seconds time = simulated(s, task_of(s, profile, work));
        EXPECT_NEAR(time / priced.time, 1.0, 1e-6) << shape.text();
        Shape one_leaf = shape;
        one_leaf.nodes_per_leaf = 0;
        const Scenario flat = scenario_of(one_leaf);
        EXPECT_NEAR(
            priced.time / PriceBook(profile, flat.cluster, Dtype::bf16).ring_time(work).time, 1.0,
            1e-9)
            << shape.text();
    }
}

// m nodes of G NICs share a leaf's uplinks, m G C / o; of each leaf min(m, h) nodes have a
// neighbour h nodes on under another: a lane gets C min(1, m / (o min(m, h))). Priced and simulated
// alike.
TEST(Reduction, AnOversubscribedSpineIsPricedAsSimulated) {
    constexpr std::array shapes = {
        Shape{4, 4, 4, 1, 16, 1, false}, Shape{4, 4, 4, 2, 16, 1, false},
        Shape{4, 4, 4, 1, 4, 4, false},  Shape{8, 4, 4, 2, 4, 8, false},
        Shape{4, 4, 4, 1, 16, 1, true},
    };
    const Profile profile = toy::profile();
    for (const Shape& shape : shapes) {
        const ReduceWork work = reduction(shape);
        Scenario s = scenario_of(shape);
        const double m = shape.nodes_per_leaf, h = std::max(1, shape.stride / shape.gpus);
        const Seconds even = PriceBook(profile, s.cluster, Dtype::bf16).ring_time(work).time;
        for (const double o : {2.0, 4.0}) {
            s.cluster.fabric->oversubscription = o;
            const RingTime priced = PriceBook(profile, s.cluster, Dtype::bf16).ring_time(work);
            const double slower = std::max(1.0, o * std::min(m, h) / m);
            EXPECT_NEAR(priced.time / even, slower, 1e-3 * slower) << shape.text();
            EXPECT_NEAR(simulated(s, task_of(s, profile, work)) / priced.time, 1.0, 1e-6)
                << shape.text() << ", " << o << ":1";
        }
    }
}

// Pods of two leaves of a node, 2:1 to the spine and q:1 to the core. A ring over all nodes has
// one lane of G that leaves a leaf, and one that leaves a pod: a leaf's uplinks give it half of its
// NIC, a pod's, of two nodes, 2 / (2 q). Rings a node apart (stride G) run the same lanes.
TEST(Reduction, AThirdTierIsPricedAsSimulated) {
    const Profile profile = toy::profile();
    for (const Shape& shape : {Shape{8, 4, 4, 1, 32, 1, false}, Shape{8, 4, 4, 1, 8, 4, false},
                               Shape{8, 4, 4, 1, 32, 1, true}}) {
        const ReduceWork work = reduction(shape);
        Scenario s = scenario_of(shape);
        const Seconds even = PriceBook(profile, s.cluster, Dtype::bf16).ring_time(work).time;
        s.cluster.fabric->oversubscription = 2.0;
        for (const double q : {1.0, 6.0}) {
            s.cluster.fabric->core = CoreTier{.leaves_per_pod = 2, .oversubscription = q};
            const RingTime priced = PriceBook(profile, s.cluster, Dtype::bf16).ring_time(work);
            const double slower = std::max(2.0, 2.0 * q / 2.0);
            EXPECT_EQ(priced.lanes.farthest, PathClass::core);
            EXPECT_NEAR(priced.time / even, slower, 1e-3 * slower) << shape.text();
            EXPECT_NEAR(simulated(s, task_of(s, profile, work)) / priced.time, 1.0, 1e-6)
                << shape.text() << ", " << q << ":1";
        }
    }
}

// The bound is what the same rings need on the bare links, so that no price is below it, whatever
// the curve was measured on.
TEST(Reduction, NoPriceIsBelowTheLinks) {
    Profile fast = toy::profile();
    for (TimeCurve& c : fast.communication) {
        for (double& t : c.seconds) t *= 1e-3;
    }
    std::vector<Shape> shapes(kShapes.begin(), kShapes.end());
    shapes.push_back({4, 8, 3, 2, 32, 1, false});  // NICs that do not divide the GPUs
    shapes.push_back({3, 8, 8, 0, 12, 2, false});  // groups that lie unevenly
    shapes.push_back({3, 8, 8, 0, 3, 1, false});   // some groups inside a node, others not
    for (const Shape& shape : shapes) {
        const Scenario s = scenario_of(shape);
        const ReduceWork work = reduction(shape);
        const RingTime priced = PriceBook(fast, s.cluster, Dtype::bf16).ring_time(work);
        const Seconds bare = simulated(s, {.group_size = shape.group,
                                           .stride = shape.stride,
                                           .bytes = std::llround(work.bytes.in(byte))});
        // A switch that reduces, or islands that reduce before they meet, halve a ring's traffic.
        EXPECT_GE(priced.time / bare, 0.5 - 1e-6) << shape.text();
    }
}

}  // namespace
}  // namespace headway
