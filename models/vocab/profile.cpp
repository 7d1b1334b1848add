#include "models/vocab/profile.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <stdexcept>

namespace headway {
namespace {

// Position of `value` between ascending grid points, linear; held at the ends.
struct Bracket {
    std::size_t low = 0, high = 0;
    double weight = 0.0;  // of high
    bool outside = false;
};

Bracket bracket(const std::vector<double>& grid, double value) {
    if (grid.empty()) throw std::logic_error("profile curve without points");
    if (value <= grid.front()) return {0, 0, 0.0, value < grid.front()};
    const std::size_t last = grid.size() - 1;
    if (value >= grid.back()) return {last, last, 0.0, value > grid.back()};
    const auto above = std::upper_bound(grid.begin(), grid.end(), value);
    const std::size_t high = static_cast<std::size_t>(above - grid.begin()), low = high - 1;
    return {low, high, (value - grid[low]) / (grid[high] - grid[low]), false};
}

// Beyond its ends an axis keeps the rate: the time grows with the axis.
double held(const std::vector<double>& grid, double value) {
    return value / std::clamp(value, grid.front(), grid.back());
}

// size / rate at `value` of the row of rates at `rates`, that never falls with size.
double row_time(const std::vector<double>& size, const double* rates, double value) {
    const Bracket b = bracket(size, value);
    double low = 0.0;
    for (std::size_t i = 0; i <= b.low; ++i) low = std::max(low, size[i] / rates[i]);
    const double high = std::max(low, size[b.high] / rates[b.high]);
    return (low + (high - low) * b.weight) * held(size, value);
}

// Along an axis of `grid`: a line between neighbours of `time`, [index], raised so that it never
// falls.
template <class Time>
double along(const std::vector<double>& grid, double value, Time time) {
    const Bracket b = bracket(grid, value);
    double low = 0.0;
    for (std::size_t i = 0; i <= b.low; ++i) low = std::max(low, time(i));
    const double high = b.high == b.low ? low : std::max(low, time(b.high));
    return (low + (high - low) * b.weight) * held(grid, value);
}

}  // namespace

// With size, width and inner as the sides of the work, t = size width inner / rate is looked up.
// The size of a dense GEMM is its whole work already: its other sides are size / width.
LookUp RateCurve::at(Kernel kernel, double size_value, double width_value,
                     double inner_value) const {
    // Tiles of queries and keys: below the first size an attention core takes the time of a token
    // there. Measured down to a half of it (docs/reference/validation_method.md).
    if (kernel == Kernel::attention && size_value < size.front()) {
        const double share = size_value / size.front();
        const LookUp first = at(kernel, size.front(), width_value, inner_value);
        return {share * first.value, first.extrapolated || share < 0.25};
    }
    const bool has_width = width.size() > 1, has_inner = inner.size() > 1;
    const bool whole = kernel == Kernel::dense_gemm && has_width;
    const double side = whole ? size_value / width_value : size_value;
    const auto row = [&](std::size_t block, std::size_t w) {
        const double* rates = rate.data() + (block * width.size() + w) * size.size();
        if (!has_width) return row_time(size, rates, size_value);
        return whole ? row_time(size, rates, side * width[w])
                     : width[w] * row_time(size, rates, side);
    };
    const auto block_time = [&](std::size_t block) {
        if (!has_width) return row(block, 0);
        return along(width, width_value, [&](std::size_t w) { return row(block, w); });
    };
    const double time = has_inner ? along(inner, inner_value,
                                          [&](std::size_t i) { return inner[i] * block_time(i); })
                                  : block_time(0);
    const double work = (whole || !has_width ? size_value : size_value * width_value) *
                        (has_inner ? inner_value : 1.0);
    const auto outside = [](const std::vector<double>& grid, double value) {
        return value < grid.front() || value > grid.back();
    };
    return {work / time, outside(size, size_value) || (has_width && outside(width, width_value)) ||
                             (has_inner && outside(inner, inner_value))};
}

namespace {

// Seconds a byte below the smallest size: not more than all that the size took.
double first_slope(const TimeCurve& curve) {
    const double whole = curve.seconds.front() / curve.bytes.front();
    if (curve.bytes.size() == 1) return whole;
    return std::min(whole,
                    (curve.seconds[1] - curve.seconds[0]) / (curve.bytes[1] - curve.bytes[0]));
}

}  // namespace

double TimeCurve::floor_seconds() const {
    if (bytes.front() <= 0.0) return seconds.front();
    return seconds.front() - first_slope(*this) * bytes.front();
}

LookUp TimeCurve::at(double byte_count) const {
    if (bytes.empty()) throw std::logic_error("profile curve without points");
    if (byte_count <= bytes.front()) {
        if (byte_count == bytes.front()) return {seconds.front(), false};
        const double floor = floor_seconds();
        return {floor + (seconds.front() - floor) * byte_count / bytes.front(),
                floor < 0.5 * seconds.front()};
    }
    if (bytes.size() == 1) return {seconds.front() * byte_count / bytes.front(), true};
    const auto above = std::upper_bound(bytes.begin(), bytes.end(), byte_count);
    const bool outside = byte_count > bytes.back();
    const std::size_t high =
        above == bytes.end() ? bytes.size() - 1 : static_cast<std::size_t>(above - bytes.begin());
    const std::size_t low = high - 1;
    const double slope = (seconds[high] - seconds[low]) / (bytes[high] - bytes[low]);
    return {seconds[low] + slope * (byte_count - bytes[low]), outside};
}

const TimeCurve* Profile::find(Collective collective, PathClass path, int num_ranks) const {
    const TimeCurve* best = nullptr;
    double best_distance = 0.0;
    for (const TimeCurve& curve : communication) {
        if (curve.collective != collective || curve.path != path) continue;
        const double distance =
            std::abs(std::log(static_cast<double>(curve.num_ranks) / num_ranks));
        if (best == nullptr || distance < best_distance) {
            best = &curve;
            best_distance = distance;
        }
    }
    return best;
}

const PhaseCurve* Profile::find(LayerKind layer, Phase phase, Pass pass, Dtype type, int width,
                                int top_k) const {
    const PhaseCurve* best = nullptr;
    int best_distance = 0;
    for (const PhaseCurve& curve : phases) {
        if (curve.layer != layer || curve.phase != phase || curve.pass != pass ||
            curve.dtype != rate_type(type))
            continue;
        if (curve.width != 0 && curve.width != width) continue;
        const int distance = std::max({0, curve.min_top_k - top_k, top_k - curve.max_top_k});
        if (best == nullptr || distance < best_distance) {
            best = &curve;
            best_distance = distance;
        }
    }
    return best;
}

namespace {

bool names_gpu(std::string_view device) {
    constexpr std::string_view kOfGpus[] = {"NVIDIA", "GeForce", "Tesla", "Instinct", "GPU"};
    return std::any_of(std::begin(kOfGpus), std::end(kOfGpus), [&](std::string_view word) {
        return device.find(word) != std::string_view::npos;
    });
}

}  // namespace

bool contradicts(std::string_view measured, std::string_view described) {
    const auto is_kind = [](std::string_view device) { return device == "CPU" || device == "GPU"; };
    if (is_kind(measured) || is_kind(described)) return names_gpu(measured) != names_gpu(described);
    return measured != described;
}

}  // namespace headway
