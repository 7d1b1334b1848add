// Runs a command on every rank of a lab. All of it lives in namespaces that no name leads to: one
// of processes, whose first process is a child of this one, and within it one of the network for
// the bridges and one for each host. Whichever of the processes is killed, the kernel ends the
// others and removes the interfaces with their namespaces: there is nothing to clean up later.
#pragma once

#include <string>
#include <vector>

#include "runtime/lab/lab_plan.hpp"
#include "runtime/process/launch_environment.hpp"

namespace headway::runtime {

struct LabRun {
    LabPlan plan;
    std::vector<std::string> command;
    Environment environment;  // of this process
    std::string counters;     // a CSV of what every link carried goes there, if not empty
};

// Exit code of the first rank that failed, or 0. InputError where this user may make no namespaces,
// or iproute2 is missing.
int run_lab(const LabRun& run);

}  // namespace headway::runtime
