// Operation: one collective of one group of ranks, spelled out as messages. A rank goes through the
// stages one after the other; a message starts when sender and receiver are both in its stage and
// have waited the stage's latency. In a collective stage (ring and tree reductions, the exchange of
// counts) all messages start together and all ranks leave together.
//   grouped       one stage, all pairs
//   pairwise      n - 1 stages; in stage r rank i sends to i + r mod n
//   hierarchical  stage 1: inside the island, to the rank with the destination's local number;
//                 stage 2: from there over the fabric
//   ring          reductions, as one message a hop with all bytes that the hop carries in the end:
//                 2 S (n-1)/n for an all-reduce, S (n-1)/n for all-gather and reduce-scatter; k
//                 rings of S / k each, k = lanes of ring_lanes() (vocab/cluster.hpp)
//   tree          in every lane two binary trees of S / 2k each, up and down; the leaves of one are
//                 inner in the other
#pragma once

#include <cstdint>
#include <vector>

#include "models/vocab/program.hpp"
#include "sim/flow_engine.hpp"
#include "sim/path_table.hpp"

namespace headway::sim {

struct alignas(64) Message {        // a cache line: messages are visited in no order
    std::int32_t from = 0, to = 0;  // index of the member
    double bytes = 0.0;
    double wire_bytes = 0.0;  // bytes / efficiency: what takes time on the links
    PathClass path_class = PathClass::self;
    Path path;
};

struct Stage {
    Picoseconds latency = 0;
    bool collective = false;
    std::vector<Message> messages;
};

struct Operation {
    std::vector<int> members;  // ranks
    std::vector<Stage> stages;
};

Picoseconds to_picoseconds(Seconds time);

// `num_ranks` of the world; groups are numbered from 0.
int num_groups(const ExchangeTask& task, int num_ranks);
int num_groups(const ReduceTask& task, int num_ranks);
int group_of(const ExchangeTask& task, int rank);
int group_of(const ReduceTask& task, int rank);

// Into `op`, whose memory is used again. Throws DeadPath when a message needs a dead link.
void expand(const ExchangeTask& task, int group, const PathTable& paths, Operation& op);
void expand(const ReduceTask& task, int group, const PathTable& paths, Operation& op);

// A stage whose messages over the fabric first cross NVLink to a NIC of their rail, beside messages
// that stay inside the node: if the latter are gone within 2 epsilon of the time that the fabric
// needs, fabric messages no longer compete for NVLink (Path::skip), and each rail is a system of
// its own. Returns the error that this may make, in seconds: the messages inside last at most
//   max_p (inside bytes of port p / its bandwidth) / (1 - relay_share),
// 0 if nothing was decoupled.
double decouple(Stage& stage, const Topology& topology, double epsilon);

}  // namespace headway::sim
