// CrossbarEngine: flows that share links by max-min fairness (fair_share.hpp) when every flow
// crosses just two links, an up port and a down port, as on one switch or one rail. All flows of a
// pair of ports always have the same rate, min(v(up), v(down)), so they form a bundle with one
// clock, and a moment costs one filling over ports and one pass over the grid of bundles; flows
// themselves are touched when they start and when they end.
// Batching is that of FlowEngine: completions within a window, epsilon times the time that the
// traffic needs on its busiest link, are one moment; starts may be gathered as long and are made
// good for the wait; the bytes that this moves are counted by link.
#pragma once

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

    Picoseconds now() const { return now_; }
    // A flow of `bytes` over links = {up, down}, from now() on. Ids count up from 0.
    std::uint32_t start(std::span<const std::uint32_t> links, double bytes);
    Picoseconds next_completion();  // kNever without flows
    Picoseconds window() const;
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
    static constexpr std::int32_t kNone = -1;

    // A flow in its bundle. The entries of a bundle lie together, the next one to end last.
    struct Entry {
        double mark = 0.0;   // value of the bundle's clock at which it ends
        float bytes = 0.0F;  // for the batching window only
        std::uint32_t flow = 0;
    };
    struct Bundle {
        std::int32_t first = 0, size = 0, room = 0;  // in entries_
    };
    struct Started {
        std::uint32_t flow = 0;
        std::int32_t bundle = 0;
        double bytes = 0.0;
        Picoseconds at = 0;
    };
    struct Pending {
        std::int32_t entry = 0, bundle = 0;
        double time = 0.0;
        std::uint32_t flow = 0;
    };

    std::size_t up_of(std::int32_t bundle) const {
        return static_cast<std::size_t>(bundle / num_downs_);
    }
    std::size_t down_of(std::int32_t bundle) const {  // as a port
        return static_cast<std::size_t>(num_ups_ + bundle % num_downs_);
    }
    double rate(std::int32_t bundle) const {
        return std::min(level_[up_of(bundle)], level_[down_of(bundle)]);
    }
    void count(std::int32_t bundle, int change);
    std::span<Entry> entries(const Bundle& bundle) {
        return {entries_.data() + bundle.first, static_cast<std::size_t>(bundle.size)};
    }
    void add(std::int32_t bundle, const Entry& entry);
    void prefetch(std::int32_t bundle) const {
        const Bundle& in = bundles_[static_cast<std::size_t>(bundle)];
        __builtin_prefetch(entries_.data() + in.first + in.size);
    }
    void serve_until_now();
    void update_window();
    void fill();
    void place_starts();
    void solve();
    void collect_batch();
    void collect_bundle(std::int32_t bundle, double last);
    void finish_batch(std::vector<Completion>& done);

    int num_ups_ = 0, num_downs_ = 0;   // padded; ports are ups, then downs
    std::vector<std::size_t> port_of_;  // [link]
    double epsilon_ = 0.0;
    Picoseconds now_ = 0, served_until_ = 0;
    std::vector<double> capacity_;                                 // [port] bytes per picosecond
    std::vector<double> flows_, residual_, unfrozen_, candidate_;  // [port]
    std::vector<double> level_, inverse_;                          // [port]
    std::vector<double> outstanding_, misplaced_;                  // [port] bytes
    std::vector<std::int32_t> by_up_, by_down_;  // flows of each bundle, [up, down], [down, up]
    std::vector<double> served_, next_mark_;     // [bundle]
    std::vector<Bundle> bundles_;                // up * stride + down
    std::vector<Entry> entries_;
    std::vector<double> row_least_;        // [up] picoseconds until its first completion
    std::vector<std::int32_t> bundle_of_;  // [flow], or kNone when done
    std::vector<Started> started_;         // since rates were last solved
    std::vector<std::int32_t> due_;        // scratch of collect_batch()
    std::vector<Pending> batch_;
    bool solved_ = true, collected_ = false;
    double batch_time_ = 0.0, longest_ = 0.0, window_ = 0.0;
    std::size_t num_active_ = 0;
    std::int64_t num_instants_ = 0;
};

}  // namespace headway::sim
