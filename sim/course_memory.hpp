// CourseMemory: the courses of exchanges and reductions, of each of their cells (cell.hpp), that
// had their links to themselves. Such a cell depends on nothing but what it is and when, after the
// first, each of its ranks came. When the same comes again, as in the next micro-batch of a
// pipeline, it takes the same course, which need not be simulated: its ranks leave at the times
// noted. A departure depends on the arrivals before it, so that a course can be followed before all
// have come. Nor are the messages of what comes again spelled out again, as far as there is room.
// With batching, a rank comes at the next multiple of a fraction of the batching window after the
// first, so that ranks which come nearly as before come as before. The error bound of the
// collective counts it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "models/vocab/program.hpp"
#include "sim/cell.hpp"
#include "sim/network.hpp"
#include "sim/operation.hpp"

namespace headway::sim {

struct Departure {
    Picoseconds time = 0;  // since the first arrival
    int member = 0;
    PathClass bottleneck = PathClass::self;  // of the message that it waited for last
};

struct Course {
    std::optional<Network::Coarseness> found;  // RunningCell's
    Network::Coarseness left;
    std::vector<Picoseconds> arrivals;  // [member] since the first
    std::vector<int> order;             // members as they arrive
    std::vector<Departure> departures;  // in order
    std::vector<Network::Load> loads;   // [link of the cell] carried
    std::int64_t instants = 0;
    double error = 0.0;  // seconds, by batching
};

inline constexpr Picoseconds kNotYet = kNever;  // of an arrival

// What cells of all collectives of the same work and group have in common.
struct CellKind {
    std::vector<int> members;          // ranks
    std::vector<std::uint32_t> links;  // of all paths
    std::int64_t num_messages = 0;
    bool collective = false;  // messages start when all have come
    bool is_one_set = true;   // of the network's: no path skips links
    // [member, bit of a member] which arrivals a departure waits for at least, and the fewest.
    std::vector<std::uint64_t> waits;
    std::size_t fewest_waits = 0;
    std::deque<Course> courses;  // a course stays where it is

    // False as long as nobody can leave.
    bool may_depart(std::span<const Picoseconds> arrivals, std::size_t num_arrived) const;
    // The last course noted of those that are so up to now: those who have come, came then, and the
    // others later. Null: none.
    const Course* find(const std::optional<Network::Coarseness>& found,
                       std::span<const Picoseconds> arrivals, Picoseconds since_first) const;
    bool fits(const Course& course, std::span<const Picoseconds> arrivals,
              Picoseconds since_first) const;
};

struct CollectiveKind {
    Outline outline;
    std::vector<CellKind> cells;
    // A member's places in the cells.
    struct Place {
        int cell = 0, member = 0;
    };
    std::vector<std::uint32_t> first_place;  // [member + 1] into `places`
    std::vector<Place> places;
    bool comes_again = false, apart = false;
    Picoseconds quantum = 0;                        // of the arrivals after the first; 0: any
    std::shared_ptr<const SpelledOut> spelled_out;  // null: not kept

    Picoseconds rounded_up(Picoseconds since_first) const {
        return quantum == 0 ? since_first : (since_first + quantum - 1) / quantum * quantum;
    }
    std::span<const Place> places_of(int member) const {
        const auto m = static_cast<std::size_t>(member);
        return {places.data() + first_place[m], places.data() + first_place[m + 1]};
    }
};

CollectiveKind kind_of(const SpelledOut& spelled_out, bool comes_again, double epsilon);

class CourseMemory {
  public:
    CourseMemory(const Program& program, double epsilon);

    // The work of the task comes in other tasks too.
    bool is_of_a_kind(int task) const { return class_of_[static_cast<std::size_t>(task)] >= 0; }
    // Null: not known yet, or of none.
    CollectiveKind* find(int task, int group);
    CollectiveKind& learn(int task, int group, std::shared_ptr<const SpelledOut> spelled_out);
    void remember(CellKind& kind, Course course);

  private:
    double epsilon_ = 0.0;
    std::vector<int> class_of_;  // [task] tasks of the same work have the same; -1: none has it
    std::unordered_map<std::uint64_t, CollectiveKind> kinds_;
    std::size_t bytes_ = 0;              // of the courses
    std::size_t bytes_spelled_out_ = 0;  // of the messages
};

// [member, bit of a member] itself, its partners of a stage, and whom they wait for in the stages
// before: it cannot end the last stage before they have begun the first.
std::vector<std::uint64_t> waits_of(const Operation& operation);

}  // namespace headway::sim
