// FlowEngine: flows that share links by max-min fairness (fair_share.hpp), from start to finish.
// Exact: rates change at every start and completion. Two facts make that cheap.
//   1. All flows with the same bottleneck l have the same rate v(l). So l keeps one service clock,
//      V(l) += v(l) dt, and a flow that joins l with b bytes left gets the mark V(l) + b: it ends
//      when the clock reaches its mark. A change of rates touches links, not flows.
//   2. The links stand in the order of their levels (fair_levels.hpp). When a flow with bottleneck
//      l ends, those before l keep their level; those behind are gone through once, and only a link
//      that a changed group crosses gets another level. One that falls below its neighbour goes
//      before it and takes over the flows that both carry. Where much changes at once that can take
//      exponentially many steps: after a few for each link, all links are filled from scratch.
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

#include "sim/fair_levels.hpp"

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
    // Picoseconds that what was outstanding needed on its busiest link, when rates were last solved
    // for starts: until they are again, starts are gathered for the window of this.
    double longest() const { return longest_; }
    void set_longest(double longest) { longest_ = longest; }
    // Goes to `time`, before which nothing completes, without looking.
    void skip_to(Picoseconds time) { now_ = time; }
    // Goes to `time`; appends what completes until then, in order of (time, flow).
    void advance(Picoseconds time, std::vector<Completion>& done);

    std::size_t num_active() const { return num_active_; }
    std::int64_t num_instants() const { return num_instants_; }
    std::int64_t num_fillings() const { return num_fillings_; }  // of all links, from scratch
    double error_bound_seconds() const;
    // Seconds of the link by which batching has moved bytes so far.
    double misplaced_seconds(std::uint32_t link) const {
        return links_[link].misplaced / links_[link].capacity * 1e-12;
    }
    double rate(std::uint32_t flow);       // bytes per second, now
    double remaining(std::uint32_t flow);  // bytes, now; negative when done

  private:
    using Links = std::span<const std::uint32_t>;
    static constexpr std::uint32_t kUnowned = 0xffffffff, kDone = 0xfffffffe;

    struct Mark {
        double at = 0.0;  // value of the link's clock at which the flow ends
        std::uint32_t flow = 0;
    };
    struct Clock {
        double level = 0.0;    // rate of each flow of the group, bytes per picosecond
        double got = 0.0;      // bytes each flow of the group has got, at `time`
        Picoseconds time = 0;  // of the last change of the level
        double first = 0.0;    // the least mark of the group, infinite without flows
    };
    struct LinkState {
        double capacity = 0.0;     // bytes per picosecond
        double outstanding = 0.0;  // bytes of unfinished flows, for the batching window
        double misplaced = 0.0;    // bytes by which batching moved completions
        std::vector<Mark> marks;   // heap of the group; a stale first one is dropped at once
        std::vector<std::uint32_t> crossing;  // flows over this link; done ones are dropped late
        std::size_t finished = 0;             // of `crossing`
    };
    struct Pending {
        Mark mark;
        double time = 0.0;
    };

    Links path(std::uint32_t flow) const {
        return {path_links_.data() + path_begin_[flow], path_links_.data() + path_begin_[flow + 1]};
    }
    double got(const Clock& clock) const {
        return clock.got + clock.level * static_cast<double>(now_ - clock.time);
    }
    // What a flow would get if the link shared its capacity equally.
    double share(std::uint32_t link) const {
        const LinkState& l = links_[link];
        return l.capacity / static_cast<double>(l.crossing.size() - l.finished);
    }
    bool is_stale(std::uint32_t link, const Mark& mark) const {
        return owner_[mark.flow] != link || mark_[mark.flow] != mark.at;
    }
    void mark_changed(std::uint32_t link) {
        if (!changed_[link]) changed_links_.push_back(link);
        changed_[link] = true;
    }
    void solve();
    std::uint32_t first_owner(std::uint32_t flow) const;
    void place_born();
    void make_good_born();
    bool repair();
    bool settle(std::size_t at);
    void fill();
    void take(std::uint32_t from, std::uint32_t to);
    void take_open(std::uint32_t to);
    void move_mark(std::uint32_t flow, std::uint32_t to);
    void drop_finished(std::uint32_t link);
    void sift(std::uint32_t link, std::size_t old_marks);
    void push_mark(std::uint32_t flow);
    void set_clock(std::uint32_t link);
    void drop_stale(std::uint32_t link);
    void update_next_time(std::uint32_t link);
    void collect_batch();
    void restore_batch();
    void finish_batch(std::vector<Completion>& done);
    void remove(std::uint32_t flow);
    void update_window();

    FairLevels levels_;
    double epsilon_ = 0.0;
    Picoseconds now_ = 0;
    std::vector<LinkState> links_;
    std::vector<Clock> clocks_;         // [link]
    std::vector<double> next_time_;     // [link] when its first flow ends, picoseconds; padded
    std::vector<std::uint32_t> order_;  // links with a group, by level
    std::vector<bool> in_order_;        // [link]
    std::vector<std::uint32_t> place_;  // [link] in order_, while flows are placed
    std::vector<bool> changed_;         // [link] its group lost or got a flow
    std::vector<std::uint32_t> changed_links_, born_flows_;  // since the levels were solved
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
    std::int64_t num_instants_ = 0, num_fillings_ = 0;
    std::size_t steps_ = 0;  // of the repair under way
};

}  // namespace headway::sim
