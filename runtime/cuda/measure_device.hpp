// measure_on_device: runs the MoE layers of a plan on this rank's GPU, with its peers, and times
// every phase by events, as runtime/layers/measure does it on threads. In flow (the default), the
// host of every rank enqueues a whole pass behind a busy stream, as in a training step whose host
// runs ahead; EP's host waits for counts, and nobody else waits. A layer without such a wait is
// captured in a CUDA graph and replayed: every layer of a rank that is alone, and HP's with its
// NCCL exchanges. Isolated timing (PhaseClock) serves curves.
#pragma once

#include <exception>
#include <functional>
#include <string>

#include "models/vocab/error.hpp"
#include "runtime/cuda/phase_clock.hpp"
#include "runtime/phase_samples.hpp"

namespace headway::runtime {

struct DeviceMeasureOptions {
    int num_layers = 1;
    int num_warmups = 3;
    int num_repeats = 9;
    bool backward = true;
    bool graph = true;  // where a layer can be captured; else the host enqueues every repeat
    Timing timing = Timing::in_flow;
    std::function<void(int done, int total)> progress;  // after each repeat
};

struct DeviceMeasurement {
    Measurement measurement;               // of all ranks, the same on all of them; with its run
    std::vector<std::int64_t> peak_bytes;  // [rank] of the arena: weights to workspace
};

// Collective. `scenario` as scenario_to_run gives it. What fails on the way becomes a RankFailure
// that names this rank and its phase.
DeviceMeasurement measure_on_device(DeviceContext& context, const Scenario& scenario,
                                    const Plan& plan, const DeviceMeasureOptions& options);

// What `body` throws on the way becomes a RankFailure that names this rank and its phase.
template <class Body>
auto as_failures_of_the_rank(DeviceContext& context, Body&& body) {
    context.site.reset();
    const std::size_t mark = context.arena.used();
    try {
        return body();
    } catch (const RankFailure&) {
        throw;
    } catch (const InputError&) {
        context.arena.release(mark);
        throw;
    } catch (const std::exception& error) {
        throw RankFailure(context.communicator.rank(), context.site, error.what());
    }
}

std::string device_name();
// Collective: the lowest clock of the ranks' GPUs, and what held one of them down.
RunState run_state(DeviceCommunicator& communicator);

}  // namespace headway::runtime
