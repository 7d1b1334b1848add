// What headway-grid --overheads measured, as samples for a Profile: launches, waits of the host,
// copies, dense GEMMs, the slowdown of a GEMM beside an exchange; and facts about the device for
// its provenance.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "models/fit/fit_profile.hpp"

namespace headway::inline measurements {

// device, driver, cuda, nccl, clock_mhz, multiprocessors
using DeviceFacts = std::map<std::string, std::string>;

// Adds the samples of `csv` (quantity,bytes,value). InputError: file:line, what is wrong.
DeviceFacts add_overheads(const std::filesystem::path& csv, CalibrationSamples& samples);

}  // namespace headway::inline measurements
