// The machine this process runs on, as far as a CPU run needs to know it.
#pragma once

#include <string>

#include "models/vocab/units.hpp"

namespace headway::runtime {

// Model name from /proc/cpuinfo, the name that CPU clusters and profiles carry as device.
std::string cpu_name();
std::string host_name();
int num_cores();          // that this process may use
Bytes physical_memory();  // of the machine, or of its control group if that is less

// Keeps freed memory in the process and touches some, so that timed phases do not pay for mapping
// pages anew.
void prepare_timed_memory();

}  // namespace headway::runtime
