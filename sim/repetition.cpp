#include "sim/repetition.hpp"

#include <algorithm>
#include <variant>

namespace headway::sim {
namespace {

bool same(const ComputeTask& a, const ComputeTask& b) {
    return a.per_rank == b.per_rank && a.flops == b.flops && a.bytes == b.bytes;
}

bool same(const ExchangeStage& a, const ExchangeStage& b) {
    return a.transposed == b.transposed && a.uniform_bytes == b.uniform_bytes &&
           a.latency == b.latency && a.efficiency == b.efficiency &&
           std::ranges::equal(a.matrices, b.matrices, [](const auto& x, const auto& y) {
               return x == y || (x && y && *x == *y);
           });
}

bool same(const ExchangeTask& a, const ExchangeTask& b) {
    return a.group_size == b.group_size && a.algorithm == b.algorithm &&
           a.in_chunks == b.in_chunks &&
           std::ranges::equal(a.stages, b.stages,
                              [](const auto& x, const auto& y) { return same(x, y); });
}

bool same(const ReduceTask& a, const ReduceTask& b) {
    return a.collective == b.collective && a.algorithm == b.algorithm &&
           a.group_size == b.group_size && a.stride == b.stride && a.bytes == b.bytes &&
           a.latency == b.latency && a.efficiency == b.efficiency;
}

// What a task waits for inside its section, counted from the section's start.
std::vector<int> waits_for(const Task& task, int start) {
    std::vector<int> result;
    for (const int t : task.after) {
        if (t > start) result.push_back(t - start);
    }
    return result;
}

bool same(const Task& a, int start_a, const Task& b, int start_b) {
    if (a.phase != b.phase || a.pass != b.pass || a.layer != b.layer || a.chunk != b.chunk ||
        a.stream != b.stream || a.work.index() != b.work.index()) {
        return false;
    }
    if (waits_for(a, start_a) != waits_for(b, start_b)) return false;
    return std::visit(
        [&](const auto& work) {
            return same(work, std::get<std::decay_t<decltype(work)>>(b.work));
        },
        a.work);
}

}  // namespace

bool same_tasks(const Program& program, int a, int b, int length) {
    const auto& tasks = program.tasks;
    if (static_cast<std::size_t>(std::max(a, b) + length) >= tasks.size()) return false;
    for (int k = 1; k <= length; ++k) {
        const Task& x = tasks[static_cast<std::size_t>(a + k)];
        const Task& y = tasks[static_cast<std::size_t>(b + k)];
        if (!same(x, a, y, b)) return false;
    }
    return true;
}

const Section* find_repeated(const std::vector<Section>& sections, const Program& program, int at) {
    for (const Section& s : sections) {
        if (same_tasks(program, s.first_task, at, s.last_task - s.first_task)) return &s;
    }
    return nullptr;
}

}  // namespace headway::sim
