#include "sim/cell.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "sim/topology.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

// The cells of one exchange on four GPUs of a switch, whose links are an up and a down port each.
std::shared_ptr<const sim::SpelledOut> spelled(const std::vector<std::pair<int, int>>& pairs) {
    auto matrix = std::make_shared<TrafficMatrix>(4);
    for (const auto& [from, to] : pairs) matrix->at(from, to) = 1000;
    const Cluster cluster = toy::cluster(1, 4);
    const sim::Topology topology(cluster, 0);
    const sim::PathTable paths(topology);
    Task task{.stream = Stream::communication,
              .work = ExchangeTask{.group_size = 4, .stages = {{.matrices = {matrix}}}}};
    return sim::spell_out(task, 0, paths, 0.01, true);
}

using Members = std::vector<std::vector<int>>;

Members members_of(const sim::SpelledOut& all) {
    Members members;
    for (const sim::Cell& cell : all.cells) members.push_back(cell.operation.members);
    return members;
}

// Two pairs that exchange share no link. 0 -> 1 and 1 -> 2 neither: rank 1's ports are two links. 0
// -> 1 and 0 -> 2 leave by one port, 1 -> 3 and 2 -> 3 enter by one: with all four, 0 -> 1 is in
// another cell than 1 -> 3.
TEST(Cell, MessagesThatShareALinkAreOne) {
    EXPECT_EQ(members_of(*spelled({{0, 1}, {1, 0}, {2, 3}, {3, 2}})),
              (Members{{0, 1}, {0, 1}, {2, 3}, {2, 3}}));
    EXPECT_EQ(members_of(*spelled({{0, 1}, {1, 2}})), (Members{{0, 1}, {1, 2}}));
    EXPECT_EQ(members_of(*spelled({{0, 1}, {0, 2}, {1, 3}, {2, 3}})),
              (Members{{0, 1, 2}, {1, 2, 3}}));
    // Through others: 0 -> 1 and 2 -> 3 by 0 -> 3, which leaves with the one and enters with the
    // other.
    EXPECT_EQ(members_of(*spelled({{0, 1}, {2, 3}, {0, 3}})), (Members{{0, 1, 2, 3}}));
}

// A message's ends are numbers of the cell's members, and each member knows its partners.
TEST(Cell, EndsAndPartnersAreOfTheCell) {
    const auto all = spelled({{1, 3}, {2, 3}});
    ASSERT_EQ(all->cells.size(), 1u);
    const sim::Cell& cell = all->cells[0];
    EXPECT_EQ(cell.operation.members, (std::vector{1, 2, 3}));
    const std::vector<sim::Message>& messages = cell.operation.stages[0].messages;
    ASSERT_EQ(messages.size(), 2u);
    EXPECT_EQ(std::pair(messages[0].from, messages[0].to), std::pair(0, 2));
    EXPECT_EQ(std::pair(messages[1].from, messages[1].to), std::pair(1, 2));
    const auto partners = cell.partners[0].of(2);
    ASSERT_EQ(partners.size(), 2u);
    EXPECT_EQ(partners[0].member, 0);
    EXPECT_EQ(partners[1].message, 1);
    EXPECT_EQ(all->outline.sent[1], 1000.0);
    EXPECT_EQ(all->outline.sent[3], 0.0);
    // The busiest link is rank 3's way in.
    EXPECT_NEAR(all->outline.busiest, 2000.0 / toy::kLink * 1e12, 1e-6);
}

}  // namespace
}  // namespace headway
