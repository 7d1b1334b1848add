// FairLevels: max-min fair rates of groups of flows. Each flow belongs to one link of its path, its
// bottleneck, and all flows of link l have the rate level(l). row(l)[m] = flows of l's group that
// cross m (diagonal: the size of the group); residual(l) is what flows of other groups leave:
//   residual(l) = C(l) - sum_{m != l} level(m) row(m)[l]
// The rates are max-min fair where no link carries too much and
//   level(l) = residual(l) / row(l)[l],   and no flow of l's group crosses a link of lower level:
// each flow's bottleneck is full and has no faster flow (Bertsekas and Gallager, 6.5.2). A change
// of a level is one pass over a row, so that what does not change costs nothing. Levels are found
// either from those before, link by link, or by progressive filling from scratch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace headway::sim {

class FairLevels {
  public:
    using Path = std::span<const std::uint32_t>;

    explicit FairLevels(std::span<const double> capacity);

    int stride() const { return stride_; }  // links, rounded up to the width of the row kernels
    double level(std::uint32_t link) const { return level_[link]; }
    int group(std::uint32_t link) const { return group_[link]; }
    int shared(std::uint32_t owner, std::uint32_t link) const { return row(owner)[link]; }
    // The level at which the link is full; of a group without flows, infinite where it is not
    // overfull, else below all others.
    double full(std::uint32_t link) const;
    // By more than rounding: links that are equally full are in no order.
    static bool is_below(double level, double other) { return level < other * (1.0 - kRounding); }
    int overfull() const;  // the first link that carries too much, or -1

    void add(Path path, std::uint32_t owner);
    void remove(Path path, std::uint32_t owner);
    void move(Path path, std::uint32_t from, std::uint32_t to);
    void set_level(std::uint32_t link, double level);
    void clear();  // there are no flows: what rounding has left is dropped

    // Filling from scratch: next_bottleneck() names the links in order of their levels, -1 at the
    // end; the flows across the link that no earlier link owns, unfrozen() of them, are then handed
    // to it, and freeze() ends the round.
    void begin_filling();
    int next_bottleneck();
    int unfrozen(std::uint32_t link) const { return static_cast<int>(unfrozen_[link]); }
    void hand_over(Path path, std::uint32_t from, std::uint32_t to);
    void freeze(std::uint32_t link);

  private:
    static constexpr double kRounding = 1e-11;  // of a capacity or a level

    std::int32_t* row(std::uint32_t link) {
        return rows_.data() + static_cast<std::size_t>(link) * static_cast<std::size_t>(stride_);
    }
    const std::int32_t* row(std::uint32_t link) const {
        return rows_.data() + static_cast<std::size_t>(link) * static_cast<std::size_t>(stride_);
    }
    void count(Path path, std::uint32_t owner, int flows);

    int stride_ = 0;
    std::vector<std::int32_t> rows_;
    std::vector<int> group_;         // [link] flows of its group: the diagonal
    std::vector<int> crossing_;      // [link] flows over it
    std::vector<int> first_, last_;  // [link] range of the other links that share a flow with it
    std::vector<double> capacity_, residual_, level_;
    std::vector<double> left_, unfrozen_, candidate_;  // of a filling
    double filled_ = 0.0;                              // its highest level so far
};

}  // namespace headway::sim
