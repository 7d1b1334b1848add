#include "models/cost/priced_layers.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

namespace headway::inline cost {
namespace {

// The load as one rank sees it: its rows, what it sends and gets.
GroupLoad load_of_rank(const DrawnGroup& group, int rank, const ExpertLayout& layout, int island) {
    GroupLoad load{.rows_mean = layout.tokens_per_rank * layout.router.top_k * layout.expert_tensor,
                   .rows_max = static_cast<double>(group.rows[static_cast<std::size_t>(rank)]),
                   .forwarded = group.forwarded};
    if (layout.gathers_tokens) {
        load.copies_sent = load.copies_received = load.rows_max;
        return load;
    }
    const TrafficMatrix& arriving = group.forwarded ? group.staged.inside : group.copies;
    load.copies_received = static_cast<double>(arriving.received(rank) + arriving.at(rank, rank));
    if (!group.forwarded) {
        load.copies_sent = static_cast<double>(arriving.sent(rank) + arriving.at(rank, rank));
        return load;
    }
    // `inside` holds what the rank forwards for others too; its own share is one island's part.
    double inside = 0.0;
    for (int d = 0; d < arriving.num_ranks; ++d)
        inside += static_cast<double>(arriving.at(rank, d));
    const double own = inside * island / layout.ranks();
    load.copies_sent = static_cast<double>(group.staged.over_nic.sent(rank)) + own;
    load.copies_forwarded = inside - own;
    return load;
}

const std::vector<PhaseWork>& phases_of(const LayerWork& layer, Pass pass) {
    return pass == Pass::forward ? layer.forward : layer.backward;
}

}  // namespace

const LayerWork& PricedLayers::entry(int layer) const {
    const int entry = workload_.entry_of_layer[static_cast<std::size_t>(layer)];
    return workload_.layers[static_cast<std::size_t>(entry)];
}

std::vector<DrawnGroup> PricedLayers::draw(int layer, int draw) const {
    return draw_groups(scenario_, plan_, layer, ranks_.first, ranks_.count,
                       options_.sample * workload_.num_micro_batches + draw);
}

// The phases of every rank with its own rows; one entry for all where the layer is dense or its
// routing stays on the rank.
std::vector<LayerWork> PricedLayers::work_of_ranks(int layer,
                                                   const std::vector<DrawnGroup>& groups) const {
    if (groups.empty()) return {entry(layer)};
    const int n = pricer_.layout().ranks(), island = std::min(n, scenario_.cluster.island_size());
    std::vector<LayerWork> ranks;
    for (int rank = 0; rank < ranks_.count; ++rank) {
        const GroupLoad load = load_of_rank(groups[static_cast<std::size_t>(rank / n)], rank % n,
                                            pricer_.layout(), island);
        ranks.push_back(build_moe_layer(scenario_, plan_, load, layer));
    }
    return ranks;
}

// Its buffer is as large as each group's own rows make it; what its links achieve is that of the
// expected one.
ReduceTask PricedLayers::reduce_task(const std::vector<LayerWork>& ranks, const PhaseWork& expected,
                                     Pass pass, std::size_t phase, double fraction) {
    const auto& mean = std::get<ReduceWork>(expected.work);
    ReduceTask task = pricer_.reduce_task(mean, fraction);
    const int block = mean.group_size * mean.stride;
    for (int rank = 0; rank + block <= static_cast<int>(ranks.size()); rank += block) {
        for (int lane = 0; lane < mean.stride; ++lane) {
            const LayerWork& work = ranks[static_cast<std::size_t>(rank + lane)];
            const auto& own = std::get<ReduceWork>(phases_of(work, pass)[phase].work);
            task.bytes_of_group.push_back(std::llround(fraction * own.bytes.in(byte)));
        }
    }
    const auto is_mean = [&](std::int64_t bytes) { return bytes == task.bytes; };
    if (std::ranges::all_of(task.bytes_of_group, is_mean)) task.bytes_of_group.clear();
    return task;
}

std::vector<PricedSlot> PricedLayers::price(const std::vector<LayerWork>& ranks,
                                            const LayerWork& expected_layer, Pass pass,
                                            const std::vector<DrawnGroup>& groups) {
    const std::vector<PhaseWork>&phases = phases_of(ranks[0], pass),
          &expected = phases_of(expected_layer, pass);
    const std::vector<PhaseRange>& pipelines =
        pass == Pass::forward ? ranks[0].forward_pipelines : ranks[0].backward_pipelines;
    std::vector<PricedSlot> priced;
    for (const Slot& slot : pass_slots(phases, pipelines, plan_.overlap_chunks)) {
        const auto index = static_cast<std::size_t>(slot.phase);
        const PhaseWork& phase = phases[index];
        const double fraction = slot.fraction();
        PricedSlot& out =
            priced.emplace_back(PricedSlot{.phase = phase.phase,
                                           .slot = slot,
                                           .launch = slot.launches() * pricer_.launch_time(phase),
                                           .host_waits = phase.host_waits});
        out.weights = pricer_.weight_gradient_share(expected[index]);
        const auto by_rank = [&] {
            std::vector<const PhaseWork*> all;
            for (const LayerWork& rank : ranks) all.push_back(&phases_of(rank, pass)[index]);
            return all;
        };
        if (std::holds_alternative<HostWork>(phase.work)) {
            out.work = pricer_.host_task(by_rank(), fraction);
        } else if (std::holds_alternative<ComputeWork>(phase.work)) {
            out.work = scaled(pricer_.compute_task(by_rank(), fraction), slot.scale());
        } else if (const auto* counts = std::get_if<CountExchangeWork>(&phase.work)) {
            out.work = pricer_.count_exchange_task(*counts);
        } else if (std::holds_alternative<ReduceWork>(phase.work)) {
            out.work = reduce_task(ranks, expected[index], pass, index, fraction);
        } else {
            out.work = pricer_.exchange_task(phase, groups, fraction);
        }
    }
    return priced;
}

PricedLayer PricedLayers::price(const std::vector<LayerWork>& ranks, const LayerWork& expected,
                                const std::vector<DrawnGroup>& groups) {
    return {.forward = price(ranks, expected, Pass::forward, groups),
            .backward = price(ranks, expected, Pass::backward, groups)};
}

const PricedLayer& PricedLayers::at(int layer, int micro_batch) {
    const std::pair key{draw_of(micro_batch), layer};
    const auto found = priced_.find(key);
    if (found != priced_.end()) return found->second;
    const std::vector<DrawnGroup> groups = draw(layer, key.first);
    PricedLayer priced = price(work_of_ranks(layer, groups), entry(layer), groups);
    pricer_.forget_draws();
    return priced_[key] = std::move(priced);
}

const PricedLayer& PricedLayers::outer(BlockKind kind) {
    const auto found = outer_.find(kind);
    if (found != outer_.end()) return found->second;
    const std::vector<PhaseWork>& phases =
        kind == BlockKind::before ? workload_.before : workload_.after;
    const auto forward = of_pass(phases, Pass::forward), backward = of_pass(phases, Pass::backward);
    LayerWork work;
    work.forward.assign(forward.begin(), forward.end());
    work.backward.assign(backward.begin(), backward.end());
    return outer_[kind] = price({work}, work, {});
}

void PricedLayers::forget(int layer, int micro_batch) {
    if (options_.num_draws == 0) priced_.erase({draw_of(micro_batch), layer});
}

}  // namespace headway::inline cost
