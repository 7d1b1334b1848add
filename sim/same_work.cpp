#include "sim/same_work.hpp"

#include <algorithm>
#include <type_traits>
#include <variant>

namespace headway::sim {
namespace {

bool same(const ComputeTask& a, const ComputeTask& b) {
    return a.per_rank == b.per_rank && a.pieces == b.pieces && a.flops == b.flops &&
           a.bytes == b.bytes;
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
           a.bytes_of_group == b.bytes_of_group && a.latency == b.latency &&
           a.efficiency == b.efficiency;
}

bool same(const HostTask& a, const HostTask& b) {
    return a.per_rank == b.per_rank && a.bytes == b.bytes;
}

bool same(const SendTask& a, const SendTask& b) {
    return a.to_role == b.to_role && a.bytes == b.bytes && a.latency == b.latency &&
           a.efficiency == b.efficiency;
}

}  // namespace

bool same_work(const TaskWork& a, const TaskWork& b) {
    return a.index() == b.index() &&
           std::visit(
               [&](const auto& work) {
                   return same(work, std::get<std::decay_t<decltype(work)>>(b));
               },
               a);
}

}  // namespace headway::sim
