#include "models/fit/fit_profile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "models/fit/phase_fit.hpp"
#include "models/fit/statistics.hpp"

namespace headway::inline fit {
namespace {

constexpr double kLeastShare = 0.2;  // of the seconds that a kernel keeps when others are taken out

// "12 samples at 4 points, 95 % interval of a point's median +-2.1 %": repeats of one point tell
// noise from shape.
std::string repeatability(const std::map<std::pair<double, double>, std::vector<double>>& points) {
    std::size_t count = 0;
    std::vector<double> widths;
    for (const auto& [point, seconds] : points) {
        count += seconds.size();
        if (seconds.size() < 3) continue;
        const MedianInterval i = bootstrap_median(seconds);
        widths.push_back((i.high - i.low) / 2.0 / median(seconds));
    }
    std::string text = fmt::format("{} samples at {} points", count, points.size());
    if (!widths.empty()) {
        text += fmt::format(", 95 % interval of a point's median +-{:.1f} % (bootstrap)",
                            100.0 * median(widths));
    }
    return text;
}

RateCurve rate_curve(Kernel kernel, const std::vector<const KernelSample*>& samples,
                     double streaming_rate, double launch, const std::string& source) {
    std::vector<RateSample> rates;
    std::map<std::pair<double, double>, std::vector<double>> points;
    const auto add = [&](const KernelSample& s, double others) {
        others += s.launches * launch;
        if (s.streamed_bytes > 0.0 && streaming_rate > 0.0)
            others += s.streamed_bytes / streaming_rate;
        const double seconds = std::max(s.seconds - others, kLeastShare * s.seconds);
        rates.push_back({s.size, s.width, s.work / seconds});
        points[{s.size, s.width}].push_back(s.seconds);
    };
    for (const KernelSample* s : samples) {
        if (s->part_work == 0.0) add(*s, 0.0);
    }
    // What a smaller part took is known from the samples that are of one part.
    const std::size_t num_whole = rates.size();
    const RateCurve whole = num_whole == 0 ? RateCurve{} : fit_rate_curve(kernel, rates, "");
    for (const KernelSample* s : samples) {
        if (s->part_work == 0.0) continue;
        add(*s,
            num_whole == 0 ? 0.0 : s->part_work / whole.at(kernel, s->part_size, s->width).value);
    }
    return fit_rate_curve(kernel, std::move(rates), source + ": " + repeatability(points));
}

void fit_kernels(const CalibrationSamples& samples, Profile& profile, const std::string& source) {
    const double launch = profile.overheads.launch.in(second);
    const auto fit = [&](Kernel kernel) {
        for (const Pass pass : {Pass::forward, Pass::backward}) {
            std::vector<const KernelSample*> of_kernel;
            for (const KernelSample& s : samples.kernels) {
                if (s.kernel == kernel && s.pass == pass) of_kernel.push_back(&s);
            }
            if (of_kernel.empty()) continue;
            // Streaming is fitted first, so its own samples have nothing taken out.
            const auto& streaming = profile.kernel(Kernel::streaming).forward;
            double streaming_rate = 0.0;
            if (kernel != Kernel::streaming && !streaming.empty())
                streaming_rate = streaming.front()
                                     .at(Kernel::streaming, of_kernel.front()->streamed_bytes, 1)
                                     .value;
            KernelCurves& of_type = profile.kernel(kernel, samples.dtype);
            auto& curves = pass == Pass::forward ? of_type.forward : of_type.backward;
            curves = {rate_curve(kernel, of_kernel, streaming_rate, launch, source)};
        }
    };
    fit(Kernel::streaming);
    for (int k = 0; k < kNumKernels; ++k) {
        if (static_cast<Kernel>(k) != Kernel::streaming) fit(static_cast<Kernel>(k));
    }
}

void fit_exchanges(const CalibrationSamples& samples, Profile& profile, const std::string& source) {
    std::map<std::tuple<Collective, PathClass, int>, std::vector<TimeSample>> groups;
    for (const ExchangeSample& s : samples.exchanges)
        groups[{s.collective, s.path, s.num_ranks}].push_back(s.sample);
    for (const auto& group : groups) {
        const auto& [collective, path, num_ranks] = group.first;
        const std::vector<TimeSample>& times = group.second;
        std::map<std::pair<double, double>, std::vector<double>> points;
        for (const TimeSample& t : times) points[{t.bytes, 0.0}].push_back(t.seconds);
        replace_curve(profile, fit_time_curve({.collective = collective,
                                               .path = path,
                                               .num_ranks = num_ranks,
                                               .link = samples.link,
                                               .source = source + ": " + repeatability(points)},
                                              times));
    }
}

// What sizes left out in turn are off the curve through the others; the ends have no neighbour.
double left_out_residual(const std::vector<RateSample>& rates) {
    constexpr double kLeast = 0.02;
    std::vector<double> errors;
    for (std::size_t i = 1; i + 1 < rates.size(); ++i) {
        std::vector<RateSample> others = rates;
        others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
        const RateCurve curve = fit_rate_curve(Kernel::streaming, std::move(others), "");
        errors.push_back(
            std::abs(rates[i].rate / curve.at(Kernel::streaming, rates[i].size, 1.0).value - 1.0));
    }
    return std::max(kLeast, ninety_percent_sigma(std::move(errors)));
}

// Rate of copies by bytes moved; a saturated memory stays as fast beyond the largest copy.
RateCurve copy_curve(std::vector<TimeSample> copies, double launch, const std::string& source) {
    constexpr double kBeyond = 68.7e9;
    std::sort(copies.begin(), copies.end(),
              [](const TimeSample& a, const TimeSample& b) { return a.bytes < b.bytes; });
    std::vector<RateSample> rates;
    for (const TimeSample& c : copies) {
        const double seconds = std::max(c.seconds - launch, kLeastShare * c.seconds);
        rates.push_back({c.bytes, 1.0, c.bytes / seconds});
    }
    const double residual = left_out_residual(rates);
    const TimeSample& largest = copies.back();
    if (largest.bytes < kBeyond) rates.push_back({kBeyond, 1.0, largest.bytes / largest.seconds});
    RateCurve curve = fit_rate_curve(Kernel::streaming, std::move(rates),
                                     source + fmt::format(": {} copies in device memory, the rate "
                                                          "of the largest held beyond it",
                                                          copies.size()));
    curve.residual = residual;
    return curve;
}

// In the place of the profile's own of the same phase, whatever their widths and k.
void replace_phases(std::vector<PhaseCurve> curves, Profile& profile) {
    std::erase_if(profile.phases, [&](const PhaseCurve& old) {
        return std::any_of(curves.begin(), curves.end(), [&](const PhaseCurve& c) {
            return c.layer == old.layer && c.phase == old.phase && c.pass == old.pass &&
                   c.dtype == old.dtype;
        });
    });
    for (PhaseCurve& c : curves) profile.phases.push_back(std::move(c));
}

// dy / dx of points (x, y), by least squares.
double slope(const std::vector<std::pair<double, double>>& points) {
    double a = 0.0, b = 0.0, aa = 0.0, ab = 0.0;
    const auto n = static_cast<double>(points.size());
    for (const auto& [x, y] : points) {
        a += x / n;
        b += y / n;
    }
    for (const auto& [x, y] : points) {
        aa += (x - a) * (x - a);
        ab += (x - a) * (y - b);
    }
    return aa > 0.0 ? ab / aa : 0.0;
}

void fit_host(const CalibrationSamples& samples, Overheads& o, const std::string& source) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < kNumHostCalls; ++i) {
        const std::vector<double>& times = samples.host_calls.values[i];
        if (times.empty()) continue;
        const double middle = median(times);
        o.host_calls.values[i] = middle * second;
        for (const double t : times) ratios.push_back(middle > 0.0 ? t / middle : 1.0);
    }
    if (ratios.empty()) return;
    o.host_residual = robust_spread(ratios);
    o.source = source;
}

// Beside reductions, experts e take b_i where the reduction alone takes r_i and begins a moment
// before them. They take at most s = max b_i / e times their time. Where r_i is so short that a
// kernel of them is still slowed when it ends, b_i = e + loss (r_i - moment): the slope of a line.
// GEMMs beside an exchange tell the slowdown where there are no experts.
void fit_overlap(const CalibrationSamples& samples, Overheads& o, const std::string& source) {
    if (!samples.overlap_slowdown.empty()) {
        o.overlap_slowdown = std::max(1.0, median(samples.overlap_slowdown));
        o.overlap_loss = 0.0;
        o.source = source;
    }
    if (samples.experts <= 0.0 || samples.beside.empty()) return;
    double most = 1.0;
    for (const BesideSample& b : samples.beside) most = std::max(most, b.experts / samples.experts);
    std::vector<std::pair<double, double>> shown;
    for (const BesideSample& b : samples.beside) {
        const bool is_short = b.reduction < 0.5 * samples.experts && b.experts > samples.experts;
        if (b.reduction > 0.0 && is_short)
            shown.emplace_back(b.reduction, b.experts - samples.experts);
    }
    o.overlap_slowdown = most;
    o.overlap_loss = shown.size() < 2 ? 0.0 : std::clamp(slope(shown), 0.0, 1.0);
    o.source = source;
}

}  // namespace

Profile fit_profile(const CalibrationSamples& samples, Profile base, const std::string& source) {
    Overheads& o = base.overheads;
    if (!samples.launch.empty()) {
        o.launch = median(samples.launch) * second;
        o.source = source;
    }
    if (!samples.host_sync.empty()) {
        o.host_sync = median(samples.host_sync) * second;
        o.source = source;
    }
    fit_host(samples, o, source);
    fit_overlap(samples, o, source);
    if (!samples.copies.empty()) {
        base.kernel(Kernel::streaming).forward = {
            copy_curve(samples.copies, o.launch.in(second), source)};
    }
    if (!samples.gemms.empty()) {
        std::vector<const KernelSample*> gemms;
        for (const KernelSample& s : samples.gemms) gemms.push_back(&s);
        KernelCurves& curves = base.kernel(Kernel::dense_gemm, samples.dtype);
        curves.forward = {rate_curve(Kernel::dense_gemm, gemms, 0.0, o.launch.in(second), source)};
        curves.backward.clear();
    }
    if (!samples.count_exchange.empty()) {
        // What is measured is the exchange and the host's wait for it.
        const double middle = median(samples.count_exchange);
        o.count_exchange = std::max(0.0, middle - o.host_sync.in(second)) * second;
        std::vector<double> ratios;
        for (const double t : samples.count_exchange) ratios.push_back(t / middle);
        o.residual = robust_spread(ratios);
        o.source = source;
    }
    const auto of_type = [&](std::vector<PhaseCurve> curves) {
        for (PhaseCurve& c : curves) c.dtype = rate_type(samples.dtype);
        return curves;
    };
    if (samples.num_multiprocessors > 0) {
        base.phases = of_type(fit_phases(samples.phases, samples.num_multiprocessors, source));
    } else {
        fit_kernels(samples, base, source);
        replace_phases(of_type(fit_row_movers(samples.phases, source)), base);
    }
    fit_exchanges(samples, base, source);
    return base;
}

}  // namespace headway::inline fit
