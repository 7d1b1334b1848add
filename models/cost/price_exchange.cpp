// Exchanges, reductions and messages.
#include "models/cost/price.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "models/cost/phase_terms.hpp"
#include "models/vocab/links.hpp"
#include "models/workload/link_load.hpp"

namespace headway::inline cost {

PathTime PriceBook::path_time(Collective collective, PathClass path, double busiest, double mean,
                              int num_ranks, double slowest) const {
    const TimeCurve* curve = profile_.find(collective, path, num_ranks);
    // Spine and core are reached through the same NICs; without curves of their own they are priced
    // on what is below.
    if (curve == nullptr && path == PathClass::core)
        curve = profile_.find(collective, PathClass::spine, num_ranks);
    if (curve == nullptr && crosses_nic(path))
        curve = profile_.find(collective, PathClass::nic, num_ranks);
    // Equal bus bandwidth of the three reductions is how their bus bandwidths are defined.
    if (curve == nullptr &&
        (collective == Collective::reduce_scatter || collective == Collective::all_gather)) {
        return path_time(Collective::all_reduce, path, busiest, mean, num_ranks, slowest);
    }
    // A message is an all-to-all of two ranks.
    if (curve == nullptr && collective == Collective::send_recv)
        return path_time(Collective::all_to_all, path, busiest, mean, num_ranks, slowest);
    if (curve == nullptr) {
        missing_curve(fmt::format("{} over {}", name(collective), name(path)),
                      "measure it with `headway calibrate --from-nccl-tests LOG`, or choose a "
                      "profile that has it");
    }
    const double measured = curve->link.in(byte / second),
                 here = link_bandwidth(cluster_, path).in(byte / second);
    const double ratio = measured > 0.0 && here > 0.0 ? measured / here : 1.0;
    const auto timed = [&](double bytes, double slow) {
        const LookUp look_up = curve->at(bytes);
        const double floor = std::min(curve->floor_seconds(), look_up.value);
        const double start = std::max(floor, link_latency(cluster_, path).in(second));
        return PathTime{.path = path,
                        .curve = curve,
                        .bytes = bytes,
                        .link_ratio = ratio * slow,
                        .time = (start + (look_up.value - floor) * ratio * slow) * second,
                        .floor = start * second,
                        .extrapolated = look_up.extrapolated};
    };
    // The last rank to end is the busiest, or the mean one behind the slowest link.
    const PathTime of_busiest =
        timed(busiest + curve->mean_share * (mean - busiest), 1.0 / std::max(1.0, slowest));
    if (slowest >= 1.0) return of_busiest;
    const PathTime on_slow_link = timed(mean, 1.0 / slowest);
    return on_slow_link.time > of_busiest.time ? on_slow_link : of_busiest;
}

std::vector<PathTime> PriceBook::path_times(const PathBytes& busiest, const PathBytes& mean,
                                            const PathBytes& links, int group_size,
                                            Collective collective, int stride) const {
    struct Load {
        double busiest, mean, link;
    };
    const auto at = [&](PathClass c) {
        const auto i = static_cast<std::size_t>(c);
        return Load{busiest[i].in(byte), mean[i].in(byte), links[i].in(byte)};
    };
    std::vector<PathTime> times;
    const auto add = [&](PathClass c, const Load& load, double slowest) {
        if (load.busiest <= 0.0) return;
        PathTime t = path_time(collective, c, load.busiest, load.mean, group_size, slowest);
        const Bandwidth link = link_bandwidth(cluster_, c);
        const double last =
            std::max(load.link / std::max(1.0, slowest), slowest < 1.0 ? load.mean / slowest : 0.0);
        if (link > Bandwidth{}) t.bound = last * byte / link;
        t.time = max(t.time, t.bound);
        // What crosses more tiers passes this one too. Which ranks of a pipeline send to each other
        // is not known here: any two.
        const bool sends = collective == Collective::send_recv;
        for (auto far = c; added_.any() && far <= (crosses_nic(c) ? PathClass::core : c);
             far = static_cast<PathClass>(static_cast<int>(far) + 1)) {
            if (at(far).busiest <= 0.0) continue;
            t.added = max(t.added, sends ? added_.worst(far, cluster_.num_ranks(), 1)
                                         : added_.worst(far, group_size / stride, stride));
        }
        times.push_back(t);
    };
    Load nvlink = at(PathClass::nvlink);
    if (nvlink.busiest > 0.0) nvlink.mean *= mesh_squeeze(cluster_, group_size, stride);
    add(PathClass::nvlink, nvlink, least_link_factor(cluster_, PathClass::nvlink));
    add(PathClass::pcie, at(PathClass::pcie), least_link_factor(cluster_, PathClass::pcie));
    // Everything that leaves the node passes the NIC; what crosses a tier also shares the uplinks
    // of its block, which are `narrowing` times narrower.
    const auto from = [&](PathClass nearest) {
        Load sum{};
        for (const PathClass c : {PathClass::core, PathClass::spine, PathClass::nic}) {
            if (c < nearest) break;
            const Load load = at(c);
            sum = {sum.busiest + load.busiest, sum.mean + load.mean, sum.link + load.link};
        }
        return sum;
    };
    add(PathClass::nic, from(PathClass::nic), least_link_factor(cluster_, PathClass::nic));
    for (const Tier& tier : tiers_of(cluster_)) {
        Load load = from(tier.path);
        if (tier.path == PathClass::core && load.busiest > 0.0)
            load.mean *= pods_squeeze(cluster_, group_size, stride);
        // A slow trunk is narrower for what crosses it.
        const double squeeze = tier.narrowing,
                     slow = squeeze / least_link_factor(cluster_, tier.path),
                     narrow = std::max(1.0, slow);
        add(tier.path,
            {narrow * load.busiest, narrow * load.mean,
             slow > squeeze ? std::max(squeeze * load.link, slow * load.mean) : slow * load.link},
            1.0);
    }
    return times;
}

Price PriceBook::exchange(const ExchangeWork& work, double weight, double fraction) {
    if (const std::optional<Seconds> time = records_time(work)) {
        const PhaseCurve* curve = phase_curve(work.records->shape, work.records->pass);
        const double sigma = curve->residual * time->in(second);
        account(curve).sigma += weight * sigma;
        return {*time, sigma, Bottleneck::sync};
    }
    const auto part = [&](PathBytes bytes) {
        for (Bytes& b : bytes) b *= fraction;
        return bytes;
    };
    std::vector<PathTime> paths;
    const auto stage = [&](const PathBytes& busiest, const PathBytes& mean,
                           const PathBytes& links) {
        PathTime slowest;
        for (const PathTime& t : path_times(part(busiest), part(mean), part(links), work.group_size,
                                            Collective::all_to_all, work.stride)) {
            note(t.curve, t.bytes, t.extrapolated);
            paths.push_back(t);
            if (t.time + t.added > slowest.time + slowest.added) slowest = t;
        }
        return slowest;
    };
    PathTime slowest = stage(work.on_curve, work.mean, work.links);
    Seconds fill;
    if (work.forwarded) {
        // Forwarding inside the node starts with the first chunk that arrives: the stages overlap
        // but for one latency.
        const PathTime inside = stage(work.forward_on_curve, work.forward_mean, work.forward_links);
        fill = min(slowest.floor, inside.floor);
        if (inside.time + inside.added > slowest.time + slowest.added) slowest = inside;
    }
    if (slowest.curve == nullptr) return {};
    const Seconds time = slowest.time + slowest.added + fill + planes_time(work, fraction);
    const double sigma = slowest.curve->residual * time.in(second);
    account(slowest.curve).sigma += weight * sigma;
    Price price{time, sigma, bottleneck_of(slowest.path)};
    // What the slowest path waits for is its links'.
    for (const PathTime& t : paths) price.links.add(t.path, t.time / slowest.time);
    return price;
}

std::optional<Seconds> PriceBook::records_time(const ExchangeWork& work) const {
    if (!work.records) return std::nullopt;
    const auto& [shape, pass, num_stages] = *work.records;
    if (const PhaseCurve* curve = phase_curve(shape, pass))
        return pass == Pass::forward ? Seconds{}
                                     : num_stages * phase_seconds(*curve, shape) * second;
    return std::nullopt;
}

Seconds PriceBook::planes_time(const ExchangeWork& work, double fraction) const {
    if (!(work.planes.bytes > Bytes{})) return {};
    return kernel_time(work.planes, Pass::forward, fraction);
}

Seconds PriceBook::count_exchange_time(const CountExchangeWork& work) const {
    if (const PhaseCurve* curve = phase_curve(work.shape, Pass::forward))
        return phase_seconds(*curve, *work.shape) * second;
    const Overheads& o = profile_.overheads;
    return work.num_syncs * o.host_sync + (work.hidden ? Seconds{} : o.count_exchange);
}

Price PriceBook::count_exchange(const CountExchangeWork& work, double weight) {
    Price price{.time = count_exchange_time(work), .bottleneck = Bottleneck::sync};
    const PhaseCurve* curve = phase_curve(work.shape, Pass::forward);
    const double residual = curve == nullptr ? profile_.overheads.residual : curve->residual;
    price.sigma = residual * price.time.in(second);
    account(curve == nullptr ? Source{} : Source{curve}).sigma += weight * price.sigma;
    if (curve != nullptr) note_shape(*curve, *work.shape);
    return price;
}

RingTime PriceBook::ring_time(const ReduceWork& work) const {
    const double n = work.group_size;
    const double passes = work.collective == Collective::all_reduce ? 2.0 : 1.0;
    const double bus_bytes = passes * work.bytes.in(byte) * (n - 1.0) / n;
    RingTime ring{.lanes = ring_lanes(cluster_, work.group_size, work.stride)};
    const PathClass farthest = ring.lanes.farthest;
    ring.bytes_of_lane = bus_bytes / ring.lanes.lanes * byte;
    const bool fabric = crosses_nic(farthest);
    const double slowest = least_link_factor(cluster_, fabric ? PathClass::nic : farthest);
    if (!fabric) {
        const double asked =
            (ring.bytes_of_lane / ring.lanes.of_lane * link_bandwidth(cluster_, farthest)).in(byte);
        ring.curve = path_time(work.collective, farthest, asked, asked, work.group_size, slowest);
    } else {
        // A reduction over whole nodes uses every NIC of a node, as the all_reduce curve was
        // measured. A lone lane has only its own NIC: that is what the all-to-all curve measures
        // per rank. `crowding` is 1 when every rank has its share of the NICs.
        const double crowding = link_bandwidth(cluster_, farthest) / ring.lanes.of_lane;
        const double own = ring.bytes_of_lane.in(byte)*crowding;
        const bool lone = ring.lanes.lanes == 1;
        const double asked = lone ? own : own * cluster_.island_size();
        ring.curve = path_time(lone ? Collective::all_to_all : work.collective, farthest, asked,
                               asked, work.group_size, slowest);
    }
    // The curve may be of a machine with other links. No algorithm moves less than these: inside an
    // island, where a switch may reduce, a rank's own bytes once; between islands, where a lane
    // holds what its island has reduced, a ring's of the islands.
    const double lanes = ring.lanes.lanes, islands = fabric ? n / lanes : 1.0;
    const PathClass inside = fabric ? ring.lanes.inside : farthest;
    const double members = fabric ? lanes : n;
    const Bandwidth of_member =
        fabric ? link_bandwidth(cluster_, inside) : lanes * ring.lanes.of_lane;
    if (inside != PathClass::self && members > 1)
        ring.bound = (members - 1.0) / members * work.bytes /
                     (least_link_factor(cluster_, inside) * of_member);
    if (fabric && inside != PathClass::self) {
        const bool pairwise = inside == PathClass::nvlink && cluster_.has_pairwise_links();
        // Lanes cross an island by paths that share no link, where their number is even.
        const double on_a_link = ring.lanes.lanes % 2 == 0 ? 1.0 : 2.0;
        ring.inside = (pairwise ? on_a_link * (cluster_.nvlink->domain - 1) : lanes - 1.0) *
                      ring.bytes_of_lane / (least_link_factor(cluster_, inside) * of_member);
        if (pairwise) ring.bound = max(ring.bound, ring.inside);
    }
    if (fabric) {
        ring.bound = max(ring.bound, passes * (islands - 1.0) / islands / lanes * work.bytes /
                                         (slowest * ring.lanes.of_lane));
    }
    // Its bytes pass from neighbour to neighbour too.
    const Seconds hop = link_latency(cluster_, path_class(cluster_, 0, work.stride));
    ring.time = max(max(ring.curve.time, ring.bound), hop);
    for (int c = 0; c < kNumPathClasses && added_.any(); ++c)
        ring.added =
            max(ring.added, added_.worst(static_cast<PathClass>(c), work.group_size, work.stride));
    return ring;
}

Price PriceBook::reduce(const ReduceWork& work, double weight) {
    const RingTime ring = ring_time(work);
    const PathTime& t = ring.curve;
    note(t.curve, t.bytes, t.extrapolated);
    const double sigma = t.curve->residual * ring.time.in(second);
    account(t.curve).sigma += weight * sigma;
    Price price{ring.time + ring.added, sigma, bottleneck_of(ring.lanes.farthest)};
    price.links.add(ring.lanes.farthest, 1.0);
    price.links.add(ring.lanes.inside, ring.inside / ring.time);
    return price;
}

Price PriceBook::message(PathClass path, Bytes bytes, double weight) {
    PathBytes sent{};
    sent[static_cast<std::size_t>(path)] = bytes;
    PathBytes on_link = sent;
    if (path == PathClass::nvlink)
        on_link[static_cast<std::size_t>(path)] *= mesh_squeeze(cluster_, 2);
    if (path == PathClass::core) on_link[static_cast<std::size_t>(path)] *= pods_squeeze(cluster_);
    PathTime slowest;
    for (const PathTime& t : path_times(on_link, sent, on_link, 2, Collective::send_recv)) {
        note(t.curve, t.bytes, t.extrapolated);
        if (t.time + t.added > slowest.time + slowest.added) slowest = t;
    }
    if (slowest.curve == nullptr) return {};
    const double sigma = slowest.curve->residual * slowest.time.in(second);
    account(slowest.curve).sigma += weight * sigma;
    return {slowest.time + slowest.added, sigma, bottleneck_of(slowest.path)};
}

Bandwidth PriceBook::host_rate(HostPart part) const {
    if (!profile_.host)
        missing_curve("the host",
                      "a profile with `host` (rates of copies and of the host's AdamW), or a plan "
                      "that offloads nothing");
    if (part != HostPart::optimizer) return profile_.host->copy * host_bandwidth(cluster_);
    return min(profile_.host->adam, cluster_.host->memory_bandwidth / cluster_.gpus_per_node);
}

Price PriceBook::host(const HostWork& work, double weight, double fraction) {
    const bool computes = work.part == HostPart::optimizer;
    const Seconds time = fraction * work.bytes / host_rate(work.part);
    const double residual = computes ? profile_.host->adam_residual : profile_.host->copy_residual,
                 sigma = residual * time.in(second);
    Account& a = account(computes ? HostSource::optimizer : HostSource::copies);
    a.used = true;
    a.sigma += weight * sigma;
    return {time, sigma, computes ? Bottleneck::host : Bottleneck::host_link};
}

}  // namespace headway::inline cost
