// Joins the files of all shards of one sweep into the file that one process would have written.
#pragma once

#include <filesystem>
#include <ostream>
#include <vector>

namespace headway::inline sweep {

// InputError when a file is not complete, belongs to another sweep, or a shard is missing or twice.
void merge_sweeps(const std::vector<std::filesystem::path>& files, std::ostream& out);

}  // namespace headway::inline sweep
