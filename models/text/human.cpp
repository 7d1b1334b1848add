#include "models/text/human.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string_view>

namespace headway::inline texts {
namespace {

struct Step {
    double size;
    std::string_view unit;
};

// The largest step that the value reaches once it is rounded, so that 999.96 ms is "1.00 s" and
// not "1000 ms".
template <std::size_t N>
std::string scaled(double value, const std::array<Step, N>& steps) {
    if (!std::isfinite(value)) return fmt::format("{}", value);
    if (value == 0.0) return fmt::format("0 {}", steps[0].unit);
    std::size_t i = 0;
    while (i + 1 < N && std::abs(value) >= 0.9995 * steps[i + 1].size) ++i;
    return fmt::format("{} {}", significant(value / steps[i].size), steps[i].unit);
}

constexpr std::array<Step, 5> kDecimal = {
    {{1.0, ""}, {1e3, "K"}, {1e6, "M"}, {1e9, "G"}, {1e12, "T"}}};

}  // namespace

std::string significant(double value, int digits) {
    if (!std::isfinite(value) || value == 0.0) return fmt::format("{:g}", value);
    const double rounded = std::stod(fmt::format("{:.{}e}", value, digits - 1));
    const int magnitude = static_cast<int>(std::floor(std::log10(std::abs(rounded))));
    return fmt::format("{:.{}f}", rounded, std::max(0, digits - 1 - magnitude));
}

std::string human(Seconds time) {
    static constexpr std::array<Step, 4> kSteps = {
        {{1e-9, "ns"}, {1e-6, "us"}, {1e-3, "ms"}, {1.0, "s"}}};
    return scaled(time.in(second), kSteps);
}

std::string human(Bytes bytes) {
    static constexpr std::array<Step, 5> kSteps = {{{1.0, "B"},
                                                    {KiB.in(byte), "KiB"},
                                                    {MiB.in(byte), "MiB"},
                                                    {GiB.in(byte), "GiB"},
                                                    {TiB.in(byte), "TiB"}}};
    return scaled(bytes.in(byte), kSteps);
}

std::string clipped(const std::string& text, std::size_t width) {
    if (text.size() <= width) return text;
    const std::size_t tail = (width - 1) / 2, head = width - 1 - tail;
    return text.substr(0, head) + "~" + text.substr(text.size() - tail);
}

std::string human_count(double count) {
    static constexpr std::array<Step, 5> kSteps = {
        {{1.0, ""}, {1e3, "K"}, {1e6, "M"}, {1e9, "B"}, {1e12, "T"}}};
    std::string text = scaled(count, kSteps);
    while (text.ends_with(' ')) text.pop_back();
    return text;
}

std::string human(FlopRate rate) {
    return scaled(rate.in(flop / second), kDecimal) + "FLOP/s";
}

std::string human(Flops work) {
    return scaled(work.in(flop), kDecimal) + "FLOP";
}

std::string human(Bandwidth bandwidth) {
    return scaled(bandwidth.in(byte / second), kDecimal) + "B/s";
}

std::string grouped(double value) {
    if (!std::isfinite(value)) return fmt::format("{}", value);
    const std::string digits = fmt::format("{:.0f}", std::abs(value));
    std::string text(value < 0.0 && digits != "0" ? 1 : 0, '-');
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
        text += digits[i];
    }
    return text;
}

std::string signed_percent(double ratio) {
    return fmt::format("{:+.1f} %", 100.0 * ratio);
}

}  // namespace headway::inline texts
