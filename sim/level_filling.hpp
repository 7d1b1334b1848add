// LevelFilling: progressive filling on links only. The flows that freeze on link l are known by
// their counts, row(l)[m] = flows of l's group that cross m (diagonal: the size of the group), so
// freezing l at level v is one pass over a row: unfrozen(m) -= row(l)[m], residual(m) -= v
// row(l)[m]. The filling can be rewound to any earlier round: the state is kept every few rounds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace headway::sim {

class LevelFilling {
  public:
    explicit LevelFilling(std::span<const double> capacity);

    int num_links() const { return num_links_; }
    std::int32_t* row(std::uint32_t link) {
        return rows_.data() + static_cast<std::size_t>(link) * static_cast<std::size_t>(stride_);
    }

    // A flow over `links` exists from now on, or no longer. `round`: where the filling will be
    // rewound to, at most the round of the finished flow's bottleneck; a new flow needs round 0.
    void add_flow(std::span<const std::uint32_t> links);
    void remove_flow(std::span<const std::uint32_t> links, int round);

    // Goes back to a state at or before `round` and returns its round.
    int rewind(int round);
    // The link with the least level among those with unfrozen flows, or -1; level >= the last one.
    int next_bottleneck();
    double level() const { return level_; }
    int unfrozen(std::uint32_t link) const { return static_cast<int>(unfrozen_[link]); }
    void freeze(std::uint32_t link);  // at level(), with its row; ends the round

  private:
    struct State {
        std::vector<double> residual, unfrozen, candidate;  // [link]
        double level = 0.0;
    };

    void save();

    int num_links_ = 0;
    int stride_ = 0;  // num_links_ rounded up to the width of the row kernel
    std::vector<std::int32_t> rows_;
    std::vector<int> first_, last_;  // [link] range of links that share a flow with it
    std::vector<double> residual_, unfrozen_, candidate_;
    double level_ = 0.0;
    int round_ = 0;
    std::vector<State> saved_;  // before round 0, kSaveEvery, 2 kSaveEvery, ...
};

}  // namespace headway::sim
