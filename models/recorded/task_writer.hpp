// From what a host did in a step to the tasks of a Recording. Private to models/recorded.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/recorded/call_table.hpp"
#include "models/recorded/recording.hpp"
#include "models/recorded/step_times.hpp"
#include "models/trace/torch_trace.hpp"

namespace headway::inline recorded {

// What of a kernel's time does not grow with its rows: its launch on the device and its tail.
inline constexpr Seconds kFixedOfKernel = 3.0 * us;

// Calls that the recorder has marked, and NCCL's kernels: as collectives, or as the kernels that
// the traced run executed in their place.
enum class Markers { calls, kernels };

// [event] The annotation of the script around a launch, or around what it differentiates.
std::vector<std::string> labels_of(const TorchTrace& trace, const HostStep& step);

// The stream of the step's kernels, collectives apart. InputError where there are several: a trace
// does not say what one waits for of another.
int compute_stream(const TorchTrace& trace, const HostStep& step);

struct WriterInput {
    const TorchTrace& trace;
    const CallTable* table;  // or null
    const MergedStep& step;
    const std::vector<std::string>& labels;
    const TraceLatencies& latency;
    int stream;  // of the kernels
};

class TaskWriter {
  public:
    TaskWriter(WriterInput input, double host_scale, Markers markers)
        : in_(input), scale_(host_scale), markers_(markers) {}
    Recording run();

  private:
    void take(std::size_t e);
    void launch(std::size_t e);
    void kernel(std::size_t e);
    void nccl_kernel(std::size_t e);
    void fake_call(int number);
    void collective(const RecordedCall& call, const std::vector<int>& ranks, int number,
                    double host);
    void host_wait();
    void close();
    void add(RecordedTask task);
    int group(const std::string& name, const std::vector<int>& ranks);
    const RecordedCall& call_at(int number) const {
        return in_.table->calls[static_cast<std::size_t>(number)];
    }
    const GpuWork& work(std::size_t e) const;

    const WriterInput in_;
    const double scale_;
    const Markers markers_;

    Recording recording_;
    double host_ = 0.0;  // ns, scaled, since the last task
    bool is_open_ = false;
    RecordedTask block_;
    double longest_ = 0.0;  // kernel of the block, and its name
    std::uint32_t longest_name_ = 0;
    int last_kernels_ = -1;            // the last task of the compute stream
    int waited_for_ = -1;              // the last task that the host knows to have ended
    std::vector<int> waits_;           // tasks that the next one of the compute stream waits for
    std::map<int, int> task_of_call_;  // of calls that run beside the compute stream
    int call_ = -1;                    // marked, under way
    bool has_marker_ = false;          // a kernel in it
    Nanoseconds waiting_until_ = 0;    // end of a wait() of a call
};

}  // namespace headway::inline recorded
