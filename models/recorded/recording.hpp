// Recording: one training step of one rank of somebody's own script, as a list of what its host
// enqueued. `headway import --torch-trace` makes it, `--program` replays it on a cluster.
//
// A compute task stands for all kernels that were enqueued in a row on one stream. If the stream is
// free at F and the host comes to the task at B, it ends at
//   max(F + device, B + lead + device),  lead = max_i (host time until launch i - sum_{j<i} d_j),
// which is what kernel after kernel comes to: a kernel starts when the host has launched it and the
// one before has ended.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/model_spec.hpp"
#include "models/vocab/profile.hpp"
#include "models/vocab/units.hpp"

namespace headway::inline recorded {

// Ranks {base, base + stride, ...}: an axis of the layout.
struct RecordedGroup {
    std::string name;
    int size = 1, stride = 1;
    bool grows = false;  // with the cluster: its ranks hold the same work (data parallelism)
};

enum class RecordedKind { compute, collective };
inline constexpr std::array kRecordedKindNames = {std::string_view("compute"),
                                                  std::string_view("collective")};

struct RecordedTask {
    RecordedKind kind = RecordedKind::compute;
    int stream = 0;
    Seconds host;             // of the host thread, until it has enqueued the task
    std::vector<int> after;   // numbers of tasks of other streams that must have ended
    bool host_waits = false;  // for the end, before it goes on
    // compute
    Seconds device, lead;
    Seconds fixed;  // of `device`, whatever the rows are
    int kernels = 0;
    Flops flops;
    std::string what;            // the annotation around it, else its longest kernel
    std::optional<int> rows_of;  // number of the exchange whose received rows it works on
    // collective
    Collective collective = Collective::all_reduce;
    int group = 0;                      // in Recording::groups
    Bytes bytes;                        // of the whole buffer; unused for all_to_all
    std::vector<double> send, receive;  // all_to_all: bytes to and from each rank of the group
    double row_bytes = 0;               // of one row of it
    std::optional<int> returns;         // an exchange that brings back the rows of that one
};

// What the router of an MoE chooses from: needed to draw other routings. The rest is what another
// layer in its place needs to know.
struct RecordedRouter {
    int experts = 0;
    int top_k = 0;                    // 0: not known
    std::optional<int> expert_width;  // f
    std::optional<Activation> activation;
    std::string annotation;  // of the script, around its MoE layers
};

struct Recording {
    std::string name;
    std::string device;
    int rank = 0, world_size = 1;
    bool fake = false;        // its exchanges sent nothing
    double host_scale = 1.0;  // that the profiled host times were multiplied by
    Seconds wait_latency;     // from the end of what a host waits for to the next kernel's start
    Seconds host_tail;        // of the host, behind the last task
    std::optional<Seconds> measured_step, measured_enqueue, replayed_step;
    std::optional<Bytes> peak_memory;
    std::optional<RecordedRouter> router;
    std::vector<RecordedGroup> groups;
    std::vector<RecordedTask> tasks;
    std::vector<std::string> inferred;
};

}  // namespace headway::inline recorded
