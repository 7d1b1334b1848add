#include "models/vocab/profile.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <stdexcept>

namespace headway {
namespace {

struct Bracket {
    std::size_t low = 0, high = 0;
    double weight = 0.0;  // of high
    bool outside = false;
};

// Position of `value` between ascending grid points, linear in the logarithm; clamped outside.
Bracket bracket(const std::vector<double>& grid, double value) {
    if (grid.empty()) throw std::logic_error("profile curve without points");
    if (value <= grid.front()) return {0, 0, 0.0, value < grid.front()};
    if (value >= grid.back()) {
        const std::size_t last = grid.size() - 1;
        return {last, last, 0.0, value > grid.back()};
    }
    const auto above = std::upper_bound(grid.begin(), grid.end(), value);
    const std::size_t high = static_cast<std::size_t>(above - grid.begin());
    const std::size_t low = high - 1;
    const double weight = std::log(value / grid[low]) / std::log(grid[high] / grid[low]);
    return {low, high, weight, false};
}

}  // namespace

LookUp RateCurve::at(double size_value, double width_value) const {
    const Bracket s = bracket(size, size_value);
    // A curve measured at one width claims no dependence on it.
    const Bracket w = width.size() == 1 ? Bracket{} : bracket(width, width_value);
    const auto along_size = [&](std::size_t row) {
        const double low = rate[row * size.size() + s.low];
        const double high = rate[row * size.size() + s.high];
        return low + (high - low) * s.weight;
    };
    const double low = along_size(w.low);
    const double value = w.high == w.low ? low : low + (along_size(w.high) - low) * w.weight;
    return {value, s.outside || w.outside};
}

LookUp TimeCurve::at(double byte_count) const {
    if (bytes.empty()) throw std::logic_error("profile curve without points");
    if (byte_count <= bytes.front()) return {seconds.front(), byte_count < bytes.front()};
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

const PhaseCurve* Profile::find(LayerKind layer, Phase phase, Pass pass, int width,
                                int top_k) const {
    const PhaseCurve* best = nullptr;
    int best_distance = 0;
    for (const PhaseCurve& curve : phases) {
        if (curve.layer != layer || curve.phase != phase || curve.pass != pass) continue;
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
