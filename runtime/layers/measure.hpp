// measure: runs the MoE layers of a plan on thread ranks and times every phase on every rank. Each
// repeat runs forward and backward of every layer between barriers; communication starts when all
// its ranks have arrived. A phase's duration is the median over repeats, with p10 and p90; its
// begin is the arrival, so that the arrival skew can be read from it.
#pragma once

#include <functional>
#include <optional>

#include "models/vocab/scenario.hpp"
#include "runtime/phase_samples.hpp"
#include "runtime/thread_communicator.hpp"

namespace headway::runtime {

// For tests of the fault handling: what happens to `rank` when it enters `phase`. Killed (SIGKILL)
// and stopped (SIGSTOP) can only be ranks that are processes.
struct InjectedFault {
    enum class Kind { throws, stalls, is_killed, is_stopped };
    Kind kind = Kind::throws;
    int rank = 0;
    Phase phase = Phase::expert;
};

struct MeasureOptions {
    int num_layers = 1;
    int num_warmups = 2;
    int num_repeats = 9;
    bool backward = true;
    bool graph = true;                // on GPUs, where a layer can be captured
    bool direct_exchange = false;     // on GPUs: HP's exchanges are stores into the peers' memory
    Timing timing = Timing::in_flow;  // on GPUs; threads are always isolated
    ThreadRunOptions threads;
    std::function<void(int done, int total)> progress;  // called by rank 0 after each repeat
    std::optional<InjectedFault> fault;
};

// `scenario` as scenario_to_run gives it. fp64 models run in fp64, all others in fp32.
Measurement measure_plan(const Scenario& scenario, const Plan& plan, const MeasureOptions& options);

// The same by ranks that are processes, of which `communicator` is this one; collective. The
// Measurement is that of all ranks, on every rank.
Measurement measure_rank(const Scenario& scenario, const Plan& plan, const MeasureOptions& options,
                         Communicator& communicator);

// What is to happen to `rank` on entering `site`.
void obey(const InjectedFault& fault, int rank, CallSite site);

// What a run would need. Time assumes 4 GFLOP/s a core: a slow core, so a pessimist's number.
struct RunEstimate {
    Seconds time;
    Bytes memory;
};
RunEstimate estimate_run(const Scenario& scenario, const Plan& plan, const MeasureOptions& options);

}  // namespace headway::runtime
