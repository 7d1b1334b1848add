#include "sim/network.hpp"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

namespace headway::sim {
namespace {

constexpr double kShort = 2.0;     // windows
constexpr double kFreePort = 1e6;  // times the fastest

constexpr auto kNow = [](const auto& engine) { return engine.now(); };
constexpr auto kWindow = [](auto& engine) { return engine.window(); };
constexpr auto kInstants = [](const auto& engine) { return engine.num_instants(); };
constexpr auto kActive = [](const auto& engine) { return engine.num_active(); };

}  // namespace

Network::Network(const Topology& topology, double epsilon, bool record, bool parts)
    : topology_(topology), epsilon_(epsilon), record_(record), parts_(parts && epsilon > 0.0) {
    const auto links = static_cast<std::size_t>(topology.num_links());
    set_of_.assign(links, kNoSet);
    local_.assign(links, 0);
    parent_.resize(links);
    std::iota(parent_.begin(), parent_.end(), 0U);
    group_of_.assign(links, -1);
    misplaced_.assign(links, 0.0);
    use_.assign(links, {});
    if (record) bytes_before_.assign(links, 0.0);
    seen_.assign(links, 0);
    load_.assign(links, 0.0);
}

std::uint32_t Network::root(std::uint32_t link) {
    while (parent_[link] != link) link = parent_[link] = parent_[parent_[link]];
    return link;
}

void Network::join(std::uint32_t a, std::uint32_t b) {
    a = root(a);
    b = root(b);
    parent_[std::max(a, b)] = std::min(a, b);
}

void Network::use(const Path& path, double wire_bytes) {
    const std::uint32_t first = path.shared()[0];
    for (const std::uint32_t l : path.shared()) {
        if (!seen_[l]) touched_.push_back(l);
        seen_[l] = 1;
        load_[l] += wire_bytes;
        if (parent_[l] != parent_[first]) join(l, first);
    }
}

// Adds all links of the sets that own one of `links`.
void Network::join_met_sets(std::vector<std::uint32_t>& links) {
    std::vector<int> met;
    for (const std::uint32_t l : links) {
        if (set_of_[l] != kNoSet) met.push_back(set_of_[l]);
    }
    std::ranges::sort(met);
    met.erase(std::unique(met.begin(), met.end()), met.end());
    for (const int set : met) {
        const std::vector<std::uint32_t>& all = sets_[static_cast<std::size_t>(set)]->links;
        for (const std::uint32_t l : all) join(l, all[0]);
        links.insert(links.end(), all.begin(), all.end());
    }
    std::ranges::sort(links);
    links.erase(std::unique(links.begin(), links.end()), links.end());
}

double Network::misplaced(std::uint32_t link) const {
    if (set_of_[link] == kNoSet) return misplaced_[link];
    const LinkSet& set = *sets_[static_cast<std::size_t>(set_of_[link])];
    return misplaced_[link] +
           std::visit(
               [l = local_[link]](const auto& engine) { return engine.misplaced_seconds(l); },
               set.engine);
}

// The time that each link needs for the loads that use() has added up; forgets them.
std::vector<double> Network::take_loads(std::span<const std::uint32_t> links) {
    std::vector<double> times;
    for (const std::uint32_t l : links)
        times.push_back(std::exchange(load_[l], 0.0) / topology_.capacity()[l] * kPerSecond);
    return times;
}

Network::Opened Network::open(Picoseconds now, double longest) {
    Opened opened;
    std::vector<std::uint32_t> touched = std::exchange(touched_, {});
    for (const std::uint32_t l : touched) seen_[l] = 0;
    const std::vector<double> times = take_loads(touched);
    for (const double t : times) longest = std::max(longest, t);
    const double window = epsilon_ * longest;
    const std::vector<std::uint32_t> used = touched;
    for (const std::uint32_t l : touched) opened.links.emplace_back(l, misplaced(l));
    join_met_sets(touched);
    // A group of links that meet becomes a set, or is one. Its root is its first link.
    std::vector<std::vector<std::uint32_t>> groups;
    for (const std::uint32_t l : touched) {
        int& group = group_of_[root(l)];
        if (group < 0) {
            group = static_cast<int>(groups.size());
            groups.emplace_back();
        }
        groups[static_cast<std::size_t>(group)].push_back(l);
    }
    std::vector<std::uint8_t> is_short(groups.size(), 1);
    for (std::size_t k = 0; k < used.size(); ++k)
        if (times[k] > kShort * window)
            is_short[static_cast<std::size_t>(group_of_[root(used[k])])] = 0;
    for (const std::uint32_t l : touched) {
        parent_[l] = l;
        group_of_[l] = -1;
    }
    for (std::size_t g = 0; g < groups.size(); ++g) {
        const std::uint32_t r = groups[g][0];
        opened.sets.push_back(r);
        const int set = set_of_[r];
        const bool same =
            set != kNoSet && sets_[static_cast<std::size_t>(set)]->links.size() == groups[g].size();
        if (!same) make_set(std::move(groups[g]), now);
        LinkSet& set_now = set_at(r);
        ++set_now.opened;
        if (is_short[g] != 0) widen(set_now, static_cast<Picoseconds>(std::llround(window)));
    }
    return opened;
}

void Network::widen(LinkSet& set, Picoseconds window) {
    set.window = std::max(set.window, window);
    std::visit([&](auto& engine) { engine.widen(set.window); }, set.engine);
}

void Network::coarsen(const Opened& opened, const Coarseness& to) {
    LinkSet& set = set_at(opened.sets[0]);
    widen(set, to.window);
    std::visit([&](auto& engine) { engine.set_longest(to.longest); }, set.engine);
}

Network::Coarseness Network::coarseness(const Opened& opened) const {
    const LinkSet& set = set_at(opened.sets[0]);
    return {.window = set.window,
            .longest = std::visit([](const auto& engine) { return engine.longest(); }, set.engine)};
}

bool Network::is_alone(const Opened& opened) const {
    return std::ranges::all_of(opened.sets,
                               [this](std::uint32_t link) { return set_at(link).opened == 1; });
}

std::vector<Path> Network::parts(const Path& path) const {
    if (!parts_) return {path};
    std::vector<Path> parts;
    std::vector<int> set_of_part;
    for (const std::uint32_t link : path.shared()) {
        const int set = set_of_[link];
        const auto same = set == kNoSet ? set_of_part.end() : std::ranges::find(set_of_part, set);
        if (same == set_of_part.end()) {
            parts.emplace_back().add(link);
            set_of_part.push_back(set);
        } else {
            parts[static_cast<std::size_t>(same - set_of_part.begin())].add(link);
        }
    }
    return parts;
}

Network::Opened Network::open_part(const Path& part, Picoseconds now) {
    const std::uint32_t first = part.shared()[0];
    if (!parts_) {
        use(part, 0.0);
        return open(now);
    }
    Opened opened{.sets = {first}, .links = {}};
    for (const std::uint32_t l : part.shared()) opened.links.emplace_back(l, misplaced(l));
    if (set_of_[first] == kNoSet) make_set({first}, now);
    ++sets_[static_cast<std::size_t>(set_of_[first])]->opened;
    return opened;
}

// With batching, a set in which every path is an up port and a down port of one kind is a crossbar.
Network::Engine Network::make_engine(const std::vector<std::uint32_t>& links) const {
    std::vector<double> capacity;
    std::vector<bool> is_up;
    capacity.reserve(links.size() + 2);
    is_up.reserve(links.size() + 2);
    bool ports[3] = {true, true, true};  // all links are ports of: NVLink, PCIe, NICs
    for (const std::uint32_t l : links) {
        const LinkKind k = topology_.kind(l);
        capacity.push_back(topology_.capacity()[l]);
        is_up.push_back(k == LinkKind::nvlink_up || k == LinkKind::pcie_up ||
                        k == LinkKind::nic_up);
        ports[0] = ports[0] && (k == LinkKind::nvlink_up || k == LinkKind::nvlink_down);
        ports[1] = ports[1] && (k == LinkKind::pcie_up || k == LinkKind::pcie_down);
        ports[2] = ports[2] && (k == LinkKind::nic_up || k == LinkKind::nic_down);
    }
    if (epsilon_ > 0.0 && (ports[0] || ports[1] || ports[2])) {
        if (parts_) {  // the other end of a part is a port that nothing is ever short of
            capacity.insert(capacity.end(), 2, kFreePort * std::ranges::max(capacity));
            is_up.insert(is_up.end(), {true, false});
        }
        return CrossbarEngine(capacity, is_up, epsilon_);
    }
    return FlowEngine(capacity, epsilon_);
}

// A new set over `links`, with the messages of the sets that it swallows.
void Network::make_set(std::vector<std::uint32_t> links, Picoseconds now) {
    std::vector<int> old_sets;
    for (const std::uint32_t l : links) {
        if (set_of_[l] != kNoSet) old_sets.push_back(set_of_[l]);
    }
    std::ranges::sort(old_sets);
    old_sets.erase(std::unique(old_sets.begin(), old_sets.end()), old_sets.end());
    Engine engine = make_engine(links);
    auto set = std::make_unique<LinkSet>(LinkSet{
        .links = std::move(links), .engine = std::move(engine), .epoch = now, .messages = {}});
    for (const int index : old_sets) retire(*sets_[static_cast<std::size_t>(index)]);
    for (std::uint32_t k = 0; k < set->links.size(); ++k) local_[set->links[k]] = k;
    for (const int index : old_sets) {
        LinkSet& old = *sets_[static_cast<std::size_t>(index)];
        std::visit(
            [&](auto& from) {
                from.skip_to(now - old.epoch);
                (void)from.next_completion();  // gives gathered starts their rates
                for (std::uint32_t flow = 0; flow < old.messages.size(); ++flow) {
                    const double left = from.remaining(flow);
                    if (left < 0.0) continue;
                    start_in(*set, old.messages[flow].path, left, old.messages[flow].tag);
                }
            },
            old.engine);
        set->opened += old.opened;
        set->window = std::max(set->window, old.window);
        sets_[static_cast<std::size_t>(index)].reset();
        --num_sets_;
    }
    note_next(put(std::move(set)));
}

int Network::put(std::unique_ptr<LinkSet> set) {
    const auto free = std::ranges::find_if(sets_, [](const auto& s) { return s == nullptr; });
    const auto slot = static_cast<int>(free - sets_.begin());
    for (const std::uint32_t l : set->links) set_of_[l] = slot;
    ++num_sets_;
    if (free == sets_.end()) {
        sets_.push_back(std::move(set));
    } else {
        *free = std::move(set);
    }
    return slot;
}

// What is next for a set, or has to be asked for, is another than before.
void Network::note_next(int slot) {
    const LinkSet& set = *sets_[static_cast<std::size_t>(slot)];
    if (set.changed || set.fresh) changed_.push_back(slot);
    if (set.next != kNever) next_.push({set.next, slot});
}

void Network::retire(LinkSet& set) {
    for (const std::uint32_t l : set.links) misplaced_[l] = misplaced(l);
    num_instants_ += std::visit(kInstants, set.engine);
}

double Network::close(const Opened& opened) {
    double error = 0.0;
    for (const auto& [link, before] : opened.links) {
        error = std::max(error, misplaced(link) - before);
    }
    Picoseconds window = 0;
    for (const std::uint32_t link : opened.sets) {
        auto& set = sets_[static_cast<std::size_t>(set_of_[link])];
        window = std::max({window, set->window, std::visit(kWindow, set->engine)});
        if (--set->opened > 0) continue;
        assert(std::visit(kActive, set->engine) == 0);
        retire(*set);
        for (const std::uint32_t l : set->links) set_of_[l] = kNoSet;
        set.reset();
        --num_sets_;
    }
    return error + 0.5e-12 * static_cast<double>(window);
}

// A crossbar wants an up and a down port: that which a part lacks is free.
std::span<const std::uint32_t> Network::links_inside(
    const LinkSet& set, const Path& path, std::array<std::uint32_t, Path::kMaxLinks>& to) {
    std::size_t n = 0;
    for (const std::uint32_t l : path.shared()) to[n++] = local_[l];
    if (n == 1 && std::holds_alternative<CrossbarEngine>(set.engine)) {
        const auto free = static_cast<std::uint32_t>(set.links.size());  // up, then down
        const LinkKind kind = topology_.kind(path.shared()[0]);
        const bool up =
            kind == LinkKind::nvlink_up || kind == LinkKind::pcie_up || kind == LinkKind::nic_up;
        if (up) {
            to[1] = free + 1;
        } else {
            to[1] = std::exchange(to[0], free);
        }
        n = 2;
    }
    return {to.data(), n};
}

void Network::start_in(LinkSet& set, const Path* path, double wire_bytes, std::uint64_t tag) {
    std::array<std::uint32_t, Path::kMaxLinks> inside{};
    const std::span<const std::uint32_t> links = links_inside(set, *path, inside);
    std::visit([&](auto& engine) { engine.start(links, wire_bytes); }, set.engine);
    set.messages.push_back({path, tag});
    const Picoseconds now = set.epoch + std::visit(kNow, set.engine);
    if (!set.gathers) {
        set.gathers = true;
        set.since = now;
        set.otherwise = set.next;
    }
    if (set.since != now) return;
    if (epsilon_ > 0.0) {
        set.fresh = true;
    } else {
        set.changed = true;
        set.next = std::min(set.next, now);
    }
}

void Network::start(const Path& path, double bytes, double wire_bytes, std::uint64_t tag,
                    Picoseconds now) {
    const std::uint32_t first = path.shared()[0];
    assert(set_of_[first] != kNoSet);
    LinkSet& set = *sets_[static_cast<std::size_t>(set_of_[first])];
    std::visit([&](auto& engine) { engine.skip_to(now - set.epoch); }, set.engine);
    const bool noted = set.changed || set.fresh;
    start_in(set, &path, wire_bytes, tag);
    if (!noted) note_next(set_of_[first]);
    for (const std::uint32_t l : path.span()) occupy(l, bytes, now);
    ++num_messages_;  // or parts of one
}

void Network::occupy(std::uint32_t link, double bytes, Picoseconds now) {
    LinkState& use = use_[link];
    if (use.in_flight++ == 0) {
        use.busy_since = now;
        if (record_) bytes_before_[link] = use.bytes;
    }
    use.bytes += bytes;
}

void Network::release(std::uint32_t link, Picoseconds time) {
    LinkState& use = use_[link];
    if (--use.in_flight > 0) return;
    use.busy += time - use.busy_since;
    if (record_) {
        intervals_.push_back({link, use.busy_since, time, use.bytes - bytes_before_[link]});
    }
}

// Messages are far apart in memory: they are fetched, all at once, before they are delivered. Reads
// were measured to be faster than prefetch hints here.
void Network::fetch_ending(const LinkSet& set) {
    if (const auto* engine = std::get_if<CrossbarEngine>(&set.engine)) {
        engine->for_each_ending([&](std::uint32_t flow) {
            const volatile std::int16_t read = set.messages[flow].path->size;
            (void)read;
        });
    }
}

Picoseconds Network::next_delivery() {
    for (const int slot : changed_) {
        LinkSet* set = sets_[static_cast<std::size_t>(slot)].get();
        if (set == nullptr) continue;
        if (set->changed) {
            const Picoseconds in =
                std::visit([](auto& engine) { return engine.next_completion(); }, set->engine);
            set->next = in == kNever ? kNever : set->epoch + in;
            fetch_ending(*set);
            set->changed = set->gathers = set->fresh = false;
        } else if (set->fresh) {  // for the window of all of that moment, which later ones widen
            set->next = std::min(set->otherwise, set->since + std::visit(kWindow, set->engine));
            set->fresh = false;
        } else {
            continue;
        }
        note_next(slot);
    }
    changed_.clear();
    while (!next_.empty() && !is_current(next_.top())) next_.pop();
    return next_.empty() ? kNever : next_.top().time;
}

void Network::deliver(Picoseconds time, std::vector<Delivery>& out) {
    for (; !next_.empty() && next_.top().time == time; next_.pop()) {
        const int slot = next_.top().slot;
        LinkSet* set = sets_[static_cast<std::size_t>(slot)].get();
        if (!is_current(next_.top()) || set->changed) continue;
        completions_.clear();
        std::visit(
            [&](auto& engine) {
                engine.skip_to(time - set->epoch);
                engine.advance(time - set->epoch, completions_);
            },
            set->engine);
        set->changed = true;
        set->gathers = false;
        changed_.push_back(slot);
        // Messages are far apart in memory: all are asked for before the first is waited for.
        for (const Completion& c : completions_) __builtin_prefetch(&set->messages[c.flow]);
        for (const Completion& c : completions_) __builtin_prefetch(set->messages[c.flow].path);
        for (const Completion& c : completions_) {
            const Message& message = set->messages[c.flow];
            out.push_back({message.tag, set->epoch + c.time});
            for (const std::uint32_t l : message.path->span()) release(l, time);
        }
    }
}

Network::Totals Network::totals() const {
    Totals totals{.bytes = {}, .busy = {}, .messages = num_messages_, .instants = num_instants_};
    for (const LinkState& use : use_) {
        totals.bytes.push_back(use.bytes);
        totals.busy.push_back(use.busy);
    }
    return totals;
}

void Network::add(const Totals& carried) {
    for (std::size_t l = 0; l < use_.size(); ++l) {
        use_[l].bytes += carried.bytes[l];
        use_[l].busy += carried.busy[l];
    }
    num_messages_ += carried.messages;
    num_instants_ += carried.instants;
}

void Network::add(std::span<const std::uint32_t> links, std::span<const Load> carried,
                  std::int64_t messages, std::int64_t instants) {
    for (std::size_t k = 0; k < links.size(); ++k) {
        use_[links[k]].bytes += carried[k].bytes;
        use_[links[k]].busy += carried[k].busy;
    }
    num_messages_ += messages;
    num_instants_ += instants;
}

void Network::adopt(Network& from, std::span<const std::uint32_t> links, Opened& opened) {
    for (auto& [link, before] : opened.links) before += misplaced_[link];
    for (const std::uint32_t l : links) {
        assert(is_free(l));
        local_[l] = from.local_[l];
        misplaced_[l] += std::exchange(from.misplaced_[l], 0.0);
        LinkState use = std::exchange(from.use_[l], {});
        use.bytes += use_[l].bytes;
        use.busy += use_[l].busy;
        use_[l] = use;
        from.set_of_[l] = kNoSet;
    }
    for (auto& set : from.sets_)
        if (set != nullptr) note_next(put(std::move(set)));
    from.num_sets_ = 0;
    from.next_ = {};
    from.changed_.clear();
    num_messages_ += std::exchange(from.num_messages_, 0);
    num_instants_ += std::exchange(from.num_instants_, 0);
}

}  // namespace headway::sim
