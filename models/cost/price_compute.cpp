// Kernels and phases of compute.
#include "models/cost/price.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "models/cost/phase_terms.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline cost {

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
        missing_curve(fmt::format("kernel {}", name(kernel)),
                      "measure it with `headway calibrate`, or choose a profile that has it");
    }
    const std::string_view type = kDtypeNames[static_cast<std::size_t>(dtype)];
    const bool of_model = dtype == dtype_;
    missing_curve(
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
    Seconds own;
    for (std::size_t i = 0; i < kNumHostCalls; ++i) {
        if (phase.calls.values[i] == 0.0) continue;
        if (o.host_calls.values[i] == Seconds{})
            throw InputError(
                {.where = "profile " + profile_.name,
                 .found = fmt::format("no time of a call of headway's host: {}", kHostCallNames[i]),
                 .accepted = fmt::format("overheads.host_{}", kHostCallNames[i]),
                 .hint = "headway calibrate --device cuda measures it, exchanges on two GPUs or "
                         "more; or choose a profile that has it, or implementation: fused"});
        own += phase.calls.values[i] * o.host_calls.values[i];
    }
    if (phase.launches == 0.0) return own;
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
    const bool has_own =
        work.own_kernel && !profile_.kernel(*work.own_kernel, dtype_of(work)).forward.empty();
    return has_own ? *work.own_kernel : work.kernel;
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

}  // namespace headway::inline cost
