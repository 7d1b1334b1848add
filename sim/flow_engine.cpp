#include "sim/flow_engine.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace headway::sim {
namespace {

constexpr double kNoTime = std::numeric_limits<double>::infinity();
constexpr int kNotFrozen = std::numeric_limits<int>::max();
constexpr int kClean = std::numeric_limits<int>::max();

constexpr auto kLater = [](const auto& a, const auto& b) {
    return a.at != b.at ? a.at > b.at : a.flow > b.flow;
};

std::vector<double> per_picosecond(std::span<const double> capacity) {
    std::vector<double> result(capacity.begin(), capacity.end());
    for (double& c : result) c /= kPerSecond;
    return result;
}

}  // namespace

FlowEngine::FlowEngine(std::span<const double> capacity, double epsilon)
    : filling_(per_picosecond(capacity)),
      epsilon_(epsilon),
      links_(capacity.size()),
      next_time_(capacity.size(), kNoTime),
      round_of_(capacity.size(), kNotFrozen) {
    for (std::size_t l = 0; l < capacity.size(); ++l) {
        assert(capacity[l] > 0.0);
        links_[l].capacity = capacity[l] / kPerSecond;
    }
}

std::uint32_t FlowEngine::start(std::span<const std::uint32_t> links, double bytes) {
    restore_batch();
    const auto flow = static_cast<std::uint32_t>(owner_.size());
    ++num_active_;
    owner_.push_back(kUnowned);
    mark_.push_back(bytes);
    size_.push_back(bytes);
    born_.push_back(now_);
    path_links_.insert(path_links_.end(), links.begin(), links.end());
    path_begin_.push_back(static_cast<std::uint32_t>(path_links_.size()));
    filling_.add_flow(links);
    for (const std::uint32_t l : links) {
        links_[l].crossing.push_back(flow);
        links_[l].outstanding += bytes;
        longest_ = std::max(longest_, links_[l].outstanding / links_[l].capacity);
    }
    dirty_round_ = 0;
    started_ = true;
    return flow;
}

void FlowEngine::update_window() {
    started_ = false;
    if (epsilon_ <= 0.0) return;
    longest_ = 0.0;
    for (const LinkState& link : links_) {
        longest_ = std::max(longest_, link.outstanding / link.capacity);
    }
    window_ = std::max(epsilon_ * longest_, least_window_);
}

Picoseconds FlowEngine::window() const {
    return static_cast<Picoseconds>(std::llround(epsilon_ * longest_));
}

void FlowEngine::solve() {
    if (dirty_round_ == kClean) return;
    if (started_) update_window();
    int round = filling_.rewind(dirty_round_);
    for (auto r = static_cast<std::size_t>(round); r < order_.size(); ++r) {
        round_of_[order_[r]] = kNotFrozen;
        next_time_[order_[r]] = kNoTime;
    }
    order_.resize(static_cast<std::size_t>(round));
    for (int next = filling_.next_bottleneck(); next >= 0; next = filling_.next_bottleneck()) {
        const auto link = static_cast<std::uint32_t>(next);
        const int missing = filling_.unfrozen(link) - filling_.row(link)[link];
        if (missing > 0) adopt(link, missing);
        set_level(link, filling_.level());
        filling_.freeze(link);
        round_of_[link] = round++;
        order_.push_back(link);
    }
    dirty_round_ = kClean;
}

// Takes over the flows across `link` that belong to links which now fill up later.
void FlowEngine::adopt(std::uint32_t link, int wanted) {
    LinkState& state = links_[link];
    if (state.finished * 2 > static_cast<int>(state.crossing.size())) {
        std::erase_if(state.crossing, [&](std::uint32_t f) { return owner_[f] == kDone; });
        state.finished = 0;
    }
    const std::size_t before = state.marks.size();
    for (const std::uint32_t flow : state.crossing) {
        const std::uint32_t owner = owner_[flow];
        if (owner == link || owner == kDone) continue;
        if (owner != kUnowned && round_of_[owner] != kNotFrozen) continue;
        move_flow(flow, link);
        if (--wanted == 0) break;
    }
    assert(wanted == 0);
    const auto added = state.marks.size() - before;
    if (added > 8 + before / 8) {
        std::erase_if(state.marks, [&](const Mark& m) { return is_stale(link, m); });
        std::ranges::make_heap(state.marks, kLater);
    } else {
        for (std::size_t k = before + 1; k <= state.marks.size(); ++k) {
            std::push_heap(state.marks.begin(),
                           state.marks.begin() + static_cast<std::ptrdiff_t>(k), kLater);
        }
    }
}

void FlowEngine::move_flow(std::uint32_t flow, std::uint32_t to) {
    const std::uint32_t from = owner_[flow];
    double left = mark_[flow];
    std::int32_t* new_row = filling_.row(to);
    if (from == kUnowned) {
        const double waited = filling_.level() * static_cast<double>(now_ - born_[flow]);
        left -= waited;
        for (const std::uint32_t l : path(flow)) {
            ++new_row[l];
            links_[l].misplaced += waited;
        }
    } else {
        left -= clock(links_[from]);
        std::int32_t* old_row = filling_.row(from);
        for (const std::uint32_t l : path(flow)) {
            --old_row[l];
            ++new_row[l];
        }
    }
    owner_[flow] = to;
    mark_[flow] = clock(links_[to]) + left;
    links_[to].marks.push_back({mark_[flow], flow});
}

void FlowEngine::set_level(std::uint32_t link, double level) {
    LinkState& state = links_[link];
    if (state.level != level) {
        state.clock = clock(state);
        state.clock_time = now_;
        state.level = level;
    }
    update_next_time(link);
}

void FlowEngine::update_next_time(std::uint32_t link) {
    LinkState& state = links_[link];
    while (!state.marks.empty() && is_stale(link, state.marks.front())) {
        std::ranges::pop_heap(state.marks, kLater);
        state.marks.pop_back();
    }
    next_time_[link] = state.marks.empty()
                           ? kNoTime
                           : static_cast<double>(state.clock_time) +
                                 (state.marks.front().at - state.clock) / state.level;
}

void FlowEngine::collect_batch() {
    if (num_active_ == 0 || !batch_.empty()) return;
    solve();
    const double first = *std::ranges::min_element(next_time_);
    const double last = first + std::max(kTie, window_);
    double weight = 0.0, weighted = 0.0;
    for (const std::uint32_t link : order_) {
        while (next_time_[link] <= last) {
            LinkState& state = links_[link];
            const Mark mark = state.marks.front();
            batch_.push_back({mark, next_time_[link]});
            // NOTE: a flow that left and came back can have two equal entries; both go stale here.
            mark_[mark.flow] = kNoTime;
            weight += state.level;
            weighted += state.level * (next_time_[link] - first);
            std::ranges::pop_heap(state.marks, kLater);
            state.marks.pop_back();
            update_next_time(link);
        }
    }
    // Centred, so that bytes sent too early and too late cancel.
    batch_time_ = first + (epsilon_ > 0.0 ? weighted / weight : 0.0);
}

// Something else happens before the batch completes: put its flows back.
void FlowEngine::restore_batch() {
    for (const Pending& p : batch_) {
        const std::uint32_t link = owner_[p.mark.flow];
        mark_[p.mark.flow] = p.mark.at;
        links_[link].marks.push_back(p.mark);
        std::ranges::push_heap(links_[link].marks, kLater);
        update_next_time(link);
    }
    batch_.clear();
}

void FlowEngine::remove(std::uint32_t flow) {
    std::int32_t* row = filling_.row(owner_[flow]);
    for (const std::uint32_t l : path(flow)) {
        --row[l];
        ++links_[l].finished;
        links_[l].outstanding -= size_[flow];
    }
    filling_.remove_flow(path(flow), dirty_round_);
    owner_[flow] = kDone;
    --num_active_;
}

void FlowEngine::finish_batch(std::vector<Completion>& done) {
    const auto first_done = static_cast<std::ptrdiff_t>(done.size());
    for (const Pending& p : batch_) {
        dirty_round_ = std::min(dirty_round_, round_of_[owner_[p.mark.flow]]);
    }
    for (const Pending& p : batch_) {
        if (window_ > 0.0) {
            const double bytes = links_[owner_[p.mark.flow]].level * std::abs(p.time - batch_time_);
            for (const std::uint32_t l : path(p.mark.flow)) links_[l].misplaced += bytes;
        }
        remove(p.mark.flow);
        done.push_back({p.mark.flow, static_cast<Picoseconds>(std::llround(p.time))});
    }
    std::sort(done.begin() + first_done, done.end(), [](const Completion& a, const Completion& b) {
        return a.time != b.time ? a.time < b.time : a.flow < b.flow;
    });
    batch_.clear();
    ++num_instants_;
}

Picoseconds FlowEngine::next_completion() {
    if (num_active_ == 0) return kNever;
    collect_batch();
    return std::max(now_, static_cast<Picoseconds>(std::llround(batch_time_)));
}

void FlowEngine::advance(Picoseconds time, std::vector<Completion>& done) {
    while (true) {
        const Picoseconds next = next_completion();
        if (next == kNever || next > time) break;
        now_ = next;
        finish_batch(done);
    }
    now_ = std::max(now_, time);
}

double FlowEngine::rate(std::uint32_t flow) {
    solve();
    return owner_[flow] == kDone ? 0.0 : links_[owner_[flow]].level * kPerSecond;
}

double FlowEngine::remaining(std::uint32_t flow) {
    restore_batch();
    const std::uint32_t owner = owner_[flow];
    if (owner == kDone) return -1.0;
    const double left = owner == kUnowned ? mark_[flow] : mark_[flow] - clock(links_[owner]);
    return std::max(left, 0.0);
}

double FlowEngine::error_bound_seconds() const {
    double worst = 0.0;
    for (const LinkState& link : links_) worst = std::max(worst, link.misplaced / link.capacity);
    return (worst + window_ / 2) / kPerSecond;
}

}  // namespace headway::sim
