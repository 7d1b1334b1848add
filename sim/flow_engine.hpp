// FlowEngine: flows that share links by max-min fairness (fair_share.hpp), from start to finish.
// Exact: rates change at every start and completion. Two facts make that cheap.
//   1. All flows with the same bottleneck l have the same rate v(l). So l keeps one service clock,
//      V(l) += v(l) dt, and a flow that joins l with b bytes left gets the mark V(l) + b: it ends
//      when the clock reaches its mark. A change of rates touches links, not flows.
//   2. When a flow with bottleneck l ends, the links that filled up before l keep their level: the
//      filling is rewound to the round of l and goes on from there (level_filling.hpp).
// With epsilon > 0, completions closer together than a window, epsilon times the time that the
// traffic needs on its busiest link, are handled as one instant. Every flow still ends at its own
// projected time, and error_bound() says how far the finish may be off. Rates are solved when they
// are asked for: a caller may also gather starts for up to a window; they are made good for the
// wait.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "sim/level_filling.hpp"

namespace headway::sim {

using Picoseconds = std::int64_t;
inline constexpr double kPerSecond = 1e12;  // picoseconds in a second
inline constexpr double kTie = 0.5;         // picoseconds: the resolution of time
inline constexpr Picoseconds kNever = std::numeric_limits<Picoseconds>::max();

struct Completion {
    std::uint32_t flow = 0;
    Picoseconds time = 0;
};

class FlowEngine {
  public:
    // Capacities in bytes per second, all > 0.
    explicit FlowEngine(std::span<const double> capacity, double epsilon = 0.0);

    Picoseconds now() const { return now_; }
    // A flow of `bytes` over distinct `links`, from now() on. Ids count up from 0.
    std::uint32_t start(std::span<const std::uint32_t> links, double bytes);
    Picoseconds next_completion();  // kNever without flows
    Picoseconds window() const;     // 0 when exact
    // Completions within `window` are one moment, even if the traffic here is little.
    void widen(Picoseconds window) { least_window_ = static_cast<double>(window); }
    // Goes to `time`, before which nothing completes, without looking.
    void skip_to(Picoseconds time) { now_ = time; }
    // Goes to `time`; appends what completes until then, in order of (time, flow).
    void advance(Picoseconds time, std::vector<Completion>& done);

    std::size_t num_active() const { return num_active_; }
    std::int64_t num_instants() const { return num_instants_; }
    double error_bound_seconds() const;
    // Seconds of the link by which batching has moved bytes so far.
    double misplaced_seconds(std::uint32_t link) const {
        return links_[link].misplaced / links_[link].capacity * 1e-12;
    }
    double rate(std::uint32_t flow);       // bytes per second, now
    double remaining(std::uint32_t flow);  // bytes, now; negative when done

  private:
    static constexpr std::uint32_t kUnowned = 0xffffffff, kDone = 0xfffffffe;

    struct Mark {
        double at = 0.0;  // value of the link's clock at which the flow ends
        std::uint32_t flow = 0;
    };
    struct LinkState {
        double capacity = 0.0;  // bytes per picosecond
        double level = 0.0;     // rate of each flow of the group, bytes per picosecond
        double clock = 0.0;     // bytes each flow of the group has got, at clock_time
        Picoseconds clock_time = 0;
        double outstanding = 0.0;  // bytes of unfinished flows, for the batching window
        double misplaced = 0.0;    // bytes by which batching moved completions
        std::vector<Mark> marks;   // heap of the group; stale entries are dropped when seen
        std::vector<std::uint32_t> crossing;  // flows over this link; done ones are dropped late
        int finished = 0;                     // of `crossing`
    };
    struct Pending {
        Mark mark;
        double time = 0.0;
    };

    std::span<const std::uint32_t> path(std::uint32_t flow) const {
        return {path_links_.data() + path_begin_[flow], path_links_.data() + path_begin_[flow + 1]};
    }
    double clock(const LinkState& link) const {
        return link.clock + link.level * static_cast<double>(now_ - link.clock_time);
    }
    bool is_stale(std::uint32_t link, const Mark& mark) const {
        return owner_[mark.flow] != link || mark_[mark.flow] != mark.at;
    }
    void solve();
    void adopt(std::uint32_t link, int wanted);
    void move_flow(std::uint32_t flow, std::uint32_t to);
    void set_level(std::uint32_t link, double level);
    void update_next_time(std::uint32_t link);
    void collect_batch();
    void restore_batch();
    void finish_batch(std::vector<Completion>& done);
    void remove(std::uint32_t flow);
    void update_window();

    LevelFilling filling_;
    double epsilon_ = 0.0;
    Picoseconds now_ = 0;
    std::vector<LinkState> links_;
    std::vector<double> next_time_;     // [link] when its first flow ends, picoseconds
    std::vector<int> round_of_;         // [link] in which it froze, or kNotFrozen
    std::vector<std::uint32_t> order_;  // links in order of freezing
    int dirty_round_ = 0;               // first round that must be solved again; or kClean
    bool started_ = false;              // flows were started since the window was last set
    std::vector<std::uint32_t> owner_;  // [flow] its bottleneck
    std::vector<double> mark_;          // [flow]; bytes while it has no owner
    std::vector<double> size_;          // [flow] bytes
    std::vector<Picoseconds> born_;     // [flow] when it was started
    std::vector<std::uint32_t> path_begin_{0}, path_links_;
    std::vector<Pending> batch_;  // what completes next, taken out of the heaps
    double batch_time_ = 0.0;
    double longest_ = 0.0;  // picoseconds that the outstanding bytes need on their busiest link
    double window_ = 0.0, least_window_ = 0.0;
    std::size_t num_active_ = 0;
    std::int64_t num_instants_ = 0;
};

}  // namespace headway::sim
