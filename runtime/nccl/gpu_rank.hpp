// One rank of a run on GPUs, from its launch environment to its exit code: rendezvous, device,
// NCCL.
#pragma once

#include <functional>
#include <string>

#include "runtime/nccl/nccl_communicator.hpp"
#include "runtime/process/device_seat.hpp"
#include "runtime/process/process_rank.hpp"

namespace headway::runtime {

struct GpuRank {
    std::string program;  // begins its messages
    RankIdentity identity;
    Environment environment;
    DeviceMachine machine;
    Facts facts;  // to which versions are added
    ChannelOptions channel;
    NcclOptions nccl;
};

// What the body of a rank gets. The device is set.
struct GpuRankContext {
    SideChannel& channel;
    NcclCommunicator& communicator;
    const DeviceSeat& seat;
};

// Runs `body`; what it throws becomes the failure of the run on all ranks before anything of this
// rank is torn down: the others must hear the cause before they see its consequences.
void report_before_unwinding(SideChannel& channel, const std::function<void()>& body);

// Exit code: 0, 2 bad input, 3 an internal error, kRankFailureExit. A failure of the run is printed
// by the rank that failed and by the first other one. After a failure this does not return: what
// is stuck on the device must not be waited for.
int run_gpu_rank(const GpuRank& rank, const std::function<void(const GpuRankContext&)>& body);

}  // namespace headway::runtime
