// Which share of a sweep this process takes: from the words "i/n", or from the variables that srun,
// a Slurm job array and mpirun set.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "models/sweep/sweep_file.hpp"

namespace headway::cli {

// "2/8" -> share 2 of 0..7; InputError at `where` otherwise.
Shard parse_shard(const std::string& text, const std::string& where);

using Lookup = std::function<std::optional<std::string>(const std::string& variable)>;

struct LaunchedShard {
    Shard shard;
    std::string launcher;  // "srun", "Slurm job array", "mpirun", "mpiexec"; joined by " in "
};
// Nothing when this is one process alone.
std::optional<LaunchedShard> launched_shard(const Lookup& variable);

}  // namespace headway::cli
