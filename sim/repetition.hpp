// Repetition: parts of a step that repeat exactly. The step is still when no collective is under
// way, so that ranks only compute, or when all ranks are in a rendezvous and nothing else happens.
// What follows then depends on nothing but who computes what until when (Still) and the tasks that
// follow. A section is what happens from one such moment to the next; when the same tasks come
// again in the same state, the simulation takes over what the section did, shifted in time. Times
// are whole picoseconds and engines count from when they are made, so the result is the same to the
// bit. Only for programs of one role: the ranks of a pipeline are at different tasks at all times.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "models/vocab/program.hpp"
#include "sim/network.hpp"
#include "sim/recorder.hpp"

namespace headway::sim {

inline constexpr std::size_t kNumStreams = kNumStreamsWithSends;
inline constexpr int kNoTask = -1;

// Times count from now, `task` from Still::first.
struct Computing {
    int rank = 0, task = 0;
    Picoseconds started = 0, since = 0, until = 0;  // `since`: when `alone` was so
    OverlappedCompute alone;                        // in picoseconds

    bool operator==(const Computing&) const = default;
};

struct Still {
    int first = 0;                                    // all ranks have ended the tasks before it
    int reach = 0;                                    // none has begun this task or a later one
    bool rendezvous = false;                          // all are in task `first` and leave it now
    std::vector<std::array<int, kNumStreams>> ended;  // [rank] tasks of a stream from `first` on
    std::vector<Computing> computing;                 // in the order in which they will end

    // The first task that is not under way everywhere.
    int first_open() const { return rendezvous ? first + 1 : first; }
    bool same_state(const Still& other) const {
        return rendezvous == other.rendezvous && computing == other.computing &&
               ended == other.ended;
    }
};

struct Section {
    Still begin, end;
    Picoseconds duration = 0;
    std::vector<Picoseconds> entered;  // [rank] the rendezvous at the end, since the begin
    std::vector<SpanRecord> spans;     // times since the begin; without a rendezvous at the begin
    Network::Totals carried;
    std::int64_t events = 0;
};

// True if tasks a .. a + count - 1 and b .. b + count - 1 do the same, given that all before is
// done that they wait for.
bool same_tasks(const Program& program, int a, int b, int count);

class Repetition {
  public:
    explicit Repetition(const Program& program);

    // A section begins at a still moment; `totals` and `events` so far.
    void begin(const Still& at, Picoseconds now, Network::Totals totals, std::int64_t events);
    bool is_open() const { return is_open_; }
    // It ends; `entered`: when each rank came to the rendezvous, if that is where; `spans`: of
    // tasks that ended meanwhile.
    void end(const Still& at, Picoseconds now, std::span<const Picoseconds> entered,
             std::vector<SpanRecord> spans, const Network::Totals& totals, std::int64_t events);
    // The first section that happens again from `now` on, or null.
    const Section* find(const Still& now) const;

  private:
    bool nothing_comes_early(const Section& section, int a, int b) const;

    const Program& program_;
    std::array<std::vector<int>, kNumStreams> tasks_;  // of each stream
    std::vector<Section> sections_;
    std::size_t num_spans_ = 0;  // in sections_
    Section section_;
    Picoseconds since_ = 0;
    bool is_open_ = false;
};

}  // namespace headway::sim
