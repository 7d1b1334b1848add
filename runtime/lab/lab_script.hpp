// The commands that make a lab's bridges, cables, token buckets, addresses and routes: lines for
// `ip -batch` and `tc -batch`.
#pragma once

#include <string>
#include <vector>

#include "runtime/lab/lab_plan.hpp"

namespace headway::runtime {

struct LabScript {
    std::string ip, tc;
};

// For the namespace of the bridges. `holders`: a process of every host's namespace.
LabScript fabric_script(const LabPlan& plan, const std::vector<int>& holders);
// For the namespace of a host, once the cables are there.
LabScript host_script(const LabPlan& plan, int host);

}  // namespace headway::runtime
