#include "models/cost/price.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "models/cost/phase_terms.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/links.hpp"
#include "models/workload/link_load.hpp"

namespace headway::inline cost {
namespace {

constexpr std::size_t kNumKernelSources = 2 * kNumKernels * kNumDtypes;

[[noreturn]] void missing_curve(const Profile& profile, const std::string& what,
                                const std::string& hint) {
    throw MissingCurve(
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
        case PathClass::core:
            return Bottleneck::core;
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

DeviceScale device_scale(const Profile& profile, const Device& device) {
    const Provenance& p = profile.provenance;
    if (!contradicts(p.device, device.name)) return {};
    const auto ratio = [](auto here, auto measured) {
        const bool known = here > decltype(here){} && measured > decltype(measured){};
        return known ? std::min(1.0, here / measured) : 1.0;
    };
    return {ratio(device.peak_matmul, p.peak_matmul),
            ratio(device.memory_bandwidth, p.memory_bandwidth)};
}

PriceBook::PriceBook(const Profile& profile, const Cluster& cluster, Dtype dtype)
    : profile_(profile),
      cluster_(cluster),
      dtype_(dtype),
      scale_(device_scale(profile, cluster.device)),
      added_(cluster),
      accounts_(kNumKernelSources + profile.communication.size() + profile.phases.size() + 1) {}

std::size_t PriceBook::index_of(const Source& source) const {
    const std::size_t num_times = profile_.communication.size();
    if (const auto* kernel = std::get_if<KernelSource>(&source))
        return 2 * (kNumDtypes * static_cast<std::size_t>(kernel->kernel) +
                    static_cast<std::size_t>(kernel->dtype)) +
               (kernel->pass == Pass::backward);
    if (const auto* curve = std::get_if<const TimeCurve*>(&source))
        return kNumKernelSources + static_cast<std::size_t>(*curve - profile_.communication.data());
    if (const auto* curve = std::get_if<const PhaseCurve*>(&source))
        return kNumKernelSources + num_times +
               static_cast<std::size_t>(*curve - profile_.phases.data());
    return accounts_.size() - 1;
}

PriceBook::Source PriceBook::source_at(std::size_t index) const {
    if (index < kNumKernelSources) {
        const std::size_t curve = index / 2;
        return KernelSource{static_cast<Kernel>(curve / kNumDtypes),
                            static_cast<Dtype>(curve % kNumDtypes),
                            index % 2 == 0 ? Pass::forward : Pass::backward};
    }
    index -= kNumKernelSources;
    if (index < profile_.communication.size()) return &profile_.communication[index];
    index -= profile_.communication.size();
    if (index < profile_.phases.size()) return &profile_.phases[index];
    return std::monostate{};
}

const RateCurve& PriceBook::curve_of(Kernel kernel, Dtype dtype, Pass pass) const {
    const KernelCurves& curves = profile_.kernel(kernel, dtype);
    if (pass == Pass::backward && !curves.backward.empty()) return curves.backward.front();
    if (!curves.forward.empty()) return curves.forward.front();
    std::vector<std::string_view> types;
    for (int i = 0; i < kNumDtypes; ++i) {
        const auto type = static_cast<Dtype>(i);
        if (rate_type(type) == type && !profile_.kernel(kernel, type).forward.empty())
            types.push_back(kDtypeNames[static_cast<std::size_t>(i)]);
    }
    if (types.empty() || is_byte_rate(kernel)) {
        missing_curve(profile_, fmt::format("kernel {}", name(kernel)),
                      "measure it with `headway calibrate`, or choose a profile that has it");
    }
    const std::string_view type = kDtypeNames[static_cast<std::size_t>(dtype)];
    const bool of_model = dtype == dtype_;
    missing_curve(
        profile_,
        fmt::format("kernel {} in {}, {}; the profile has {}", name(kernel), type,
                    of_model ? "the model's dtype" : "by the plan's precision",
                    fmt::join(types, ", ")),
        fmt::format("{2}, or add the rates of {0} as kernels.{1}.{0}{3}", type, name(kernel),
                    of_model ? "set model.dtype to one that it has"
                             : "set precision.recipe to one that it has (precision.experts: false "
                               "leaves the experts out)",
                    of_model ? fmt::format(": `headway calibrate` measures those of a scenario "
                                           "whose dtype is {} on a CPU",
                                           type)
                             : ""));
}

Seconds PriceBook::launch_time(const PhaseWork& phase) const {
    const Overheads& o = profile_.overheads;
    if (phase.is_of_own_host()) {
        if (o.host_kernel > Seconds{} && o.host_exchange > Seconds{})
            return phase.kernels * o.host_kernel + phase.exchanges * o.host_exchange;
        throw InputError(
            {.where = "profile " + profile_.name,
             .found = "no time that headway's host takes to enqueue kernels and exchanges",
             .accepted = "overheads.host_kernel and overheads.host_exchange",
             .hint = "headway calibrate --device cuda measures them on two GPUs or more; or choose "
                     "a profile that has them, or implementation: fused"});
    }
    if (phase.launches == 0.0) return {};
    if (o.host_launch > Seconds{}) return phase.launches * o.host_launch;
    throw InputError(
        {.where = "profile " + profile_.name,
         .found = "no time of an operation of an eager host",
         .accepted = "overheads.host_launch",
         .hint = "state it, or choose a profile that has it, or implementation: fused"});
}

FlopRate PriceBook::peak(Dtype dtype) const {
    const FlopRate peak = cluster_.device.peak(dtype);
    if (peak > FlopRate{}) return peak;
    const std::string_view type = kDtypeNames[static_cast<std::size_t>(peak_type(dtype))];
    throw InputError({.where = "cluster.device",
                      .found = fmt::format("no peak for {}, {}", type,
                                           dtype == dtype_ ? "the model's dtype"
                                                           : "which the plan's precision needs"),
                      .accepted = fmt::format("peaks: {{{}: ...}} from its datasheet", type)});
}

Kernel PriceBook::kernel_of(const KernelWork& work) const {
    const bool joined = work.joins_gelu &&
                        !profile_.kernel(Kernel::grouped_gemm_gelu, dtype_of(work)).forward.empty();
    return joined ? Kernel::grouped_gemm_gelu : work.kernel;
}

bool PriceBook::is_joined(const KernelWork& work) const {
    return is_byte_rate(work.kernel) && kernel_of(work) != work.kernel;
}

KernelRate PriceBook::rate_of(const KernelWork& work, Pass pass, double fraction,
                              const RowSpread* spread) const {
    const Dtype dtype = dtype_of(work);
    const Kernel kernel = kernel_of(work);
    KernelRate rate{.curve = &curve_of(kernel, dtype, pass)};
    rate.own_backward = pass == Pass::backward && !profile_.kernel(kernel, dtype).backward.empty();
    const LookUp look_up = rate.curve->at(kernel, work.size * fraction, work.width, work.inner);
    const bool bytes = is_byte_rate(work.kernel);
    const double limit =
        bytes ? cluster_.device.memory_bandwidth.in(byte / second) : peak(dtype).in(flop / second);
    rate.scale = bytes ? scale_.memory : scale_.matmul;
    rate.outside = look_up.extrapolated;
    const double value =
        uneven_rate(*rate.curve, work, work.size * fraction, look_up.value, spread);
    rate.capped = rate.scale * value > limit;
    rate.value = std::min(rate.scale * value, limit);
    return rate;
}

// Experts of unequal sizes each run at the rate of their own rows: the mean of the time a FLOP.
double PriceBook::uneven_rate(const RateCurve& curve, const KernelWork& work, double size,
                              double even, const RowSpread* spread) {
    const bool experts = work.kernel == Kernel::grouped_gemm || work.kernel == Kernel::fused_expert;
    if (!experts || spread == nullptr || spread->num_parts == 0) return even;
    double time = 0.0;
    for (int i = 0; i < spread->num_parts; ++i) {
        const RowSpread::Part& part = spread->parts[static_cast<std::size_t>(i)];
        const double rows = std::max(1.0, size * part.size);
        time += part.share / curve.at(work.kernel, rows, work.width, work.inner).value;
    }
    return std::min(even, 1.0 / time);
}

// A kernel's arithmetic or, where that takes longer, its bytes: of backward through weights each
// half by itself.
struct PriceBook::Halves {
    Seconds inputs, weights;
};

PriceBook::Halves PriceBook::halves(const KernelWork& work, Seconds arithmetic,
                                    double fraction) const {
    const auto moved = [&](Bytes bytes) {
        return fraction * bytes / cluster_.device.memory_bandwidth;
    };
    if (!(work.weight_bytes > Bytes{})) return {max(arithmetic, moved(work.bytes)), {}};
    return {max(0.5 * arithmetic, moved(work.bytes - work.weight_bytes)),
            max(0.5 * arithmetic, moved(work.weight_bytes))};
}

PriceBook::KernelPrice PriceBook::price_kernel(const KernelWork& work, Pass pass, double fraction,
                                               const RowSpread* spread) const {
    const KernelRate rate = rate_of(work, pass, fraction, spread);
    KernelPrice price{.launch = work.launches * profile_.overheads.launch,
                      .rate = rate,
                      .source = {kernel_of(work), dtype_of(work),
                                 rate.own_backward ? Pass::backward : Pass::forward}};
    if (is_byte_rate(work.kernel)) {
        price.work = fraction * work.bytes / (rate.value * byte / second);
        price.memory_bound = true;
    } else {
        const Seconds arithmetic = fraction * work.flops / (rate.value * flop / second);
        const Halves least = halves(work, arithmetic, fraction);
        price.work = least.inputs + least.weights;
        price.memory_bound = price.work > arithmetic;
    }
    price.work = work.stretch * price.work;
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

void PriceBook::note(const Source& source, double asked, bool outside, std::string_view what) {
    Account& a = account(source);
    a.used = true;
    if (!outside) return;
    if (a.outside == 0) a.what = what;
    if (a.what == what) {
        a.lowest = a.outside == 0 ? asked : std::min(a.lowest, asked);
        a.highest = a.outside == 0 ? asked : std::max(a.highest, asked);
    }
    ++a.outside;
}

// Counted once a look-up; named by the first quantity that is outside.
void PriceBook::note_shape(const PhaseCurve& curve, const PhaseShape& shape) {
    const std::optional<Asked> asked = outside(curve, shape);
    if (!asked) return;
    note(&curve, asked->value, true, asked->what);
    account(&curve).measured = asked->measured;
}

const PhaseCurve* PriceBook::phase_curve(const std::optional<PhaseShape>& shape, Pass pass) const {
    if (!shape || profile_.phases.empty()) return nullptr;
    return find_curve(profile_, *shape, pass);
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
    const Seconds arithmetic = flops / peak(dtype_),
                  moved = bytes / cluster_.device.memory_bandwidth;
    const bool fixed = !curve->terms.empty() && curve->terms.front() == Term::fixed &&
                       curve->seconds.front() > 0.5 * seconds;
    const bool memory = moved > arithmetic;
    const double scale = fixed ? 1.0 : memory ? scale_.memory : scale_.matmul;
    const Seconds added = fraction * added_time(work);
    // What a phase reads may lie in a cache, so memory sets no bound to what was measured whole.
    return Price{.time = max(seconds / scale * second, arithmetic) + added,
                 .sigma = curve->residual * (seconds / scale + added.in(second)),
                 .bottleneck = fixed    ? Bottleneck::launch
                               : memory ? Bottleneck::memory
                                        : Bottleneck::flops};
}

Seconds PriceBook::added_time(const ComputeWork& work) const {
    if (!(work.added_to > Bytes{})) return {};
    const RateCurve& copies = curve_of(Kernel::streaming, dtype_, Pass::forward);
    const double rate =
        scale_.memory * copies.at(Kernel::streaming, work.added_to.in(byte), 1.0).value;
    return work.added_to / (rate * byte / second);
}

Seconds PriceBook::compute_time(const ComputeWork& work, Pass pass, double fraction) const {
    if (const auto whole = phase_price(work, pass, fraction)) return whole->time;
    Seconds total;
    for (int i = 0; i < work.num_kernels; ++i) {
        const KernelWork& kernel = work.kernels[static_cast<std::size_t>(i)];
        if (!is_joined(kernel)) total += kernel_time(kernel, pass, fraction, spread_of(work));
    }
    return total;
}

Price PriceBook::compute(const ComputeWork& work, Pass pass, double weight, double fraction) {
    if (const auto whole = phase_price(work, pass, fraction)) {
        const PhaseCurve* curve = phase_curve(work.shape, pass);
        account(curve).sigma += weight * whole->sigma;
        note_shape(*curve, scaled(*work.shape, fraction));
        return *whole;
    }
    Price price;
    Seconds flops, memory, launch;
    for (int i = 0; i < work.num_kernels; ++i) {
        const KernelWork& kernel = work.kernels[static_cast<std::size_t>(i)];
        if (is_joined(kernel)) continue;
        const KernelPrice part = price_kernel(kernel, pass, fraction, spread_of(work));
        note(part.source, kernel.size * fraction, part.rate.outside);
        account(part.source).capped += part.rate.capped ? 1 : 0;
        (part.memory_bound ? memory : flops) += part.work;
        launch += part.launch;
        const double sigma = part.rate.curve->residual * part.work.in(second);
        account(part.source).sigma += weight * sigma;
        price.sigma += sigma;
    }
    const double launch_sigma = profile_.overheads.residual * launch.in(second);
    account({}).sigma += weight * launch_sigma;
    price.sigma += launch_sigma;
    price.time = flops + memory + launch;
    price.bottleneck = launch > flops + memory
                           ? Bottleneck::launch
                           : (flops > memory ? Bottleneck::flops : Bottleneck::memory);
    return price;
}

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
        missing_curve(profile_, fmt::format("{} over {}", name(collective), name(path)),
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
        const Load load = from(tier.path);
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
    const auto stage = [&](const PathBytes& busiest, const PathBytes& mean,
                           const PathBytes& links) {
        PathTime slowest;
        for (const PathTime& t : path_times(part(busiest), part(mean), part(links), work.group_size,
                                            Collective::all_to_all, work.stride)) {
            note(t.curve, t.bytes, t.extrapolated);
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
    return {time, sigma, bottleneck_of(slowest.path)};
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
    if (fabric && inside == PathClass::nvlink && cluster_.has_pairwise_links()) {
        // Lanes cross an island by paths that share no link, where their number is even.
        const double on_a_link = ring.lanes.lanes % 2 == 0 ? 1.0 : 2.0;
        ring.bound =
            max(ring.bound, on_a_link * (cluster_.nvlink->domain - 1) * ring.bytes_of_lane /
                                (least_link_factor(cluster_, inside) * of_member));
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
    return {ring.time + ring.added, sigma, bottleneck_of(ring.lanes.farthest)};
}

Price PriceBook::message(PathClass path, Bytes bytes, double weight) {
    PathBytes sent{};
    sent[static_cast<std::size_t>(path)] = bytes;
    PathBytes on_link = sent;
    if (path == PathClass::nvlink)
        on_link[static_cast<std::size_t>(path)] *= mesh_squeeze(cluster_, 2);
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

double PriceBook::weight_gradient_share(const PhaseWork& phase) const {
    const auto* work = std::get_if<ComputeWork>(&phase.work);
    if (work == nullptr || phase.pass != Pass::backward || phase.again) return 0.0;
    Seconds weights, all;
    for (int i = 0; i < work->num_kernels; ++i) {
        const KernelWork& kernel = work->kernels[static_cast<std::size_t>(i)];
        const Halves least = halves(kernel, kernel.flops / peak(dtype_of(kernel)), 1.0);
        all += least.inputs + least.weights;
        const bool half = !(kernel.weight_bytes > Bytes{}) && !is_byte_rate(kernel.kernel) &&
                          kernel.kernel != Kernel::attention;
        weights += half ? 0.5 * least.inputs : least.weights;
    }
    return all > Seconds{} ? weights / all : 0.0;
}

std::vector<double> PriceBook::sigma_by_curve() const {
    std::vector<double> sigmas;
    for (const Account& a : accounts_) sigmas.push_back(a.sigma);
    return sigmas;
}

double PriceBook::total_sigma() const {
    double variance = independent_variance_;
    for (const Account& a : accounts_) variance += a.sigma * a.sigma;
    return std::sqrt(variance);
}

// What the size of a kernel counts (vocab/profile.hpp).
static std::string_view size_unit(Kernel kernel) {
    switch (kernel) {
        case Kernel::dense_gemm:
            return "FLOPs";
        case Kernel::grouped_gemm:
        case Kernel::grouped_gemm_gelu:
        case Kernel::fused_expert:
            return "rows an expert";
        case Kernel::attention:
            return "tokens of a sequence";
        case Kernel::router:
            return "tokens";
        default:
            return "bytes";
    }
}

std::string PriceBook::warning_of(KernelSource source, const Account& a) const {
    const RateCurve& curve = curve_of(source.kernel, source.dtype, source.pass);
    const std::string_view type = kDtypeNames[static_cast<std::size_t>(source.dtype)];
    const std::string what =
        fmt::format("{} ({}{})", name(source.kernel),
                    source.dtype == dtype_ ? "" : fmt::format("{}, ", type), name(source.pass));
    std::string text;
    if (a.outside > 0) {
        text = fmt::format(
            "{}: {} look-ups outside the measured range: {:.4g}..{:.4g} {} asked, "
            "{:.4g}..{:.4g} measured, "
            "widths {:.4g}..{:.4g} measured; the nearest rate was used",
            what, a.outside, a.lowest, a.highest, size_unit(source.kernel), curve.size.front(),
            curve.size.back(), curve.width.front(), curve.width.back());
    }
    if (a.capped > 0) {
        text += fmt::format(
            "{}: {} look-ups above what {} can do, which was used instead: is the profile of "
            "another device ({})?",
            text.empty() ? what : "; and", a.capped, cluster_.device.name,
            profile_.provenance.device);
    }
    return text;
}

std::string PriceBook::warning_of(const TimeCurve& curve, const Account& a) const {
    const std::string what = fmt::format("{} over {}", name(curve.collective), name(curve.path));
    if (a.highest <= curve.bytes.front()) {
        return fmt::format(
            "{}: {} look-ups below the smallest measured size: down to {:.4g} bytes asked, {:.4g} "
            "measured; {}",
            what, a.outside, a.lowest, curve.bytes.front(),
            curve.bytes.size() == 1 ? "its bandwidth was kept, without a latency"
                                    : "the first slope was kept");
    }
    return fmt::format(
        "{}: {} look-ups beyond the largest measured size: up to {:.4g} bytes asked, {:.4g} "
        "measured; the last slope was kept",
        what, a.outside, a.highest, curve.bytes.back());
}

std::string PriceBook::warning_of(const PhaseCurve& curve, const Account& a) const {
    return fmt::format(
        "phase {} {} ({}): {} look-ups outside the measured layers: {} {:.6g}..{:.6g} asked, "
        "{:.6g}..{:.6g} measured; its terms were used beyond them",
        name(curve.phase), name(curve.pass), kLayerKindNames[static_cast<std::size_t>(curve.layer)],
        a.outside, a.what, a.lowest, a.highest, a.measured.least, a.measured.most);
}

std::vector<std::string> PriceBook::warnings() const {
    std::vector<std::string> result;
    for (const TimeCurve& curve : profile_.communication) {
        if (!accounts_[index_of(&curve)].used || curve.link > Bandwidth{}) continue;
        result.push_back(
            fmt::format("{} over {} ({} ranks): the profile does not say which link it was "
                        "measured on; its times are taken as those of this cluster's",
                        name(curve.collective), name(curve.path), curve.num_ranks));
    }
    for (std::size_t i = 0; i < accounts_.size(); ++i) {
        const Account& a = accounts_[i];
        if (a.outside == 0 && a.capped == 0) continue;
        const Source source = source_at(i);
        if (const auto* kernel = std::get_if<KernelSource>(&source))
            result.push_back(warning_of(*kernel, a));
        else if (const auto* time = std::get_if<const TimeCurve*>(&source))
            result.push_back(warning_of(**time, a));
        else if (const auto* phase = std::get_if<const PhaseCurve*>(&source))
            result.push_back(warning_of(**phase, a));
    }
    return result;
}

}  // namespace headway::inline cost
