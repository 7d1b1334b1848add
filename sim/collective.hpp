// RunningCollective: an exchange or a reduction under way, and RunningCell: one of its cells
// (cell.hpp): which members have entered a stage, which messages are still missing, and when each
// member's last one came. A member enters a stage, waits its latency, is armed; messages start when
// both their ends are armed; the member leaves the stage when its last message has come, and the
// collective when it has left all its cells. In a collective stage all messages start together and
// all members leave together.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "sim/cell.hpp"
#include "sim/course_memory.hpp"
#include "sim/event_queue.hpp"
#include "sim/network.hpp"

namespace headway::sim {

struct MemberState {
    Picoseconds last = 0;       // latest delivery
    std::int32_t slowest = -1;  // the message of that delivery, or -1
    int pending = 0;            // messages to and from the member
};

struct StageState {
    std::vector<std::uint8_t> armed;  // [member]
    std::vector<MemberState> members;
    std::vector<Picoseconds> begin;  // [message]; only with traces
    int num_armed = 0, num_pending = 0;
};

// What a message of an exchange under way takes here: itself, its places among `Partners`, and what
// the network keeps of it.
inline constexpr double kBytesOfMessage = sizeof(Message) + 2 * sizeof(Partner) + 48;

struct RunningCollective;

struct RunningCell {
    RunningCollective* whole = nullptr;
    CellKind* kind = nullptr;
    const Cell* cell = nullptr;             // null: not spelled out
    std::vector<StageState> states;         // of each stage; may be longer
    std::optional<Network::Opened> opened;  // in the network
    std::uint32_t slot = 0;                 // its number among those under way
    // How coarsely the set of its links is stepped: as the one before it on the same links has left
    // it, if that had not ended yet, and as it leaves it itself.
    std::optional<Network::Coarseness> found;
    Network::Coarseness left;
    int num_departed = 0;

    // If its collective comes again, it is put off until somebody may leave, then takes a course
    // noted before or is simulated and noted, for as long as it has its links to itself.
    enum class Mode { simulated, put_off, repeats };
    Mode mode = Mode::simulated;
    bool noted = false;                  // simulated, with its links to itself
    Picoseconds first = 0;               // arrival, of all cells
    std::vector<Picoseconds> arrivals;   // [member] since then, or kNotYet
    std::vector<int> order;              // members that have arrived
    std::vector<std::uint8_t> departed;  // [member]
    const Course* course = nullptr;      // that it repeats,
    std::size_t num_left = 0;            // up to this departure
    std::size_t num_come = 0;            // and all of this many in its order have arrived
    int version = 0;                     // of what it expects next, never the same again
    std::vector<Departure> departures;   // to be noted, if it is simulated
    std::vector<Network::Load> before;   // [link of the kind]

    int num_stages() const;
    bool is_done() const { return num_departed == static_cast<int>(departed.size()); }
    bool opens(int member, int stage) const;  // its links, once the member is armed
    bool is_rendezvous() const;               // one stage without messages: all leave together
    // The path of the message that a member which leaves now has waited for last.
    PathClass bottleneck(int member) const;
};

struct RunningCollective {
    int task = 0, group = 0;
    CollectiveKind* kind = nullptr;
    std::optional<CollectiveKind> own_kind;  // if it does not come again
    std::shared_ptr<const SpelledOut> spelled_out;
    std::vector<RunningCell*> cells;
    bool has_begun = false;  // somebody has come to a cell
    int num_entered = 0;
    Picoseconds first = 0;              // that somebody comes
    std::vector<int> missing;           // [member] cells that it has not left
    std::vector<PathClass> bottleneck;  // [member] of the cell that it left last
    int members_done = 0, cells_repeated = 0;
    double error = 0.0;  // seconds, by batching, of the cells that have ended

    int num_stages() const { return kind->outline.num_stages; }
    const std::vector<int>& members() const { return kind->outline.members; }
    int member_index(int rank) const;
};

inline int RunningCell::num_stages() const {
    return whole->num_stages();
}

// Where it runs.
struct Medium {
    const Topology& topology;
    Network& network;
    EventQueue& events;
    bool trace = false;
};

// What follows from a member being armed.
enum class Armed {
    waits,    // for its messages
    leaves,   // there are none for it
    all_meet  // it is the last of a collective stage without messages
};

// An event: the member, which enters the stage at `now`, has waited its latency.
void push_armed(const RunningCell& run, int member, int stage, Picoseconds now, EventQueue& events);
void open(RunningCell& run, Picoseconds now, Network& network);
Armed arm(RunningCell& run, int member, int stage, Picoseconds now, const Medium& in);
// All members leave the stage at `time`.
void release(const RunningCell& run, int stage, Picoseconds time, EventQueue& events);
// The tag under which a message goes through the network names its cell's slot.
inline std::uint32_t slot_of(const Delivery& delivery) {
    return static_cast<std::uint32_t>(delivery.tag >> 44);
}
void deliver(RunningCell& run, const Delivery& delivery, Picoseconds now, const Medium& in);

// A new cell, whose memory is used again.
void begin_cell(RunningCollective& whole, CellKind& kind, RunningCell& run);
// Its messages are known.
void begin_stages(const Cell& cell, bool trace, RunningCell& run);

}  // namespace headway::sim
