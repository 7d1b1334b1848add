// Network: all messages in flight on a Topology. Links that messages (transitively) share form a
// set with an engine of its own, so that groups which do not meet do not pay for each other. An
// operation first opens the paths that it will use, then starts messages on them, then closes them.
// With batching, a set that ends within two windows of the whole operation is stepped as coarsely
// as the slowest set: nobody waits for it. A window is epsilon times what the operation needs on
// its busiest link. What stays inside nodes, beside a slow fabric, is such a set. A message between
// pipeline ranks would tie the exchanges of both into one set, and theirs to the next. With
// batching it does not: each set that its path crosses carries it for itself, and it has come when
// the last has (parts()). An engine counts time from when its set was made, so that what happens on
// an idle network does not depend on when it happens, to the bit.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <queue>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "sim/crossbar_engine.hpp"
#include "sim/flow_engine.hpp"
#include "sim/topology.hpp"

namespace headway::sim {

struct Delivery {
    std::uint64_t tag = 0;  // as given to start()
    Picoseconds time = 0;
};

struct LinkInterval {  // without a pause between messages
    std::uint32_t link = 0;
    Picoseconds begin = 0, end = 0;
    double bytes = 0.0;
};

class Network {
  public:
    // record: keep every busy interval of every link, for traces. parts: there may be any.
    Network(const Topology& topology, double epsilon, bool record, bool parts = false);

    // What an operation holds open: one link of each set that its paths fall into, and all its
    // links with what batching had moved on them before.
    struct Opened {
        std::vector<std::uint32_t> sets;
        std::vector<std::pair<std::uint32_t, double>> links;
    };
    // The paths of an operation, one after the other, and the bytes that will take time on them;
    // then what they need together. `longest`: picoseconds that it needs at least on its busiest
    // link, which may be none of these.
    void use(const Path& path, double wire_bytes);
    Opened open(Picoseconds now, double longest = 0.0);
    // What is left of earlier traffic in a set that is idle, and decides how coarsely it is
    // stepped.
    struct Coarseness {
        Picoseconds window = 0;
        double longest = 0.0;  // the engine's

        bool operator==(const Coarseness&) const = default;
    };
    // For a set just opened, and from one that is done.
    void coarsen(const Opened& opened, const Coarseness& to);
    Coarseness coarseness(const Opened& opened) const;
    // Nothing else has its links open.
    bool is_alone(const Opened& opened) const;
    // What of a message each set carries. Exact: the path itself.
    std::vector<Path> parts(const Path& path) const;
    Opened open_part(const Path& part, Picoseconds now);
    // The seconds by which batching may have moved the end of what ran on the links meanwhile.
    double close(const Opened& opened);

    // `bytes` are charged to the links' totals, `wire_bytes` (>= bytes) take time on them. The path
    // stays where it is until the message is delivered.
    void start(const Path& path, double bytes, double wire_bytes, std::uint64_t tag,
               Picoseconds now);
    Picoseconds next_delivery();
    // All that is due at `time` = next_delivery(). Delivery times may lie before or after `time` by
    // half a batching window.
    void deliver(Picoseconds time, std::vector<Delivery>& out);

    bool idle() const { return num_sets_ == 0; }
    // What has been carried so far; add(): by a repetition of something already simulated.
    struct Totals {
        std::vector<double> bytes;      // [link]
        std::vector<Picoseconds> busy;  // [link]
        std::int64_t messages = 0, instants = 0;
    };
    Totals totals() const;
    void add(const Totals& carried);

    // What a link has carried; and what all of an operation that is not simulated carries.
    struct Load {
        double bytes = 0.0;
        Picoseconds busy = 0;
    };
    Load load(std::uint32_t link) const { return {use_[link].bytes, use_[link].busy}; }
    void add(std::span<const std::uint32_t> links, std::span<const Load> carried,
             std::int64_t messages, std::int64_t instants);
    // No operation uses the link.
    bool is_free(std::uint32_t link) const {
        return set_of_[link] == kNoSet && use_[link].in_flight == 0;
    }
    // Takes over all that goes on in another network on these links, which are free here and all
    // that it uses; `opened` there is opened here.
    void adopt(Network& from, std::span<const std::uint32_t> links, Opened& opened);

    std::int64_t num_messages() const { return num_messages_; }
    std::int64_t num_instants() const { return num_instants_; }
    double bytes(std::uint32_t link) const { return use_[link].bytes; }
    Picoseconds busy(std::uint32_t link) const { return use_[link].busy; }
    std::vector<LinkInterval> take_intervals() { return std::exchange(intervals_, {}); }

  private:
    struct Message {
        const Path* path = nullptr;
        std::uint64_t tag = 0;
    };
    struct LinkState {  // of all messages, whatever set they are in
        double bytes = 0.0;
        Picoseconds busy = 0, busy_since = 0;
        std::int64_t in_flight = 0;
    };
    using Engine = std::variant<FlowEngine, CrossbarEngine>;
    struct LinkSet {
        std::vector<std::uint32_t> links;  // ascending
        Engine engine;
        Picoseconds epoch = 0;          // the engine's time zero
        std::vector<Message> messages;  // [flow of the engine]
        int opened = 0;                 // operations that use it
        Picoseconds window = 0;         // of an operation for which this set is soon done
        Picoseconds next = kNever;      // delivery, or the end of gathering starts
        bool changed = false;           // `next` is out of date
        bool gathers = false;           // `next` is the end of gathering starts, or earlier
        Picoseconds since = 0;          // it gathers
        Picoseconds otherwise = 0;      // `next` if it did not
        bool fresh = false;             // more starts were gathered at that moment
    };
    static constexpr int kNoSet = -1;

    std::uint32_t root(std::uint32_t link);
    LinkSet& set_at(std::uint32_t link) const {
        return *sets_[static_cast<std::size_t>(set_of_[link])];
    }
    static void widen(LinkSet& set, Picoseconds window);
    void join(std::uint32_t a, std::uint32_t b);
    double misplaced(std::uint32_t link) const;
    Engine make_engine(const std::vector<std::uint32_t>& links) const;
    std::vector<double> take_loads(std::span<const std::uint32_t> links);
    void retire(LinkSet& set);
    int put(std::unique_ptr<LinkSet> set);
    void make_set(std::vector<std::uint32_t> links, Picoseconds now);
    std::span<const std::uint32_t> links_inside(const LinkSet& set, const Path& path,
                                                std::array<std::uint32_t, Path::kMaxLinks>& to);
    void join_met_sets(std::vector<std::uint32_t>& links);
    void start_in(LinkSet& set, const Path* path, double wire_bytes, std::uint64_t tag);
    void note_next(int slot);
    static void fetch_ending(const LinkSet& set);
    void occupy(std::uint32_t link, double bytes, Picoseconds now);
    void release(std::uint32_t link, Picoseconds time);

    const Topology& topology_;
    double epsilon_ = 0.0;
    bool record_ = false, parts_ = false;
    // What a set has next; out of date where the set is gone or has something else next.
    struct Next {
        Picoseconds time = 0;
        int slot = 0;

        friend auto operator<=>(const Next&, const Next&) = default;
    };
    bool is_current(const Next& next) const {
        const LinkSet* set = sets_[static_cast<std::size_t>(next.slot)].get();
        return set != nullptr && set->next == next.time;
    }

    std::vector<std::unique_ptr<LinkSet>> sets_;  // free slots are null
    std::priority_queue<Next, std::vector<Next>, std::greater<>> next_;
    std::vector<int> changed_;  // slots of sets whose `next` is out of date, perhaps twice
    int num_sets_ = 0;
    std::vector<int> set_of_;            // [link]
    std::vector<std::uint32_t> local_;   // [link] index inside its set
    std::vector<std::uint32_t> parent_;  // [link] union-find, identity between calls
    std::vector<int> group_of_;          // [link] of open(), -1 between calls
    std::vector<double> misplaced_;      // [link] seconds, by engines that are gone
    std::vector<LinkState> use_;         // [link]
    std::vector<double> bytes_before_;   // [link] its busy interval, to be recorded
    std::vector<LinkInterval> intervals_;
    std::vector<Completion> completions_;
    std::vector<std::uint32_t> touched_;  // links of the paths given to use()
    std::vector<std::uint8_t> seen_;      // [link] it is among them
    std::vector<double> load_;            // [link] bytes that will take time on it
    std::int64_t num_messages_ = 0, num_instants_ = 0;
};

}  // namespace headway::sim
