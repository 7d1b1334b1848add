#include "cli/shard.hpp"

#include <fmt/format.h>

#include <charconv>

#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

constexpr std::size_t kMaxShards = 10'000'000;

std::optional<std::size_t> whole(std::string_view text) {
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || text.empty() ||
        value > kMaxShards) {
        return std::nullopt;
    }
    return value;
}

std::optional<std::size_t> whole_of(const Lookup& variable, const std::string& name) {
    const auto text = variable(name);
    if (!text) return std::nullopt;
    const auto value = whole(*text);
    if (value) return value;
    throw InputError({.where = "environment variable " + name,
                      .found = "'" + *text + "'",
                      .accepted = "a whole number",
                      .hint = "--shard i/n says the share by hand"});
}

void check(const Shard& shard, const std::string& where) {
    if (shard.count > 0 && shard.index < shard.count) return;
    throw InputError({.where = where,
                      .found = fmt::format("share {} of {}", shard.index, shard.count),
                      .accepted = "i/n with i from 0 to n - 1",
                      .hint = "a job array must be a range of whole numbers, such as --array=0-7"});
}

std::optional<Shard> pair_of(const Lookup& variable, const std::string& index,
                             const std::string& count) {
    const auto i = whole_of(variable, index), n = whole_of(variable, count);
    if (!i || !n) return std::nullopt;
    check({*i, *n}, fmt::format("environment variables {} and {}", index, count));
    return Shard{*i, *n};
}

// Array indices may begin anywhere and have a step: --array=1-15:2.
std::optional<Shard> array_shard(const Lookup& variable) {
    const auto id = whole_of(variable, "SLURM_ARRAY_TASK_ID");
    const auto count = whole_of(variable, "SLURM_ARRAY_TASK_COUNT");
    if (!id || !count) return std::nullopt;
    const std::size_t first = whole_of(variable, "SLURM_ARRAY_TASK_MIN").value_or(0);
    const std::size_t step = whole_of(variable, "SLURM_ARRAY_TASK_STEP").value_or(1);
    const bool is_regular = *id >= first && step > 0 && (*id - first) % step == 0;
    const Shard shard{is_regular ? (*id - first) / step : *count, *count};
    check(shard, "environment variables SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT");
    return shard;
}

}  // namespace

Shard parse_shard(const std::string& text, const std::string& where) {
    const std::size_t slash = text.find('/');
    const auto index = whole(std::string_view(text).substr(0, slash));
    const auto count =
        slash == std::string::npos ? std::nullopt : whole(std::string_view(text).substr(slash + 1));
    if (index && count && *index < *count) return {*index, *count};
    throw InputError({.where = where,
                      .found = "'" + text + "'",
                      .accepted = "i/n with i from 0 to n - 1, such as 0/4"});
}

std::optional<LaunchedShard> launched_shard(const Lookup& variable) {
    LaunchedShard result;
    const auto array = array_shard(variable);
    auto ranks = pair_of(variable, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
    const char* launcher = "mpirun";
    // A batch script, outside srun, has the numbers of the job but no step: it is one process.
    if (!ranks && variable("SLURM_STEP_ID")) {
        ranks = pair_of(variable, "SLURM_PROCID", "SLURM_NTASKS");
        launcher = "srun";
    }
    if (!ranks) {  // MPICH, Intel MPI
        ranks = pair_of(variable, "PMI_RANK", "PMI_SIZE");
        launcher = "mpiexec";
    }
    if (ranks && ranks->count > 1) {
        result.shard = *ranks;
        result.launcher = launcher;
    }
    if (array && array->count > 1) {
        result.shard.index += array->index * result.shard.count;
        result.shard.count *= array->count;
        result.launcher += result.launcher.empty() ? "Slurm job array" : " in a Slurm job array";
    }
    if (result.shard.count == 1) return std::nullopt;
    return result;
}

}  // namespace headway::cli
