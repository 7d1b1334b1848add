#include "sim/flow_engine.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "sim/row_kernels.hpp"

namespace headway::sim {
namespace {

constexpr double kNoTime = std::numeric_limits<double>::infinity();

// A repair may take so many steps a link; a step costs less than a round of filling.
constexpr std::size_t kStepsOfRepair = 4;

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
    : levels_(per_picosecond(capacity)),
      epsilon_(epsilon),
      links_(capacity.size()),
      clocks_(capacity.size(), Clock{.first = kNoTime}),
      next_time_(static_cast<std::size_t>(levels_.stride()), kNoTime),
      in_order_(capacity.size(), false),
      changed_(capacity.size(), false) {
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
    born_flows_.push_back(flow);
    for (const std::uint32_t l : links) {
        links_[l].crossing.push_back(flow);
        links_[l].outstanding += bytes;
        longest_ = std::max(longest_, links_[l].outstanding / links_[l].capacity);
    }
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
    if (changed_links_.empty() && born_flows_.empty()) return;
    if (started_) update_window();
    place_born();
    if (!repair()) fill();
    make_good_born();
    for (const std::uint32_t link : changed_links_) changed_[link] = false;
    changed_links_.clear();
}

// The first in the order of the links of its path.
std::uint32_t FlowEngine::first_owner(std::uint32_t flow) const {
    return *std::ranges::min_element(path(flow), {}, [&](std::uint32_t l) { return place_[l]; });
}

// New flows belong to links that own flows already or, where a path has none, to the one that would
// give them least: the order is then nearly right, whatever their number.
void FlowEngine::place_born() {
    if (born_flows_.empty()) return;
    const auto by_share = [&](std::uint32_t l) { return std::pair(share(l), l); };
    const auto old = static_cast<std::ptrdiff_t>(order_.size());
    place_.assign(links_.size(), kUnowned);
    for (std::uint32_t k = 0; k < order_.size(); ++k) place_[order_[k]] = k;
    for (const std::uint32_t flow : born_flows_) {
        if (place_[first_owner(flow)] != kUnowned) continue;
        const std::uint32_t link = *std::ranges::min_element(path(flow), {}, by_share);
        place_[link] = static_cast<std::uint32_t>(order_.size());
        in_order_[link] = true;
        order_.push_back(link);
    }
    std::ranges::sort(order_.begin() + old, order_.end(), {}, by_share);
    for (std::uint32_t k = 0; k < order_.size(); ++k) place_[order_[k]] = k;
    for (const std::uint32_t flow : born_flows_) {
        const std::uint32_t link = first_owner(flow);
        owner_[flow] = link;
        mark_[flow] += got(clocks_[link]);
        push_mark(flow);
        levels_.add(path(flow), link);
        mark_changed(link);
    }
}

// A caller may have gathered starts: what a flow would have got since it was to start.
void FlowEngine::make_good_born() {
    for (const std::uint32_t flow : born_flows_) {
        if (born_[flow] == now_) continue;
        const std::uint32_t link = owner_[flow];
        const double waited = clocks_[link].level * static_cast<double>(now_ - born_[flow]);
        mark_[flow] -= waited;
        drop_stale(link);
        for (const std::uint32_t l : path(flow)) links_[l].misplaced += waited;
        push_mark(flow);
    }
    born_flows_.clear();
}

// Finds the levels from those before; false if that takes too long.
bool FlowEngine::repair() {
    std::size_t at = 0;
    while (at < order_.size() && !changed_[order_[at]]) ++at;
    steps_ = 0;
    if (!settle(at)) return false;
    for (int link = levels_.overfull(); link >= 0; link = levels_.overfull()) {
        order_.push_back(static_cast<std::uint32_t>(link));
        in_order_[static_cast<std::size_t>(link)] = true;
        if (!settle(order_.size() - 1)) return false;
    }
    return true;
}

// Gives the links from `at` on the levels at which they are full, those before being right.
bool FlowEngine::settle(std::size_t at) {
    while (at < order_.size()) {
        const std::uint32_t link = order_[at];
        double level = levels_.full(link);
        if (level == kNoTime) {
            order_.erase(order_.begin() + static_cast<std::ptrdiff_t>(at));
            in_order_[link] = false;
            levels_.set_level(link, 0.0);
            continue;
        }
        ++steps_;
        for (; at > 0 && FairLevels::is_below(level, levels_.level(order_[at - 1])); --at) {
            const std::uint32_t before = order_[at - 1];
            if (levels_.shared(before, link) > 0) {
                take(before, link);
                level = levels_.full(link);
            }
            order_[at] = before;
            ++steps_;
        }
        order_[at++] = link;
        if (steps_ > kStepsOfRepair * order_.size()) return false;
        const double old = levels_.level(link);
        if (!FairLevels::is_below(level, old) && !FairLevels::is_below(old, level)) continue;
        levels_.set_level(link, level);
        set_clock(link);
    }
    return true;
}

// Finds the levels from scratch.
void FlowEngine::fill() {
    ++num_fillings_;
    for (const std::uint32_t link : order_) in_order_[link] = false;
    std::ranges::fill(next_time_, kNoTime);
    order_.clear();
    levels_.begin_filling();
    for (int next = levels_.next_bottleneck(); next >= 0; next = levels_.next_bottleneck()) {
        const auto link = static_cast<std::uint32_t>(next);
        take_open(link);
        levels_.freeze(link);
        set_clock(link);
        order_.push_back(link);
        in_order_[link] = true;
    }
}

// The flows of a group that cross the link `to` belong to it from now on.
void FlowEngine::take(std::uint32_t from, std::uint32_t to) {
    drop_finished(to);
    const std::size_t old_marks = links_[to].marks.size();
    int wanted = levels_.shared(from, to);
    for (const std::uint32_t flow : links_[to].crossing) {
        if (owner_[flow] != from) continue;
        levels_.move(path(flow), from, to);
        move_mark(flow, to);
        if (--wanted == 0) break;
    }
    assert(wanted == 0);
    sift(to, old_marks);
    drop_stale(from);
}

// In a filling: so do all those across it that belong to links which fill up later.
void FlowEngine::take_open(std::uint32_t to) {
    drop_finished(to);
    const std::size_t old_marks = links_[to].marks.size();
    int wanted = levels_.unfrozen(to) - levels_.group(to);
    for (auto flow = links_[to].crossing.begin(); wanted > 0; ++flow) {
        const std::uint32_t from = owner_[*flow];
        if (from == to || from == kDone || in_order_[from]) continue;
        levels_.hand_over(path(*flow), from, to);
        move_mark(*flow, to);
        --wanted;
    }
    sift(to, old_marks);
}

void FlowEngine::move_mark(std::uint32_t flow, std::uint32_t to) {
    mark_[flow] += got(clocks_[to]) - got(clocks_[owner_[flow]]);
    owner_[flow] = to;
    links_[to].marks.push_back({mark_[flow], flow});
}

void FlowEngine::drop_finished(std::uint32_t link) {
    LinkState& state = links_[link];
    if (state.finished * 2 <= state.crossing.size()) return;
    std::erase_if(state.crossing, [&](std::uint32_t f) { return owner_[f] == kDone; });
    state.finished = 0;
}

// Makes the marks from `old_marks` on part of the heap.
void FlowEngine::sift(std::uint32_t link, std::size_t old_marks) {
    std::vector<Mark>& marks = links_[link].marks;
    const auto group = static_cast<std::size_t>(levels_.group(link));
    if (marks.size() > 16 + 2 * group) {  // most are stale, and dear to take out one by one
        std::erase_if(marks, [&](const Mark& m) { return is_stale(link, m); });
        std::ranges::make_heap(marks, kLater);
    } else if (marks.size() - old_marks > 8 + old_marks / 8) {
        std::ranges::make_heap(marks, kLater);
    } else {
        for (auto end = marks.begin() + static_cast<std::ptrdiff_t>(old_marks); end != marks.end();)
            std::push_heap(marks.begin(), ++end, kLater);
    }
    drop_stale(link);
}

void FlowEngine::push_mark(std::uint32_t flow) {
    const std::uint32_t link = owner_[flow];
    std::vector<Mark>& marks = links_[link].marks;
    marks.push_back({mark_[flow], flow});
    sift(link, marks.size() - 1);
}

void FlowEngine::set_clock(std::uint32_t link) {
    Clock& clock = clocks_[link];
    clock.got = got(clock);
    clock.time = now_;
    clock.level = levels_.level(link);
    update_next_time(link);
}

// Keeps the first mark of a group that of a flow of the group.
void FlowEngine::drop_stale(std::uint32_t link) {
    std::vector<Mark>& marks = links_[link].marks;
    while (!marks.empty() && is_stale(link, marks.front())) {
        std::ranges::pop_heap(marks, kLater);
        marks.pop_back();
    }
    clocks_[link].first = marks.empty() ? kNoTime : marks.front().at;
    update_next_time(link);
}

void FlowEngine::update_next_time(std::uint32_t link) {
    const Clock& clock = clocks_[link];
    next_time_[link] = clock.first == kNoTime ? kNoTime
                                              : static_cast<double>(clock.time) +
                                                    (clock.first - clock.got) / clock.level;
}

void FlowEngine::collect_batch() {
    if (num_active_ == 0 || !batch_.empty()) return;
    solve();
    const double first =
        next_time_[static_cast<std::size_t>(argmin(next_time_.data(), levels_.stride()))];
    const double last = first + std::max(kTie, window_);
    double weight = 0.0, weighted = 0.0;
    for (const std::uint32_t link : order_) {
        while (next_time_[link] <= last) {
            const Mark mark = links_[link].marks.front();
            batch_.push_back({mark, next_time_[link]});
            // NOTE: a flow that left and came back can have two equal entries; both go stale here.
            mark_[mark.flow] = kNoTime;
            weight += clocks_[link].level;
            weighted += clocks_[link].level * (next_time_[link] - first);
            drop_stale(link);
        }
    }
    // Centred, so that bytes sent too early and too late cancel.
    batch_time_ = first + (epsilon_ > 0.0 ? weighted / weight : 0.0);
}

// Something else happens before the batch completes: put its flows back.
void FlowEngine::restore_batch() {
    for (const Pending& p : batch_) {
        mark_[p.mark.flow] = p.mark.at;
        push_mark(p.mark.flow);
    }
    batch_.clear();
}

void FlowEngine::remove(std::uint32_t flow) {
    levels_.remove(path(flow), owner_[flow]);
    mark_changed(owner_[flow]);
    for (const std::uint32_t l : path(flow)) {
        ++links_[l].finished;
        links_[l].outstanding -= size_[flow];
    }
    owner_[flow] = kDone;
    --num_active_;
}

void FlowEngine::finish_batch(std::vector<Completion>& done) {
    const auto first_done = static_cast<std::ptrdiff_t>(done.size());
    for (const Pending& p : batch_) {
        if (window_ > 0.0) {
            const double bytes =
                clocks_[owner_[p.mark.flow]].level * std::abs(p.time - batch_time_);
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
    if (num_active_ > 0) return;
    levels_.clear();
    for (const std::uint32_t link : order_) in_order_[link] = false;
    order_.clear();
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
    return owner_[flow] == kDone ? 0.0 : clocks_[owner_[flow]].level * kPerSecond;
}

double FlowEngine::remaining(std::uint32_t flow) {
    restore_batch();
    const std::uint32_t owner = owner_[flow];
    if (owner == kDone) return -1.0;
    const double left = owner == kUnowned ? mark_[flow] : mark_[flow] - got(clocks_[owner]);
    return std::max(left, 0.0);
}

double FlowEngine::error_bound_seconds() const {
    double worst = 0.0;
    for (const LinkState& link : links_) worst = std::max(worst, link.misplaced / link.capacity);
    return (worst + window_ / 2) / kPerSecond;
}

}  // namespace headway::sim
