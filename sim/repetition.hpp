// Repetition: parts of a step that repeat exactly. At a rendezvous of all ranks with an idle
// network and idle ranks, what follows depends on nothing but the tasks that follow. A section is
// what happens from one such moment to the next; when the same tasks come again, the simulation
// takes over what the section did the first time, shifted in time. Times are whole picoseconds and
// engines count from when they are made, so the result is the same to the bit.
#pragma once

#include <cstdint>
#include <vector>

#include "models/vocab/program.hpp"
#include "sim/network.hpp"
#include "sim/recorder.hpp"

namespace headway::sim {

struct Section {
    int first_task = 0, last_task = 0;  // both rendezvous; the section is what lies between
    Picoseconds duration = 0;           // from the release of the first to that of the last
    std::vector<Picoseconds> entered;   // [rank] the last rendezvous, since the first's release
    std::vector<SpanRecord> spans;      // of tasks between them; times since the first's release
    Network::Totals before, after;
    std::int64_t events = 0;
};

// True if tasks a + 1 .. a + length and b + 1 .. b + length do the same, given that everything up
// to a and b is done.
bool same_tasks(const Program& program, int a, int b, int length);

// The first section whose tasks come again after task `at`, or null.
const Section* find_repeated(const std::vector<Section>& sections, const Program& program, int at);

}  // namespace headway::sim
