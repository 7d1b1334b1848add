// Cell: messages of a collective that share links, each with another, and the members that send or
// receive them. What happens in one depends on no other, so that each is put off, repeated and
// simulated by itself (collective.hpp): of node-dedup's exchange each rail, and the inside of each
// node. A collective of several stages, or whose members leave together, is one cell.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "models/vocab/program.hpp"
#include "sim/operation.hpp"
#include "sim/path_table.hpp"

namespace headway::sim {

// The other end of a member's message, and the message.
struct Partner {
    std::int32_t member = 0, message = 0;
};

// Who sends and receives what in a stage.
struct Partners {
    std::vector<std::int32_t> first_of;  // [member + 1] into `all`
    std::vector<Partner> all;

    std::span<const Partner> of(std::size_t member) const {
        return {all.data() + first_of[member],
                static_cast<std::size_t>(first_of[member + 1] - first_of[member])};
    }
};

struct Cell {
    Operation operation;             // of its members and messages
    std::vector<Partners> partners;  // [stage]
};

// What is known of a collective beside its messages.
struct Outline {
    std::vector<int> members;  // ranks
    std::vector<double> sent;  // [member] bytes
    Picoseconds latency = 0;   // of the first stage
    int num_stages = 0;
    double busiest = 0.0;           // picoseconds that the messages need on a link
    double decoupling_error = 0.0;  // seconds
};

struct SpelledOut {
    Outline outline;
    bool apart = false;  // into cells
    std::vector<Cell> cells;
};

// Throws DeadPath when a message needs a dead link. `apart`: in cells, and `busiest` is known.
std::shared_ptr<const SpelledOut> spell_out(const Task& task, int group, const PathTable& paths,
                                            double epsilon, bool apart);

}  // namespace headway::sim
