#include "sim/collective.hpp"

#include <algorithm>
#include <stdexcept>
#include <variant>

namespace headway::sim {
namespace {

void begin_stage(const Stage& stage, std::size_t n, bool trace, StageState& state) {
    state.armed.assign(n, 0);
    state.members.assign(n, {});
    state.begin.assign(trace ? stage.messages.size() : 0, 0);
    state.num_armed = 0;
    state.num_pending = static_cast<int>(stage.messages.size());
    for (const Message& m : stage.messages) {
        ++state.members[static_cast<std::size_t>(m.from)].pending;
        ++state.members[static_cast<std::size_t>(m.to)].pending;
    }
    state.first_of.assign(n + 1, 0);
    for (std::size_t i = 0; i < n; ++i)
        state.first_of[i + 1] = state.first_of[i] + state.members[i].pending;
    state.partners.resize(2 * stage.messages.size());
    std::vector<std::int32_t> at(state.first_of.begin(), state.first_of.end() - 1);
    const auto add = [&](std::int32_t member, std::int32_t other, std::int32_t message) {
        state.partners[static_cast<std::size_t>(at[static_cast<std::size_t>(member)]++)] = {
            .member = other, .message = message};
    };
    for (std::size_t k = 0; k < stage.messages.size(); ++k) {
        const Message& m = stage.messages[k];
        add(m.from, m.to, static_cast<std::int32_t>(k));
        add(m.to, m.from, static_cast<std::int32_t>(k));
    }
}

}  // namespace

int RunningCollective::member_index(int rank) const {
    const auto& members = operation.members;
    return static_cast<int>(std::ranges::lower_bound(members, rank) - members.begin());
}

bool RunningCollective::is_rendezvous() const {
    return num_stages() == 1 && operation.stages[0].collective &&
           operation.stages[0].messages.empty();
}

void begin_collective(const Task& task, int group, const PathTable& paths, double epsilon,
                      bool trace, RunningCollective& c) {
    if (const auto* exchange = std::get_if<ExchangeTask>(&task.work)) {
        expand(*exchange, group, paths, c.operation);
    } else if (const auto* reduce = std::get_if<ReduceTask>(&task.work)) {
        expand(*reduce, group, paths, c.operation);
    } else {
        throw std::logic_error("simulate: compute is not a collective");
    }
    const std::size_t n = c.operation.members.size();
    c.sent.assign(n, 0.0);
    c.decoupling_error = 0.0;
    c.opened.reset();
    c.members_done = 0;
    c.group = group;
    if (c.states.size() < c.operation.stages.size()) c.states.resize(c.operation.stages.size());
    for (std::size_t s = 0; s < c.operation.stages.size(); ++s) {
        Stage& stage = c.operation.stages[s];
        c.decoupling_error += decouple(stage, paths.topology(), epsilon);
        for (const Message& m : stage.messages) c.sent[static_cast<std::size_t>(m.from)] += m.bytes;
        begin_stage(stage, n, trace, c.states[s]);
    }
}

}  // namespace headway::sim
