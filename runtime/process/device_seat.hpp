// DeviceSeat: which GPU a rank takes, and with how many others it shares it. Ranks that share one
// need MPS and a NCCL host of their own, both before CUDA starts; this is done without starting it.
#pragma once

#include <memory>

#include "runtime/process/launch_environment.hpp"
#include "runtime/process/mps.hpp"
#include "runtime/process/side_channel.hpp"

namespace headway::runtime {

struct DeviceMachine {
    std::string host;          // name of this machine
    int num_device_files = 0;  // see num_visible_devices
    std::string mps_control = "nvidia-cuda-mps-control";
    std::string scratch = "/tmp";
};

struct DeviceSeat {
    int device = 0;                     // among those that this process sees
    int sharers = 1;                    // ranks on this GPU
    Environment added;                  // to be set before CUDA and NCCL start
    std::unique_ptr<MpsDaemon> daemon;  // held by one rank of each machine; none: another has it
};

// Collective. Uses the MPS server of `environment` where there is one, else starts one. InputError
// on all ranks if a GPU is shared and MPS cannot be had: timing would be of the GPU's scheduler.
DeviceSeat take_device(SideChannel& channel, const RankIdentity& identity,
                       const Environment& environment, const DeviceMachine& machine);

// Ranks as processes of this machine, started by this process: `executable` with its arguments
// again, MPS around them if they share GPUs. Prints who was killed; returns the exit code.
struct LocalLaunch {
    int num_ranks = 1;
    std::string executable;
    std::vector<std::string> arguments;
    Environment environment;
    DeviceMachine machine;
};
int launch_locally(const LocalLaunch& launch);

}  // namespace headway::runtime
