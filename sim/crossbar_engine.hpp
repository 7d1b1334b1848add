// CrossbarEngine: flows that share links by max-min fairness (fair_share.hpp) when every flow
// crosses just two links, an up port and a down port, as on one switch or one rail. All flows of a
// pair of ports always have the same rate, min(v(up), v(down)), so they form a bundle with one
// clock, and a moment costs one filling over ports and one pass over the grid of bundles; flows
// themselves are touched when they start and when they end.
// Batching is that of FlowEngine: completions within a window, epsilon times the time that the
// traffic needs on its busiest link, are one moment; starts may be gathered as long and are made
// good for the wait; the bytes that this moves are counted by link.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/flow_engine.hpp"

namespace headway::sim {

class CrossbarEngine {
  public:
    // Capacities in bytes per second, all > 0; is_up[l]: l is a port into the switch.
    CrossbarEngine(std::span<const double> capacity, const std::vector<bool>& is_up,
                   double epsilon);
    CrossbarEngine(CrossbarEngine&&) = default;
    CrossbarEngine& operator=(CrossbarEngine&&) = default;

    Picoseconds now() const { return now_; }
    // A flow of `bytes` over links = {up, down}, from now() on. Ids count up from 0.
    std::uint32_t start(std::span<const std::uint32_t> links, double bytes);
    Picoseconds next_completion();  // kNever without flows
    Picoseconds window();           // for which starts may be gathered
    void widen(Picoseconds window) { least_window_ = static_cast<double>(window); }
    // Picoseconds that what was outstanding needed on its busiest link, when rates were last solved
    // for starts: until they are again, starts are gathered for the window of this.
    double longest() const { return longest_; }
    void set_longest(double longest) { longest_ = longest; }
    void skip_to(Picoseconds time) { now_ = time; }
    // The flows that end at next_completion(), as it was last asked for.
    void for_each_ending(const auto& action) const {
        for (const Pending& p : batch_) action(p.flow);
    }
    void advance(Picoseconds time, std::vector<Completion>& done);

    std::size_t num_active() const { return num_active_; }
    std::int64_t num_instants() const { return num_instants_; }
    double misplaced_seconds(std::uint32_t link) const {
        const std::size_t p = port_of_[link];
        return misplaced_[p] / capacity_[p] * 1e-12;
    }
    double remaining(std::uint32_t flow);  // bytes, now; negative when done

  private:
    // A flow in its bundle. The entries of a bundle lie together, the next one to end last.
    struct Entry {
        double mark = 0.0;   // value of the bundle's clock at which it ends
        float bytes = 0.0F;  // for the batching window only
        std::uint32_t flow = 0;
    };
    struct Bundle {
        std::int32_t first = 0, size = 0, room = 0;  // in entries_
    };
    // A bundle as its ports: to divide its number by the stride would cost more than to keep both.
    struct Pair {
        std::uint32_t up = 0, down = 0;
    };
    struct Started {
        double bytes = 0.0;
        Picoseconds at = 0;
        Pair ports;
        std::uint32_t flow = 0;
    };
    struct Pending {
        double time = 0.0;
        Pair ports;
        std::int32_t entry = 0;
        std::uint32_t flow = 0;
    };

    std::size_t bundle_of(Pair ports) const {
        return std::size_t{ports.up} * static_cast<std::size_t>(num_downs_) + ports.down -
               static_cast<std::size_t>(num_ups_);
    }
    double rate(Pair ports) const { return std::min(level_[ports.up], level_[ports.down]); }
    void count(Pair ports, int change);
    std::span<Entry> entries(const Bundle& bundle) {
        return {entries_.data() + bundle.first, static_cast<std::size_t>(bundle.size)};
    }
    void add(std::size_t bundle, const Entry& entry);
    void prefetch(std::size_t bundle) const {
        const Bundle& in = bundles_[bundle];
        __builtin_prefetch(entries_.data() + in.first + in.size);
    }
    void serve_until_now();
    void update_window();
    void fill();
    void place_starts();
    void solve();
    void collect_batch();
    void collect_bundle(Pair ports, double last);
    void finish_batch(std::vector<Completion>& done);

    int num_ups_ = 0, num_downs_ = 0;     // padded; ports are ups, then downs
    std::vector<std::uint32_t> port_of_;  // [link]
    double epsilon_ = 0.0;
    Picoseconds now_ = 0, served_until_ = 0;
    // Sets of links come and go by the million: their numbers are one allocation each.
    std::vector<double> numbers_;
    std::span<double> capacity_;                                 // [port] bytes per picosecond
    std::span<double> flows_, residual_, unfrozen_, candidate_;  // [port]
    std::span<double> level_, inverse_;                          // [port]
    std::span<double> outstanding_, misplaced_;                  // [port] bytes
    std::span<double> served_, next_mark_;                       // [bundle]
    std::span<double> row_least_;  // [up] picoseconds until its first completion
    std::vector<std::int32_t> counts_;
    std::span<std::int32_t> by_up_, by_down_;  // flows of each bundle, [up, down], [down, up]
    std::vector<Bundle> bundles_;              // up * stride + down
    std::vector<Entry> entries_;
    std::vector<std::int32_t> bundle_of_;  // [flow]
    std::vector<Started> started_;         // since rates were last solved
    std::vector<std::int32_t> due_;        // scratch of collect_batch(): columns
    std::vector<Pair> due_pairs_;
    std::vector<Pending> batch_;
    bool solved_ = true, collected_ = false;
    double batch_time_ = 0.0, longest_ = 0.0, window_ = 0.0, least_window_ = 0.0;
    std::size_t num_active_ = 0;
    std::int64_t num_instants_ = 0;
};

}  // namespace headway::sim
