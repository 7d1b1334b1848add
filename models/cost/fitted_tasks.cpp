#include "models/cost/fitted_tasks.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/workload/link_load.hpp"

namespace headway::inline cost {
Cluster without_overrides(Cluster cluster) {
    cluster.link_overrides.clear();
    cluster.rank_overrides.clear();
    return cluster;
}

void fit_stage(ExchangeStage& stage, const PathBytes& mean, int group_size, Collective collective,
               const PriceBook& book, const Cluster& cluster, int stride) {
    const auto pcie = static_cast<std::size_t>(PathClass::pcie);
    const double squeeze = root_squeeze(cluster, group_size);
    PathBytes on_curve = mean;
    on_curve[static_cast<std::size_t>(PathClass::nvlink)] *=
        mesh_squeeze(cluster, group_size, stride);
    on_curve[static_cast<std::size_t>(PathClass::core)] *=
        pods_squeeze(cluster, group_size, stride);
    PathBytes links = on_curve;
    links[pcie] *= squeeze;
    const std::vector<PathTime> times =
        book.path_times(on_curve, mean, links, group_size, collective, stride);
    if (times.empty()) return;
    Seconds latency = times.front().time;
    // A message at the floor still needs time for its bytes: a tenth of it.
    for (const PathTime& t : times) latency = min(latency, min(t.floor, 0.9 * t.time));
    stage.latency = latency;
    for (const PathTime& t : times) {
        const double rate = t.bytes / (t.time - latency).in(second);
        stage.efficiency[static_cast<std::size_t>(t.path)] =
            rate / link_bandwidth(cluster, t.path).in(byte / second);
    }
    stage.efficiency[pcie] *= squeeze;  // what the simulator finds on the switches' uplinks
    // Flows over a tier pass NICs and uplinks. Where the uplinks are the narrower ones their
    // bytes, times the oversubscription, tell the efficiency, so that the NIC's floor comes once;
    // else what is below does.
    auto narrowest = std::ranges::find(times, PathClass::nic, &PathTime::path);
    if (narrowest == times.end()) return;
    for (auto uplink = narrowest + 1; uplink != times.end(); ++uplink) {
        if (uplink->bytes < narrowest->bytes || uplink->time < narrowest->time) {
            stage.efficiency[static_cast<std::size_t>(uplink->path)] =
                stage.efficiency[static_cast<std::size_t>(narrowest->path)];
        } else {
            narrowest = uplink;
        }
    }
}

ReduceTask fitted_reduction(const ReduceWork& work, const PriceBook& book) {
    ReduceTask task{.collective = work.collective,
                    .group_size = work.group_size,
                    .stride = work.stride,
                    .bytes = std::llround(work.bytes.in(byte))};
    const RingTime ring = book.ring_time(work);
    task.latency = 0.1 * ring.time;
    // What a lane achieves holds for its hops under one leaf and over the tiers above alike.
    const double efficiency = ring.bytes_of_lane / (ring.time - task.latency) / ring.lanes.of_lane;
    const PathClass farthest = ring.lanes.farthest;
    const PathClass nearest = crosses_nic(farthest) ? PathClass::nic : farthest;
    for (auto c = static_cast<std::size_t>(nearest); c <= static_cast<std::size_t>(farthest); ++c)
        task.efficiency[c] = efficiency;
    return task;
}

}  // namespace headway::inline cost
