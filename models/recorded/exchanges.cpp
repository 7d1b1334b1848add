#include "models/recorded/exchanges.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/vocab/error.hpp"
#include "models/workload/drawn_group.hpp"

namespace headway::inline recorded {
namespace {

const RecordedGroup& group_of(const Recording& recording, const RecordedTask& task) {
    return recording.groups[static_cast<std::size_t>(task.group)];
}

double total(const std::vector<double>& bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), 0.0);
}

}  // namespace

Scenario routed_layer(const Recording& recording, const RecordedTask& task, const Cluster& cluster,
                      const Routing& routing) {
    const RecordedRouter router = recording.router.value_or(RecordedRouter{});
    const auto refuse = [&](std::string found, std::string accepted) {
        throw InputError({.where = "program " + recording.name,
                          .found = std::move(found),
                          .accepted = std::move(accepted),
                          .hint = "state it in the program, or import with --top-k"});
    };
    if (router.experts < 1 || router.top_k < 1)
        refuse("a program without a router", "router: {experts: E, top_k: K}");
    const int size = group_of(recording, task).size;
    if (router.experts % size != 0 || router.top_k > router.experts)
        refuse(fmt::format("{} experts, {} of them for a token, on {} ranks", router.experts,
                           router.top_k, size),
               "experts that divide by the ranks of the exchange");
    const double choices = task.row_bytes > 0 ? total(task.send) / task.row_bytes : 0.0;
    const double tokens = std::round(choices / router.top_k);
    if (tokens < 1.0 || std::abs(tokens * router.top_k - choices) > 0.5)
        refuse(fmt::format("{:g} rows in an exchange, {} of a token", choices, router.top_k),
               "rows that are tokens times top_k");
    Scenario scenario{.name = recording.name, .cluster = cluster, .routing = routing};
    scenario.model.num_layers = 1;
    scenario.model.moe = {.num_experts = router.experts, .top_k = router.top_k};
    scenario.batch.sequence_length = static_cast<int>(tokens);
    return scenario;
}

double ExchangedBytes::received(int rank) const {
    const TrafficMatrix& matrix = of_rank(rank);
    double sum = 0.0;
    for (int from = 0; from < block_size; ++from)
        sum += static_cast<double>(matrix.at(from, rank % block_size));
    return sum;
}

Exchanges::Exchanges(const Recording& recording, const Cluster& cluster,
                     const std::optional<Routing>& routing)
    : recording_(recording),
      cluster_(cluster),
      routing_(routing),
      routed_(recording.tasks.size(), false) {
    for (const RecordedTask& task : recording.tasks)
        if (task.returns) routed_[static_cast<std::size_t>(*task.returns)] = true;
    if (routing && std::ranges::find(routed_, true) == routed_.end())
        throw InputError({.where = "--routing",
                          .found = "a routing, and no exchange of a router in " + recording.name,
                          .accepted = "a program with all-to-alls of uneven splits"});
}

// The same draw serves the passes of a layer: their exchanges have the same splits.
int Exchanges::layer_of(const RecordedTask& task) {
    const std::pair splits{task.send, task.receive};
    const auto known = std::ranges::find(layers_, splits);
    if (known != layers_.end()) return static_cast<int>(known - layers_.begin());
    layers_.push_back(splits);
    return static_cast<int>(layers_.size()) - 1;
}

ExchangedBytes Exchanges::bytes(int number) {
    const RecordedTask& task = recording_.tasks[static_cast<std::size_t>(number)];
    if (task.returns) {
        ExchangedBytes back = bytes(*task.returns);
        for (auto& block : back.blocks)
            block = std::make_shared<const TrafficMatrix>(block->transposed());
        return back;
    }
    if (!routing_ || !routed_[static_cast<std::size_t>(number)]) return as_recorded(task);
    return drawn(number);
}

// What came from each rank is known, and what went to each; the others are taken to send each rank
// what the recorded one sent it.
ExchangedBytes Exchanges::as_recorded(const RecordedTask& task) const {
    const RecordedGroup& group = group_of(recording_, task);
    const int me = recording_.rank / group.stride % group.size;
    ExchangedBytes result{.block_size = group.size * group.stride};
    TrafficMatrix matrix(result.block_size);
    for (int from = 0; from < group.size; ++from) {
        for (int to = 0; to < group.size; ++to) {
            const double bytes = to == me ? task.receive[static_cast<std::size_t>(from)]
                                          : task.send[static_cast<std::size_t>(to)];
            for (int o = 0; o < group.stride; ++o)
                matrix.at(from * group.stride + o, to * group.stride + o) = std::llround(bytes);
        }
    }
    result.blocks.push_back(std::make_shared<const TrafficMatrix>(std::move(matrix)));
    return result;
}

ExchangedBytes Exchanges::drawn(int number) {
    const RecordedTask& task = recording_.tasks[static_cast<std::size_t>(number)];
    const int layer = layer_of(task);
    if (const auto known = drawn_.find(layer); known != drawn_.end()) return known->second;
    const RecordedGroup& group = group_of(recording_, task);
    const Scenario scenario = routed_layer(recording_, task, cluster_, *routing_);
    const Plan plan{.name = "recorded", .layer = ExpertParallel{}, .group_size = group.size};
    ExchangedBytes result{.block_size = group.size * group.stride};
    for (int block = 0; block < cluster_.num_ranks() / result.block_size; ++block) {
        TrafficMatrix matrix(result.block_size);
        for (int o = 0; o < group.stride; ++o) {
            const DrawnGroup draw = draw_group(scenario, plan, layer, block * group.stride + o);
            for (int from = 0; from < group.size; ++from)
                for (int to = 0; to < group.size; ++to)
                    matrix.at(from * group.stride + o, to * group.stride + o) = std::llround(
                        static_cast<double>(draw.copies.at(from, to)) * task.row_bytes);
        }
        result.blocks.push_back(std::make_shared<const TrafficMatrix>(std::move(matrix)));
    }
    return drawn_[layer] = result;
}

}  // namespace headway::inline recorded
