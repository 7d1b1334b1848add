#include "sim/level_filling.hpp"

#include <algorithm>

#include "sim/row_kernels.hpp"

namespace headway::sim {
namespace {

constexpr int kSaveEvery = 16;
constexpr double kNone = kNoCandidate;

}  // namespace

LevelFilling::LevelFilling(std::span<const double> capacity)
    : num_links_(static_cast<int>(capacity.size())),
      stride_((num_links_ + 2 * kRowWidth - 1) / (2 * kRowWidth) * 2 * kRowWidth) {
    const auto links = static_cast<std::size_t>(stride_);
    rows_.assign(static_cast<std::size_t>(num_links_) * links, 0);
    first_.assign(links, stride_);
    last_.assign(links, 0);
    residual_.assign(links, 0.0);
    std::ranges::copy(capacity, residual_.begin());
    unfrozen_.assign(links, 0.0);
    candidate_.assign(links, kNone);
    save();
}

void LevelFilling::save() {
    const auto slot = static_cast<std::size_t>(round_ / kSaveEvery);
    if (saved_.size() <= slot) saved_.resize(slot + 1);
    saved_[slot].residual = residual_;
    saved_[slot].unfrozen = unfrozen_;
    saved_[slot].candidate = candidate_;
    saved_[slot].level = level_;
}

void LevelFilling::add_flow(std::span<const std::uint32_t> links) {
    const auto [low, high] = std::ranges::minmax(links);
    const int first = static_cast<int>(low) / kRowWidth * kRowWidth;
    const int last = (static_cast<int>(high) / kRowWidth + 1) * kRowWidth;
    State& start = saved_.front();
    for (const std::uint32_t l : links) {
        first_[l] = std::min(first_[l], first);
        last_[l] = std::max(last_[l], last);
        start.unfrozen[l] += 1.0;
        start.candidate[l] = start.residual[l] / start.unfrozen[l];
    }
}

void LevelFilling::remove_flow(std::span<const std::uint32_t> links, int round) {
    for (int slot = 0; slot <= round / kSaveEvery; ++slot) {
        State& state = saved_[static_cast<std::size_t>(slot)];
        for (const std::uint32_t l : links) {
            state.unfrozen[l] -= 1.0;
            state.candidate[l] =
                state.unfrozen[l] > 0.0 ? state.residual[l] / state.unfrozen[l] : kNone;
        }
    }
}

int LevelFilling::rewind(int round) {
    const int slot = round / kSaveEvery;
    const State& state = saved_[static_cast<std::size_t>(slot)];
    residual_ = state.residual;
    unfrozen_ = state.unfrozen;
    candidate_ = state.candidate;
    level_ = state.level;
    return round_ = slot * kSaveEvery;
}

int LevelFilling::next_bottleneck() {
    if (round_ % kSaveEvery == 0) save();
    const int link = argmin(candidate_.data(), stride_);
    const double level = candidate_[static_cast<std::size_t>(link)];
    if (level == kNone) return -1;
    level_ = std::max(level_, level);  // rounding must not break the order
    return link;
}

void LevelFilling::freeze(std::uint32_t link) {
    freeze_row(row(link), level_, first_[link], last_[link], residual_.data(), unfrozen_.data(),
               candidate_.data());
    ++round_;
}

}  // namespace headway::sim
