// Who this process is among the ranks of a run, as its launcher says in the environment: headway's
// own launcher, torchrun, Open MPI or Slurm. The environment is read in main and passed in.
#pragma once

#include <map>
#include <optional>
#include <string>

namespace headway::runtime {

using Environment = std::map<std::string, std::string>;

struct RankIdentity {
    std::string launcher;  // "headway", "torchrun", "Open MPI", "Slurm"
    int rank = 0;
    int size = 1;
    int local_rank = 0;  // on this machine
    int local_size = 1;
    std::string host = "127.0.0.1";  // where rank 0 serves the side channel
    int port = 0;
    int listen_fd = -1;  // rank 0 of our own launcher inherits its listening socket
};

// None if no launcher started this process. `rendezvous`: HOST:PORT of rank 0, or empty for what
// the launcher gives; InputError if it gives none, or values that do not fit together.
std::optional<RankIdentity> rank_identity(const Environment& environment,
                                          const std::string& rendezvous);

// What our own launcher gives rank `rank` of `size` on this machine.
Environment own_launch_environment(int rank, int size, int port, int listen_fd);

// First host of a Slurm node list: "gpu[07-09,12]" -> "gpu07".
std::string first_host(const std::string& node_list);
// Slurm's SLURM_STEP_TASKS_PER_NODE, "4(x2),3": what node 0, 1, ... has; 0 where it does not say.
int tasks_on_node(const std::string& tasks, int node);

// GPUs that this process may use, counted without starting CUDA: a process that has started it
// cannot join an MPS server any more. `num_device_files`: /dev/nvidia0, 1, ...
int num_visible_devices(const Environment& environment, int num_device_files);
int count_device_files();

}  // namespace headway::runtime
