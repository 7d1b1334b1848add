#include "models/cost/bare_exchange.hpp"

#include <variant>

#include "models/cost/exchange_stages.hpp"
#include "models/cost/price.hpp"
#include "models/cost/program_tasks.hpp"
#include "models/vocab/phase.hpp"
#include "models/workload/drawn_group.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {
namespace {

Seconds predicted_time(const ExchangeWork& work, PriceBook& book) {
    if (!work.forwarded) return book.exchange(work, 1.0).time;
    const ExchangeStages stages = exchange_stages(work, 0.0);
    return book.exchange(stages.over_nic, 1.0).time + book.exchange(stages.inside, 1.0).time;
}

}  // namespace

std::vector<BareExchange> bare_exchanges(const Scenario& scenario, const Plan& plan,
                                         const Profile& profile, int layer, int sample) {
    const Workload workload = build_workload(scenario, plan);
    const LayerWork work =
        build_moe_layer(scenario, plan, expected_load(scenario, plan, layer), layer);
    const std::vector<DrawnGroup> groups =
        draw_groups(scenario, plan, layer, 0, scenario.cluster.num_ranks(), sample);
    TaskPricer pricer(scenario, plan, profile, workload);
    PriceBook book(profile, scenario.cluster, scenario.model.dtype);
    std::vector<BareExchange> exchanges;
    for (const auto* phases : {&work.forward, &work.backward}) {
        for (PhaseWork phase : *phases) {
            auto* exchange = std::get_if<ExchangeWork>(&phase.work);
            if (exchange == nullptr || !is_moe_phase(phase.phase) || is_records(phase)) continue;
            exchange->planes = {};  // moved in memory, around the exchange
            BareExchange& bare = exchanges.emplace_back();
            bare.phase = phase.phase;
            bare.pass = phase.pass;
            bare.predicted = predicted_time(*exchange, book);
            bare.task = pricer.exchange_task(phase, groups, 1.0);
            bare.task.in_chunks = false;
        }
    }
    return exchanges;
}

Profile ideal_links(const Cluster& cluster) {
    constexpr double kMost = 1e18;  // bytes
    Profile profile{.name = "ideal links"};
    for (int c = 0; c < kNumPathClasses; ++c) {
        const auto path = static_cast<PathClass>(c);
        const Bandwidth link = link_bandwidth(cluster, path);
        if (!(link > Bandwidth{})) continue;
        const double rate = link.in(byte / second);
        profile.communication.push_back({.path = path,
                                         .num_ranks = cluster.num_ranks(),
                                         .link = link,
                                         .bytes = {1.0, kMost},
                                         .seconds = {1.0 / rate, kMost / rate},
                                         .source = "the cluster's bandwidths"});
    }
    return profile;
}

}  // namespace headway::inline cost
