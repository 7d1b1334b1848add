#include "runtime/cuda/phase_clock.hpp"

#include <exception>

#include "kernels/check.hpp"
#include "runtime/cuda/row_kernels.hpp"

namespace headway::runtime {

PhaseClock::~PhaseClock() {
    for (cudaEvent_t e : events_) cudaEventDestroy(e);
}

void PhaseClock::record(std::size_t event, cudaStream_t stream) {
    while (events_.size() <= event) {
        events_.push_back(nullptr);
        HEADWAY_CUDA_CHECK(cudaEventCreate(&events_.back()));
    }
    HEADWAY_CUDA_CHECK(cudaEventRecordWithFlags(events_[event], stream, flags_));
}

void PhaseClock::start(cudaStream_t stream) {
    marks_.clear();
    host_start_ = std::chrono::steady_clock::now();
    record(0, stream);
}

double PhaseClock::host_seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - host_start_).count();
}

void PhaseClock::begin(CallSite site, double arrival, cudaStream_t stream) {
    marks_.push_back({site, arrival});
    record(2 * marks_.size() - 1, stream);
}

void PhaseClock::end(cudaStream_t stream) {
    record(2 * marks_.size(), stream);
}

std::vector<PhaseSample> PhaseClock::read() const {
    std::vector<PhaseSample> samples;
    for (std::size_t i = 0; i < marks_.size(); ++i) {
        float until_begin = 0, duration = 0;  // ms
        HEADWAY_CUDA_CHECK(cudaEventElapsedTime(&until_begin, events_[0], events_[2 * i + 1]));
        HEADWAY_CUDA_CHECK(cudaEventElapsedTime(&duration, events_[2 * i + 1], events_[2 * i + 2]));
        const double begin =
            marks_[i].arrival < 0.0 ? 1e-3 * double{until_begin} : marks_[i].arrival;
        samples.push_back(
            {.site = marks_[i].site, .begin = begin, .duration = 1e-3 * double{duration}});
    }
    return samples;
}

void line_up(DeviceCommunicator& communicator, cudaStream_t stream) {
    constexpr std::int64_t kHeadStart = 400'000;  // ns, longer than enqueuing an exchange takes
    hold_stream(kHeadStart, stream);
    communicator.meet(stream);
}

DevicePhase::DevicePhase(DeviceContext& context, CallSite site, PhaseKind kind)
    : context_(context), num_exceptions_(std::uncaught_exceptions()) {
    site = site_in(context, site);
    context.site = site;
    context.communicator.enter(site);
    if (context.on_enter) context.on_enter(site);
    if (context.clock == nullptr) return;
    double arrival = -1.0;
    if (kind == PhaseKind::exchange && context.clock->timing() == Timing::isolated) {
        context.communicator.wait(context.stream);
        arrival = context.clock->host_seconds();
        context.communicator.barrier();
        if (context.communicator.size() > 1) line_up(context.communicator, context.stream);
    }
    context.clock->begin(site, arrival, context.stream);
}

DevicePhase::~DevicePhase() {
    if (context_.clock == nullptr || std::uncaught_exceptions() > num_exceptions_) return;
    try {
        context_.clock->end(context_.stream);
    } catch (const std::exception&) {
        // The stream is broken: the next call on it says so.
    }
}

}  // namespace headway::runtime
