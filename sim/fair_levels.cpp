#include "sim/fair_levels.hpp"

#include <algorithm>
#include <limits>

#include "sim/row_kernels.hpp"

namespace headway::sim {

FairLevels::FairLevels(std::span<const double> capacity)
    : stride_((static_cast<int>(capacity.size()) + 2 * kRowWidth - 1) / (2 * kRowWidth) * 2 *
              kRowWidth),
      capacity_(capacity.begin(), capacity.end()) {
    const auto links = static_cast<std::size_t>(stride_);
    rows_.assign(capacity.size() * links, 0);
    group_.assign(capacity.size(), 0);
    crossing_.assign(links, 0);
    first_.assign(capacity.size(), stride_);
    last_.assign(capacity.size(), 0);
    level_.assign(capacity.size(), 0.0);
    capacity_.resize(links, 0.0);
    residual_ = capacity_;
}

double FairLevels::full(std::uint32_t link) const {
    const int flows = group(link);
    if (flows > 0) return residual_[link] / flows;
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    return residual_[link] < -kRounding * capacity_[link] ? -kInfinity : kInfinity;
}

int FairLevels::overfull() const {
    return first_below(residual_.data(), capacity_.data(), -kRounding, stride_);
}

void FairLevels::count(Path path, std::uint32_t owner, int flows) {
    std::int32_t* own = row(owner);
    group_[owner] += flows;
    const double used = flows * level_[owner];
    for (const std::uint32_t l : path) {
        own[l] += flows;
        if (l != owner) residual_[l] -= used;
    }
}

void FairLevels::add(Path path, std::uint32_t owner) {
    for (const std::uint32_t l : path) {
        ++crossing_[l];
        for (const std::uint32_t other : path) {
            if (other == l) continue;
            const int first = static_cast<int>(other) / kRowWidth * kRowWidth;
            first_[l] = std::min(first_[l], first);
            last_[l] = std::max(last_[l], first + kRowWidth);
        }
    }
    count(path, owner, 1);
}

void FairLevels::remove(Path path, std::uint32_t owner) {
    for (const std::uint32_t l : path) --crossing_[l];
    count(path, owner, -1);
}

void FairLevels::move(Path path, std::uint32_t from, std::uint32_t to) {
    count(path, from, -1);
    count(path, to, 1);
}

void FairLevels::set_level(std::uint32_t link, double level) {
    const double own = residual_[link];
    take_row(row(link), level - level_[link], first_[link], last_[link], residual_.data());
    residual_[link] = own;
    level_[link] = level;
}

void FairLevels::clear() {
    residual_ = capacity_;
    std::ranges::fill(level_, 0.0);
}

void FairLevels::begin_filling() {
    left_ = capacity_;
    unfrozen_.assign(crossing_.begin(), crossing_.end());
    candidate_.resize(left_.size());
    for (std::size_t l = 0; l < left_.size(); ++l)
        candidate_[l] = crossing_[l] > 0 ? capacity_[l] / crossing_[l] : kNoCandidate;
    std::ranges::fill(level_, 0.0);
    filled_ = 0.0;
}

int FairLevels::next_bottleneck() {
    const int link = argmin(candidate_.data(), stride_);
    const double level = candidate_[static_cast<std::size_t>(link)];
    if (level < kNoCandidate) {
        filled_ = std::max(filled_, level);  // rounding must not break the order
        return link;
    }
    residual_ = left_;
    return -1;
}

void FairLevels::hand_over(Path path, std::uint32_t from, std::uint32_t to) {
    --group_[from];
    ++group_[to];
    std::int32_t *old_row = row(from), *new_row = row(to);
    for (const std::uint32_t l : path) {
        --old_row[l];
        ++new_row[l];
    }
}

void FairLevels::freeze(std::uint32_t link) {
    const double own = left_[link];
    freeze_row(row(link), filled_, first_[link], last_[link], left_.data(), unfrozen_.data(),
               candidate_.data());
    left_[link] = own;
    unfrozen_[link] = 0.0;
    candidate_[link] = kNoCandidate;
    level_[link] = filled_;
}

}  // namespace headway::sim
