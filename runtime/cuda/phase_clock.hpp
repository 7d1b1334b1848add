// PhaseClock: when each phase of a layer began and how long it took, by events on the stream; and
// DevicePhase, which brackets a phase with them. In flow, nothing else happens: a pass is enqueued
// as a job enqueues it, and what a rank waits for others inside an exchange is taken out
// afterwards, from when all ranks' streams had come to it (runtime/phase_samples). Isolated, for
// the curves of exchanges, the hosts meet before each, and it runs behind a busy stream that all
// ranks leave together: neither a wait for others nor the host's enqueueing is in its time.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <functional>
#include <optional>
#include <vector>

#include "runtime/cuda/device_arena.hpp"
#include "runtime/cuda/device_communicator.hpp"
#include "runtime/phase_samples.hpp"
#include "runtime/rank_context.hpp"

namespace headway::runtime {

class PhaseClock {
  public:
    explicit PhaseClock(Timing timing) : timing_(timing) {}
    PhaseClock(const PhaseClock&) = delete;
    PhaseClock& operator=(const PhaseClock&) = delete;
    ~PhaseClock();

    // Marks the origin of the begin times.
    void start(cudaStream_t stream);
    // `arrival` < 0: the begin is read from the stream; else it is this, seconds of host time since
    // start.
    void begin(CallSite site, double arrival, cudaStream_t stream);
    void end(cudaStream_t stream);
    double host_seconds() const;  // since start()
    Timing timing() const { return timing_; }

    std::size_t num_phases() const { return marks_.size(); }  // since start()

    // After the stream was waited for: the phases since start(), in order. A captured clock gives
    // those of the last replay.
    std::vector<PhaseSample> read() const;
    // From here on what is marked goes into a graph that is being captured: its events are nodes of
    // the graph.
    void set_captured() { flags_ = cudaEventRecordExternal; }

  private:
    struct Mark {
        CallSite site;
        double arrival;
    };
    void record(std::size_t event, cudaStream_t stream);

    Timing timing_;
    std::vector<Mark> marks_;
    std::vector<cudaEvent_t> events_;  // origin, then begin and end of every mark
    std::chrono::steady_clock::time_point host_start_{};
    unsigned flags_ = cudaEventRecordDefault;
};

// What a layer on the device gets besides its numbers.
struct DeviceContext {
    DeviceCommunicator& communicator;
    DeviceArena& arena;
    cudaStream_t stream = nullptr;
    cublasLtHandle_t blas = nullptr;
    PhaseClock* clock = nullptr;               // null: not timed
    std::function<void(CallSite)> on_enter{};  // fault injection; may throw
    std::optional<CallSite> site{};            // the phase that was entered last
    bool again = false;                        // in a forward that backward repeats
};

// Keeps the stream busy while the host enqueues what follows, and lets all ranks' streams leave
// together.
void line_up(DeviceCommunicator& communicator, cudaStream_t stream);

enum class PhaseKind { compute, exchange };

// From construction to destruction, the work enqueued belongs to `site`.
class DevicePhase {
  public:
    DevicePhase(DeviceContext& context, CallSite site, PhaseKind kind = PhaseKind::compute);
    DevicePhase(const DevicePhase&) = delete;
    DevicePhase& operator=(const DevicePhase&) = delete;
    ~DevicePhase();

  private:
    DeviceContext& context_;
    int num_exceptions_;
};

}  // namespace headway::runtime
