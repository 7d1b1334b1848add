#include "sim/crossbar_engine.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "sim/row_kernels.hpp"

namespace headway::sim {
namespace {

int padded(std::ptrdiff_t count) {
    const auto width = 2 * kRowWidth;
    return (static_cast<int>(count) + width - 1) / width * width;
}

}  // namespace

CrossbarEngine::CrossbarEngine(std::span<const double> capacity, const std::vector<bool>& is_up,
                               double epsilon)
    : epsilon_(epsilon) {
    const auto ups = std::ranges::count(is_up, true);
    num_ups_ = padded(ups);
    num_downs_ = padded(static_cast<std::ptrdiff_t>(is_up.size()) - ups);
    const auto ports = static_cast<std::size_t>(num_ups_ + num_downs_);
    const auto bundles = static_cast<std::size_t>(num_ups_) * static_cast<std::size_t>(num_downs_);
    const auto ups_of_rows = static_cast<std::size_t>(num_ups_);
    numbers_.resize(9 * ports + 2 * bundles + ups_of_rows);
    std::span<double> rest = numbers_;
    const auto take = [&](std::span<double>& values, std::size_t count, double value) {
        values = rest.first(count);
        rest = rest.subspan(count);
        std::ranges::fill(values, value);
    };
    for (auto* values :
         {&flows_, &residual_, &unfrozen_, &level_, &inverse_, &outstanding_, &misplaced_}) {
        take(*values, ports, 0.0);
    }
    take(capacity_, ports, 1.0);
    take(candidate_, ports, kNoCandidate);
    take(served_, bundles, 0.0);
    take(next_mark_, bundles, kNoCandidate);
    take(row_least_, ups_of_rows, kNoCandidate);
    counts_.resize(2 * bundles);
    by_up_ = std::span(counts_).first(bundles);
    by_down_ = std::span(counts_).last(bundles);
    port_of_.reserve(capacity.size());
    int up = 0, down = num_ups_;
    for (std::size_t l = 0; l < capacity.size(); ++l) {
        assert(capacity[l] > 0.0);
        port_of_.push_back(static_cast<std::uint32_t>(is_up[l] ? up++ : down++));
        capacity_[port_of_.back()] = capacity[l] / kPerSecond;
    }
    bundles_.assign(bundles, {});
    due_.resize(static_cast<std::size_t>(num_downs_));
}

void CrossbarEngine::count(Pair ports, int change) {
    by_up_[bundle_of(ports)] += change;
    by_down_[(ports.down - static_cast<std::size_t>(num_ups_)) *
                 static_cast<std::size_t>(num_ups_) +
             ports.up] += change;
    flows_[ports.up] += change;
    flows_[ports.down] += change;
}

std::uint32_t CrossbarEngine::start(std::span<const std::uint32_t> links, double bytes) {
    assert(links.size() == 2);
    const Pair ports{.up = port_of_[links[0]], .down = port_of_[links[1]]};
    const auto flow = static_cast<std::uint32_t>(bundle_of_.size());
    bundle_of_.push_back(static_cast<std::int32_t>(bundle_of(ports)));
    started_.push_back({.bytes = bytes, .at = now_, .ports = ports, .flow = flow});
    count(ports, +1);
    for (const std::size_t p : {ports.up, ports.down}) outstanding_[p] += static_cast<float>(bytes);
    ++num_active_;
    solved_ = collected_ = false;
    return flow;
}

Picoseconds CrossbarEngine::window() {
    for (const Started& s : started_) {
        for (const std::size_t p : {s.ports.up, s.ports.down})
            longest_ = std::max(longest_, outstanding_[p] / capacity_[p]);
    }
    return static_cast<Picoseconds>(std::llround(epsilon_ * longest_));
}

void CrossbarEngine::update_window() {
    longest_ = 0.0;
    for (std::size_t p = 0; p < capacity_.size(); ++p) {
        longest_ = std::max(longest_, outstanding_[p] / capacity_[p]);
    }
    window_ = std::max(epsilon_ * longest_, least_window_);
}

void CrossbarEngine::serve_until_now() {
    if (now_ == served_until_) return;
    const Grid grid{.rows = num_ups_,
                    .stride = num_downs_,
                    .served = served_.data(),
                    .up = level_.data(),
                    .down = level_.data() + num_ups_};
    serve(grid, static_cast<double>(now_ - served_until_));
    served_until_ = now_;
}

void CrossbarEngine::fill() {
    const auto ups = static_cast<std::size_t>(num_ups_);
    const std::size_t ports = ups + static_cast<std::size_t>(num_downs_);
    std::ranges::copy(capacity_, residual_.begin());
    std::ranges::copy(flows_, unfrozen_.begin());
    std::ranges::fill(level_, -1.0);
    const PortSide up{.size = num_ups_,
                      .residual = residual_.data(),
                      .unfrozen = unfrozen_.data(),
                      .candidate = candidate_.data(),
                      .level = level_.data()};
    const PortSide down{.size = num_downs_,
                        .residual = residual_.data() + ups,
                        .unfrozen = unfrozen_.data() + ups,
                        .candidate = candidate_.data() + ups,
                        .level = level_.data() + ups};
    const double level = fill_crossbar(up, down, by_up_.data(), by_down_.data());
    // A port that never froze is no bottleneck: all its flows froze at their other end.
    for (std::size_t p = 0; p < ports; ++p) {
        if (level_[p] < 0.0) level_[p] = level;
        inverse_[p] = level_[p] > 0.0 ? 1.0 / level_[p] : 0.0;
    }
}

// Before the flows of its bundle that end earlier; a full bundle moves to where there is room for
// all that it has.
void CrossbarEngine::add(std::size_t bundle, const Entry& entry) {
    Bundle& in = bundles_[bundle];
    if (in.size == in.room) {
        const auto first = static_cast<std::int32_t>(entries_.size());
        in.room = std::max(by_up_[bundle], 2 * in.room);
        entries_.resize(entries_.size() + static_cast<std::size_t>(in.room));
        std::ranges::copy(entries(in), entries_.begin() + first);
        in.first = first;
    }
    Entry* at = &entries_[static_cast<std::size_t>(in.first + in.size++)];
    for (const Entry* first = &entries_[static_cast<std::size_t>(in.first)];
         at > first && at[-1].mark < entry.mark; --at) {
        *at = at[-1];
    }
    *at = entry;
}

// New flows get their place on their bundle's clock, made good for the time since they started.
void CrossbarEngine::place_starts() {
    constexpr std::size_t kAhead = 8;
    for (std::size_t k = 0; k < started_.size(); ++k) {
        if (k + kAhead < started_.size()) prefetch(bundle_of(started_[k + kAhead].ports));
        const Started& s = started_[k];
        const std::size_t b = bundle_of(s.ports);
        const double waited = rate(s.ports) * static_cast<double>(now_ - s.at);
        const double moved = std::min(waited, s.bytes);  // what it had would have been sent
        misplaced_[s.ports.up] += moved;
        misplaced_[s.ports.down] += moved;
        const double mark = std::max(served_[b] + s.bytes - waited, 0.0);
        add(b, {.mark = mark, .bytes = static_cast<float>(s.bytes), .flow = s.flow});
        next_mark_[b] = std::min(next_mark_[b], mark);
    }
    started_.clear();
}

void CrossbarEngine::solve() {
    if (solved_) return;
    serve_until_now();
    if (!started_.empty()) update_window();
    fill();
    place_starts();
    solved_ = true;
}

void CrossbarEngine::collect_bundle(Pair ports, double last) {
    const std::size_t b = bundle_of(ports);
    const Bundle& in = bundles_[b];
    const double slowness = std::max(inverse_[ports.up], inverse_[ports.down]);
    for (std::int32_t e = in.first + in.size; e-- > in.first;) {
        const Entry& entry = entries_[static_cast<std::size_t>(e)];
        const double time = (entry.mark - served_[b]) * slowness;
        if (time > last) break;
        batch_.push_back({.time = time, .ports = ports, .entry = e, .flow = entry.flow});
    }
}

void CrossbarEngine::collect_batch() {
    if (num_active_ == 0 || collected_) return;
    solve();
    serve_until_now();
    batch_.clear();
    const auto ups = static_cast<std::size_t>(num_ups_);
    const Grid grid{.rows = num_ups_,
                    .stride = num_downs_,
                    .served = served_.data(),
                    .next = next_mark_.data(),
                    .up = inverse_.data(),
                    .down = inverse_.data() + ups};
    const double first = earliest(grid, row_least_.data());
    const double last = first + std::max(kTie, window_);
    due_pairs_.clear();
    for (int u = 0; u < num_ups_; ++u) {
        if (row_least_[static_cast<std::size_t>(u)] > last) continue;
        const int found = due(grid, u, last, due_.data());
        for (int k = 0; k < found; ++k) {
            due_pairs_.push_back(
                {.up = static_cast<std::uint32_t>(u),
                 .down = static_cast<std::uint32_t>(num_ups_ + due_[static_cast<std::size_t>(k)])});
        }
    }
    // Entries are far apart in memory: all are fetched before the first is looked at.
    for (const Pair ports : due_pairs_) {
        const volatile double read = entries(bundles_[bundle_of(ports)]).back().mark;
        (void)read;
    }
    for (const Pair ports : due_pairs_) collect_bundle(ports, last);
    double weight = 0.0, weighted = 0.0;
    for (const Pending& p : batch_) {
        const double level = rate(p.ports);
        weight += level;
        weighted += level * (p.time - first);
    }
    // Centred, so that bytes sent too early and too late cancel.
    batch_time_ = static_cast<double>(now_) + first + weighted / weight;
    for (Pending& p : batch_) p.time += static_cast<double>(now_);
    collected_ = true;
}

void CrossbarEngine::finish_batch(std::vector<Completion>& done) {
    serve_until_now();
    for (const Pending& p : batch_) {
        const Entry& entry = entries_[static_cast<std::size_t>(p.entry)];
        const std::size_t b = bundle_of(p.ports);
        const double moved = rate(p.ports) * std::abs(p.time - batch_time_);
        for (const std::size_t port : {p.ports.up, p.ports.down}) {
            misplaced_[port] += moved;
            outstanding_[port] -= entry.bytes;
        }
        count(p.ports, -1);
        --bundles_[b].size;
        if (p.entry > bundles_[b].first) {
            next_mark_[b] = (&entry)[-1].mark;
        } else {
            next_mark_[b] = kNoCandidate;
            served_[b] = 0.0;
        }
        done.push_back({entry.flow, static_cast<Picoseconds>(std::llround(p.time))});
    }
    num_active_ -= batch_.size();
    batch_.clear();
    solved_ = collected_ = false;
    ++num_instants_;
}

Picoseconds CrossbarEngine::next_completion() {
    if (num_active_ == 0) return kNever;
    collect_batch();
    return std::max(now_, static_cast<Picoseconds>(std::llround(batch_time_)));
}

void CrossbarEngine::advance(Picoseconds time, std::vector<Completion>& done) {
    while (true) {
        const Picoseconds next = next_completion();
        if (next == kNever || next > time) break;
        now_ = next;
        finish_batch(done);
    }
    now_ = std::max(now_, time);
}

double CrossbarEngine::remaining(std::uint32_t flow) {
    serve_until_now();
    const auto b = static_cast<std::size_t>(bundle_of_[flow]);
    const std::span<Entry> placed = entries(bundles_[b]);
    const auto entry = std::ranges::find(placed, flow, &Entry::flow);
    if (entry != placed.end()) return std::max(entry->mark - served_[b], 0.0);
    const auto started = std::ranges::find(started_, flow, &Started::flow);
    return started != started_.end() ? started->bytes : -1.0;
}

}  // namespace headway::sim
