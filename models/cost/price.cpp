#include "models/cost/price.hpp"

#include <algorithm>
#include <cmath>

#include "models/cost/phase_terms.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/quantile.hpp"

namespace headway::inline cost {
namespace {

constexpr std::size_t kNumKernelSources = 2 * kNumKernels * kNumDtypes;

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
      accounts_(kNumKernelSources + profile.communication.size() + profile.phases.size() + 3) {}

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
    if (const auto* host = std::get_if<HostSource>(&source))
        return accounts_.size() - 3 + static_cast<std::size_t>(*host);
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
    index -= profile_.phases.size();
    if (index < 2) return static_cast<HostSource>(index);
    return std::monostate{};
}

void PriceBook::missing_curve(const std::string& what, const std::string& hint) const {
    throw MissingCurve(
        {.where = "profile " + profile_.name, .found = "no curve for " + what, .hint = hint});
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

}  // namespace headway::inline cost
