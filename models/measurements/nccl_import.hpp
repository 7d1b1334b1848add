// From tables of nccl-tests to curves of a profile: over which links a log ran, what those could
// carry, and in one sentence what it was taken for.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/measurements/nccl_log.hpp"
#include "models/vocab/cluster.hpp"
#include "models/vocab/profile.hpp"

namespace headway::inline measurements {

struct ImportOptions {
    LogFacts facts;
    std::optional<PathClass> path;
    Bandwidth link;                    // nominal, per rank and direction; 0: the cluster's
    std::optional<Cluster> cluster{};  // that the logs are of, if it is described
};

// The path that the table ran over: what is asked for if the table's hosts allow it, else what
// hosts, device, cluster and the curves of `profile` agree on. InputError where they do not, or do
// not say.
PathClass path_of(const NcclTable& table, const ImportOptions& options, const Profile& profile);

// Adds the curves of all tables to `profile`, each in the place of its own of the same collective,
// path and ranks. Returns a sentence a curve: what it was taken for and what it fills.
std::vector<std::string> import_tables(const std::vector<NcclTable>& tables,
                                       const ImportOptions& options, Profile& profile);

// Whether GPUs of this name reach each other over NVLink or xGMI within a host; nothing for names
// that come both ways.
std::optional<bool> has_nvlink(std::string_view device);

}  // namespace headway::inline measurements
