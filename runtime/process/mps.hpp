// MpsDaemon: NVIDIA's Multi-Process Service for the time of a run, with directories of its own. It
// lets the kernels of several ranks on one GPU run side by side; without it the GPU gives each
// process a time slice, and what is timed is the scheduler.
#pragma once

#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "runtime/process/connection.hpp"
#include "runtime/process/launch_environment.hpp"

namespace headway::runtime {

// MPS cannot be had on this machine; what() says why.
class MpsUnavailable : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

class MpsDaemon {
  public:
    // `directory` is created, and removed at the end; pipes need a short path. `control`: the
    // program, sought on PATH.
    MpsDaemon(std::filesystem::path directory, std::string control = "nvidia-cuda-mps-control");
    // Asks it to quit, and kills it if it does not. A guard process does this, also when this
    // process is killed.
    ~MpsDaemon();
    MpsDaemon(const MpsDaemon&) = delete;
    MpsDaemon& operator=(const MpsDaemon&) = delete;

    // What its clients must have in their environment.
    Environment environment() const;

  private:
    std::filesystem::path directory_;
    std::string control_;
    int guard_ = 0;     // process
    Descriptor leash_;  // when it closes, the guard acts
};

// Where the daemon of a process with this environment would be, or is: its control pipe.
std::filesystem::path mps_control_pipe(const Environment& environment);

// The variables that make rank `rank` one of `sharers` on its GPU under MPS: an equal share of its
// multiprocessors, and a NCCL host of its own, as NCCL takes a GPU only once per host. Values that
// the user has set are kept.
Environment sharing_environment(const Environment& environment, int rank, int sharers,
                                bool loopback_only);

}  // namespace headway::runtime
