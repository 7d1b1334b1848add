#include "sim/cell.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <variant>

namespace headway::sim {
namespace {

Partners partners_of(const Stage& stage, std::size_t num_members) {
    Partners partners{.first_of = std::vector<std::int32_t>(num_members + 1, 0),
                      .all = std::vector<Partner>(2 * stage.messages.size())};
    for (const Message& m : stage.messages)
        for (const int end : {m.from, m.to}) ++partners.first_of[static_cast<std::size_t>(end) + 1];
    std::partial_sum(partners.first_of.begin(), partners.first_of.end(), partners.first_of.begin());
    std::vector<std::int32_t> at(partners.first_of.begin(), partners.first_of.end() - 1);
    const auto add = [&](std::int32_t member, std::int32_t other, std::size_t message) {
        partners.all[static_cast<std::size_t>(at[static_cast<std::size_t>(member)]++)] = {
            .member = other, .message = static_cast<std::int32_t>(message)};
    };
    for (std::size_t k = 0; k < stage.messages.size(); ++k) {
        add(stage.messages[k].from, stage.messages[k].to, k);
        add(stage.messages[k].to, stage.messages[k].from, k);
    }
    return partners;
}

// [message] the number of its cell, counted in order of their first messages.
std::vector<int> cells_of(const std::vector<Message>& messages, int num_links) {
    std::vector<std::uint32_t> parent(static_cast<std::size_t>(num_links));
    std::iota(parent.begin(), parent.end(), 0U);
    const auto root = [&](std::uint32_t link) {
        while (parent[link] != link) link = parent[link] = parent[parent[link]];
        return link;
    };
    for (const Message& m : messages)
        for (const std::uint32_t l : m.path.span()) parent[root(l)] = root(m.path.links[0]);
    std::vector<int> number(parent.size(), -1), cells;
    int count = 0;
    for (const Message& m : messages) {
        int& cell = number[root(m.path.links[0])];
        if (cell < 0) cell = count++;
        cells.push_back(cell);
    }
    return cells;
}

std::vector<Operation> taken_apart(const Operation& whole, int num_links) {
    const std::vector<Message>& messages = whole.stages[0].messages;
    const std::vector<int> cell_of = cells_of(messages, num_links);
    using Place = std::pair<int, std::int32_t>;  // cell, member of the whole
    std::vector<Place> places;
    for (std::size_t k = 0; k < messages.size(); ++k)
        for (const std::int32_t end : {messages[k].from, messages[k].to})
            places.emplace_back(cell_of[k], end);
    std::ranges::sort(places);
    places.erase(std::unique(places.begin(), places.end()), places.end());
    std::vector<Operation> cells;
    std::vector<std::ptrdiff_t> first_of;
    for (std::size_t p = 0; p < places.size(); ++p) {
        if (p == 0 || places[p].first != places[p - 1].first) {
            cells.push_back({.members = {}, .stages = {{.latency = whole.stages[0].latency}}});
            first_of.push_back(static_cast<std::ptrdiff_t>(p));
        }
        cells.back().members.push_back(whole.members[static_cast<std::size_t>(places[p].second)]);
    }
    for (std::size_t k = 0; k < messages.size(); ++k) {
        const auto cell = static_cast<std::size_t>(cell_of[k]);
        const auto index = [&](std::int32_t member) {
            const auto at = std::ranges::lower_bound(places, Place(cell_of[k], member));
            return static_cast<std::int32_t>(at - places.begin() - first_of[cell]);
        };
        Message& message = cells[cell].stages[0].messages.emplace_back(messages[k]);
        message.from = index(message.from);
        message.to = index(message.to);
    }
    return cells;
}

double busiest(const Operation& operation, const Topology& topology) {
    std::vector<double> load(static_cast<std::size_t>(topology.num_links()), 0.0);
    for (const Stage& stage : operation.stages)
        for (const Message& m : stage.messages)
            for (const std::uint32_t l : m.path.shared()) load[l] += m.wire_bytes;
    double longest = 0.0;
    for (std::size_t l = 0; l < load.size(); ++l)
        if (load[l] > 0.0) longest = std::max(longest, load[l] / topology.capacity()[l]);
    return longest * kPerSecond;
}

Operation operation_of(const Task& task, int group, const PathTable& paths) {
    Operation operation;
    if (const auto* exchange = std::get_if<ExchangeTask>(&task.work)) {
        expand(*exchange, group, paths, operation);
    } else if (const auto* reduce = std::get_if<ReduceTask>(&task.work)) {
        expand(*reduce, group, paths, operation);
    } else {
        throw std::logic_error("simulate: compute is not a collective");
    }
    return operation;
}

}  // namespace

std::shared_ptr<const SpelledOut> spell_out(const Task& task, int group, const PathTable& paths,
                                            double epsilon, bool apart) {
    Operation operation = operation_of(task, group, paths);
    auto all = std::make_shared<SpelledOut>();
    Outline& outline = all->outline;
    outline.members = operation.members;
    outline.sent.assign(operation.members.size(), 0.0);
    outline.num_stages = static_cast<int>(operation.stages.size());
    if (outline.num_stages == 0) return all;
    outline.latency = operation.stages[0].latency;
    for (Stage& stage : operation.stages) {
        outline.decoupling_error += decouple(stage, paths.topology(), epsilon);
        for (const Message& m : stage.messages)
            outline.sent[static_cast<std::size_t>(m.from)] += m.bytes;
    }
    if (apart) outline.busiest = busiest(operation, paths.topology());
    std::vector<Operation> operations;
    all->apart = apart && outline.num_stages == 1 && !operation.stages[0].collective;
    if (all->apart) {
        operations = taken_apart(operation, paths.topology().num_links());
    } else {
        operations.push_back(std::move(operation));
    }
    for (Operation& cell : operations) {
        all->cells.push_back(
            {std::move(cell), std::vector<Partners>{}});  // clang 14: no emplace_back
        Cell& added = all->cells.back();
        for (const Stage& stage : added.operation.stages)
            added.partners.push_back(partners_of(stage, added.operation.members.size()));
    }
    return all;
}

}  // namespace headway::sim
