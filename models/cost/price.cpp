#include "models/cost/price.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "models/cost/phase_terms.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline cost {
namespace {

constexpr int kNumKernelSources = 2 * kNumKernels;

[[noreturn]] void missing_curve(const Profile& profile, const std::string& what,
                                const std::string& hint) {
    throw InputError(
        {.where = "profile " + profile.name, .found = "no curve for " + what, .hint = hint});
}

}  // namespace

Bottleneck bottleneck_of(PathClass path) {
    switch (path) {
        case PathClass::nvlink:
            return Bottleneck::nvlink;
        case PathClass::pcie:
            return Bottleneck::pcie;
        case PathClass::nic:
            return Bottleneck::nic;
        case PathClass::spine:
            return Bottleneck::spine;
        case PathClass::self:
            break;
    }
    return Bottleneck::none;
}

Interval interval_of(Seconds time, double sigma) {
    constexpr double kNinetyPercent = 1.6449;  // two-sided, of a normal distribution
    const Seconds half = kNinetyPercent * sigma * second;
    return {max(Seconds{}, time - half), time + half};
}

PriceBook::PriceBook(const Profile& profile, const Cluster& cluster)
    : profile_(profile),
      cluster_(cluster),
      sigma_(static_cast<std::size_t>(kNumKernelSources) + profile.communication.size() +
                 profile.phases.size() + 1,
             0.0),
      ranges_(sigma_.size()) {}

const RateCurve& PriceBook::curve_of(Kernel kernel, Pass pass) const {
    const KernelCurves& curves = profile_.kernel(kernel);
    if (pass == Pass::backward && !curves.backward.empty()) return curves.backward.front();
    if (curves.forward.empty()) {
        missing_curve(profile_, fmt::format("kernel {}", name(kernel)),
                      "measure it with `headway calibrate`, or choose a profile that has it");
    }
    return curves.forward.front();
}

// Experts of unequal sizes each run at the rate of their own rows: the mean of the time a FLOP.
LookUp PriceBook::rate_of(const RateCurve& curve, const KernelWork& work, double size,
                          const RowSpread* spread) {
    const bool experts = work.kernel == Kernel::grouped_gemm || work.kernel == Kernel::fused_expert;
    LookUp rate = curve.at(size, work.width);
    if (!experts || spread == nullptr || spread->num_parts == 0) return rate;
    double time = 0.0;
    for (int i = 0; i < spread->num_parts; ++i) {
        const RowSpread::Part& part = spread->parts[static_cast<std::size_t>(i)];
        time += part.share / curve.at(std::max(1.0, size * part.size), work.width).value;
    }
    rate.value = std::min(rate.value, 1.0 / time);
    return rate;
}

PriceBook::KernelPrice PriceBook::price_kernel(const KernelWork& work, Pass pass, double fraction,
                                               const RowSpread* spread) const {
    const RateCurve& curve = curve_of(work.kernel, pass);
    const bool backward = pass == Pass::backward && !profile_.kernel(work.kernel).backward.empty();
    const LookUp rate = rate_of(curve, work, work.size * fraction, spread);
    KernelPrice price{.launch = work.launches * profile_.overheads.launch,
                      .residual = curve.residual,
                      .source = 2 * static_cast<int>(work.kernel) + (backward ? 1 : 0),
                      .outside = rate.extrapolated};
    const Seconds memory = fraction * work.bytes / cluster_.device.memory_bandwidth;
    if (is_byte_rate(work.kernel)) {
        price.work = fraction * work.bytes / (rate.value * byte / second);
        price.memory_bound = true;
    } else {
        const Seconds arithmetic = fraction * work.flops / (rate.value * flop / second);
        price.work = max(arithmetic, memory);
        price.memory_bound = memory > arithmetic;
    }
    return price;
}

const RowSpread* PriceBook::spread_of(const ComputeWork& work) {
    return work.shape ? &work.shape->spread : nullptr;
}

Seconds PriceBook::kernel_time(const KernelWork& work, Pass pass, double fraction,
                               const RowSpread* spread) const {
    const KernelPrice price = price_kernel(work, pass, fraction, spread);
    return price.work + price.launch;
}

void PriceBook::note(int source, double asked, bool outside) {
    Range& range = ranges_[static_cast<std::size_t>(source)];
    range.used = true;
    if (!outside) return;
    range.lowest = range.outside == 0 ? asked : std::min(range.lowest, asked);
    range.highest = std::max(range.highest, asked);
    ++range.outside;
}

const PhaseCurve* PriceBook::phase_curve(const std::optional<PhaseShape>& shape, Pass pass) const {
    if (!shape || profile_.phases.empty()) return nullptr;
    return find_curve(profile_, *shape, pass);
}

int PriceBook::source_of(const PhaseCurve* curve) const {
    return kNumKernelSources + static_cast<int>(profile_.communication.size()) +
           static_cast<int>(curve - profile_.phases.data());
}

std::optional<Price> PriceBook::phase_price(const ComputeWork& work, Pass pass,
                                            double fraction) const {
    const PhaseCurve* curve = phase_curve(work.shape, pass);
    if (curve == nullptr) return std::nullopt;
    const double seconds = phase_seconds(*curve, scaled(*work.shape, fraction));
    Flops flops;
    Bytes bytes;
    for (int i = 0; i < work.num_kernels; ++i) {
        flops += fraction * work.kernels[static_cast<std::size_t>(i)].flops;
        bytes += fraction * work.kernels[static_cast<std::size_t>(i)].bytes;
    }
    const Device& device = cluster_.device;
    const bool fixed = !curve->terms.empty() && curve->terms.front() == Term::fixed &&
                       curve->seconds.front() > 0.5 * seconds;
    const bool memory = bytes / device.memory_bandwidth > flops / device.peak_matmul;
    return Price{.time = seconds * second,
                 .sigma = curve->residual * seconds,
                 .bottleneck = fixed    ? Bottleneck::launch
                               : memory ? Bottleneck::memory
                                        : Bottleneck::flops};
}

Seconds PriceBook::compute_time(const ComputeWork& work, Pass pass, double fraction) const {
    if (const auto whole = phase_price(work, pass, fraction)) return whole->time;
    Seconds total;
    for (int i = 0; i < work.num_kernels; ++i)
        total +=
            kernel_time(work.kernels[static_cast<std::size_t>(i)], pass, fraction, spread_of(work));
    return total;
}

Price PriceBook::compute(const ComputeWork& work, Pass pass, double weight, double fraction) {
    if (const auto whole = phase_price(work, pass, fraction)) {
        const int source = source_of(phase_curve(work.shape, pass));
        sigma_[static_cast<std::size_t>(source)] += weight * whole->sigma;
        return *whole;
    }
    Price price;
    Seconds flops, memory, launch;
    for (int i = 0; i < work.num_kernels; ++i) {
        const KernelWork& kernel = work.kernels[static_cast<std::size_t>(i)];
        const KernelPrice part = price_kernel(kernel, pass, fraction, spread_of(work));
        note(part.source, kernel.size * fraction, part.outside);
        (part.memory_bound ? memory : flops) += part.work;
        launch += part.launch;
        const double sigma = part.residual * part.work.in(second);
        sigma_[static_cast<std::size_t>(part.source)] += weight * sigma;
        price.sigma += sigma;
    }
    const double launch_sigma = profile_.overheads.residual * launch.in(second);
    sigma_.back() += weight * launch_sigma;
    price.sigma += launch_sigma;
    price.time = flops + memory + launch;
    price.bottleneck = launch > flops + memory
                           ? Bottleneck::launch
                           : (flops > memory ? Bottleneck::flops : Bottleneck::memory);
    return price;
}

int PriceBook::source_of(const TimeCurve* curve) const {
    return kNumKernelSources + static_cast<int>(curve - profile_.communication.data());
}

PathTime PriceBook::path_time(Collective collective, PathClass path, double busiest, double mean,
                              int num_ranks) const {
    const TimeCurve* curve = profile_.find(collective, path, num_ranks);
    // The spine is reached through the same NICs; without a curve of its own it is priced on
    // theirs.
    if (curve == nullptr && path == PathClass::spine)
        curve = profile_.find(collective, PathClass::nic, num_ranks);
    // Equal bus bandwidth of the three reductions is how their bus bandwidths are defined.
    if (curve == nullptr &&
        (collective == Collective::reduce_scatter || collective == Collective::all_gather)) {
        return path_time(Collective::all_reduce, path, busiest, mean, num_ranks);
    }
    if (curve == nullptr) {
        missing_curve(profile_, fmt::format("{} over {}", name(collective), name(path)),
                      "measure it with `headway calibrate --from-nccl-tests LOG`, or choose a "
                      "profile that has it");
    }
    const double bytes = busiest + curve->mean_share * (mean - busiest);
    const LookUp look_up = curve->at(bytes);
    const double measured = curve->link.in(byte / second),
                 here = link_bandwidth(cluster_, path).in(byte / second);
    const double ratio = measured > 0.0 && here > 0.0 ? measured / here : 1.0;
    const double floor = std::min(curve->floor_seconds(), look_up.value);
    return {.path = path,
            .curve = curve,
            .bytes = bytes,
            .link_ratio = ratio,
            .time = (floor + (look_up.value - floor) * ratio) * second,
            .floor = floor * second,
            .extrapolated = look_up.extrapolated && bytes > curve->bytes.back()};
}

std::vector<PathTime> PriceBook::path_times(const PathBytes& busiest, const PathBytes& mean,
                                            const PathBytes& links, int group_size) const {
    struct Load {
        double busiest, mean, link;
    };
    const auto at = [&](PathClass c) {
        const auto i = static_cast<std::size_t>(c);
        return Load{busiest[i].in(byte), mean[i].in(byte), links[i].in(byte)};
    };
    std::vector<PathTime> times;
    const auto add = [&](PathClass c, const Load& load) {
        if (load.busiest <= 0.0) return;
        PathTime t = path_time(Collective::all_to_all, c, load.busiest, load.mean, group_size);
        const Bandwidth link = link_bandwidth(cluster_, c);
        if (link > Bandwidth{}) t.bound = load.link * byte / link;
        t.time = max(t.time, t.bound);
        times.push_back(t);
    };
    for (PathClass c : {PathClass::nvlink, PathClass::pcie}) add(c, at(c));
    // Everything that leaves the node passes the NIC; what crosses the spine also shares the leaf's
    // uplinks, which are `oversubscription` times narrower.
    const Load nic = at(PathClass::nic), spine = at(PathClass::spine);
    add(PathClass::nic,
        {nic.busiest + spine.busiest, nic.mean + spine.mean, nic.link + spine.link});
    if (spine.busiest > 0.0) {
        const double squeeze = cluster_.fabric->oversubscription, narrow = std::max(1.0, squeeze);
        add(PathClass::spine, {narrow * spine.busiest, narrow * spine.mean, squeeze * spine.link});
    }
    return times;
}

Price PriceBook::exchange(const ExchangeWork& work, double weight, double fraction) {
    const auto part = [&](PathBytes bytes) {
        for (Bytes& b : bytes) b *= fraction;
        return bytes;
    };
    const auto stage = [&](const PathBytes& busiest, const PathBytes& mean,
                           const PathBytes& links) {
        PathTime slowest;
        for (const PathTime& t :
             path_times(part(busiest), part(mean), part(links), work.group_size)) {
            note(source_of(t.curve), t.bytes, t.extrapolated);
            if (t.time > slowest.time) slowest = t;
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
        if (inside.time > slowest.time) slowest = inside;
    }
    if (slowest.curve == nullptr) return {};
    const Seconds time = slowest.time + fill;
    const double sigma = slowest.curve->residual * time.in(second);
    sigma_[static_cast<std::size_t>(source_of(slowest.curve))] += weight * sigma;
    return {time, sigma, bottleneck_of(slowest.path)};
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
    double& sigma =
        curve == nullptr ? sigma_.back() : sigma_[static_cast<std::size_t>(source_of(curve))];
    sigma += weight * price.sigma;
    return price;
}

RingTime PriceBook::ring_time(const ReduceWork& work) const {
    const double n = work.group_size;
    const double passes = work.collective == Collective::all_reduce ? 2.0 : 1.0;
    const double bus_bytes = passes * work.bytes.in(byte) * (n - 1.0) / n;
    RingTime ring{.lanes = ring_lanes(cluster_, work.group_size, work.stride)};
    const PathClass farthest = ring.lanes.farthest;
    ring.bytes_of_lane = bus_bytes / ring.lanes.lanes * byte;
    const bool fabric = farthest == PathClass::nic || farthest == PathClass::spine;
    if (!fabric) {
        ring.curve = path_time(work.collective, farthest, bus_bytes, bus_bytes, work.group_size);
    } else {
        // A reduction over whole nodes uses every NIC of a node, as the all_reduce curve was
        // measured. A lone lane has only its own NIC: that is what the all-to-all curve measures
        // per rank. `crowding` is 1 when every rank has its share of the NICs.
        const double crowding = link_bandwidth(cluster_, farthest) / ring.lanes.of_lane;
        const double own = ring.bytes_of_lane.in(byte)*crowding;
        ring.curve = ring.lanes.lanes == 1
                         ? path_time(Collective::all_to_all, farthest, own, own, work.group_size)
                         : path_time(work.collective, farthest, own * cluster_.island_size(),
                                     own * cluster_.island_size(), work.group_size);
    }
    // The curve may be of a machine with more NICs.
    ring.bound = ring.bytes_of_lane / ring.lanes.of_lane;
    if (fabric && ring.lanes.inside != PathClass::self) {
        ring.bound =
            max(ring.bound, bus_bytes * byte / link_bandwidth(cluster_, ring.lanes.inside));
    }
    ring.time = max(ring.curve.time, ring.bound);
    return ring;
}

Price PriceBook::reduce(const ReduceWork& work, double weight) {
    const RingTime ring = ring_time(work);
    const PathTime& t = ring.curve;
    note(source_of(t.curve), t.bytes, t.extrapolated);
    const double sigma = t.curve->residual * ring.time.in(second);
    sigma_[static_cast<std::size_t>(source_of(t.curve))] += weight * sigma;
    return {ring.time, sigma, bottleneck_of(ring.lanes.farthest)};
}

double PriceBook::total_sigma() const {
    double variance = independent_variance_;
    for (double s : sigma_) variance += s * s;
    return std::sqrt(variance);
}

std::vector<std::string> PriceBook::warnings() const {
    std::vector<std::string> result;
    for (std::size_t i = 0; i < profile_.communication.size(); ++i) {
        const TimeCurve& curve = profile_.communication[i];
        if (!ranges_[i + std::size_t{kNumKernelSources}].used || curve.link > Bandwidth{}) continue;
        result.push_back(
            fmt::format("{} over {} ({} ranks): the profile does not say which link it was "
                        "measured on; its times are taken as those of this cluster's",
                        name(curve.collective), name(curve.path), curve.num_ranks));
    }
    for (std::size_t i = 0; i < ranges_.size(); ++i) {
        const Range& range = ranges_[i];
        if (range.outside == 0) continue;
        if (i < static_cast<std::size_t>(kNumKernelSources)) {
            const Kernel kernel = static_cast<Kernel>(i / 2);
            const RateCurve& curve = curve_of(kernel, i % 2 == 0 ? Pass::forward : Pass::backward);
            result.push_back(fmt::format(
                "{}: {} look-ups outside the measured range: size {:.4g}..{:.4g} asked, "
                "{:.4g}..{:.4g} measured, "
                "widths {:.4g}..{:.4g} measured; the nearest rate was used",
                name(kernel), range.outside, range.lowest, range.highest, curve.size.front(),
                curve.size.back(), curve.width.front(), curve.width.back()));
        } else {
            const TimeCurve& curve =
                profile_.communication[i - static_cast<std::size_t>(kNumKernelSources)];
            result.push_back(
                fmt::format("{} over {}: {} look-ups beyond the largest measured size: up to "
                            "{:.4g} bytes asked, {:.4g} measured; "
                            "the last slope was kept",
                            name(curve.collective), name(curve.path), range.outside, range.highest,
                            curve.bytes.back()));
        }
    }
    return result;
}

}  // namespace headway::inline cost
