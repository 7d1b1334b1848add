// Results that programs of nccl-tests (-J) and rccl-tests (-Z json, -Z csv) write to files.
// Private to models/fit.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/measurements/nccl_rows.hpp"

namespace headway::inline measurements {

inline constexpr std::string_view kRcclCsvHeader = "numCycle";

// Whether a text that begins with { or [ is JSON: the tags of mpirun begin so too.
bool looks_like_json(std::string_view text);

std::vector<NcclRun> read_nccl_json(std::string_view text, const std::string& file_name);
std::vector<NcclRun> read_rccl_csv(std::string_view text, const std::string& file_name);

}  // namespace headway::inline measurements
