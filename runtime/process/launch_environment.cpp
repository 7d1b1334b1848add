#include "runtime/process/launch_environment.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "models/vocab/error.hpp"

namespace headway::runtime {

namespace {

// The port of rank 0 where a launcher gives none: from the job's number, so that two jobs on a
// machine do not meet.
int port_of_job(const std::string& job) {
    unsigned hash = 2166136261u;
    for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    return 20000 + static_cast<int>(hash % 10000u);
}

class Variables {
  public:
    explicit Variables(const Environment& environment) : environment_(environment) {}

    bool has(const std::string& name) const { return environment_.contains(name); }
    std::string text(const std::string& name) const {
        const auto it = environment_.find(name);
        return it == environment_.end() ? "" : it->second;
    }
    int number(const std::string& name) const {
        const std::string value = text(name);
        int result = -1;
        const auto [end, error] =
            std::from_chars(value.data(), value.data() + value.size(), result);
        if (error == std::errc() && end == value.data() + value.size() && result >= 0)
            return result;
        throw InputError({.where = "environment variable " + name,
                          .found = "'" + value + "'",
                          .accepted = "a whole number from 0",
                          .hint = "set by the launcher of the ranks"});
    }
    int number_or(const std::string& name, int otherwise) const {
        return has(name) ? number(name) : otherwise;
    }

  private:
    const Environment& environment_;
};

RankIdentity from_own(const Variables& v) {
    const int rank = v.number("HEADWAY_RANK"), size = v.number("HEADWAY_SIZE");
    return {.launcher = "headway",
            .rank = rank,
            .size = size,
            .local_rank = rank,
            .local_size = size,
            .port = v.number("HEADWAY_PORT"),
            .listen_fd = rank == 0 ? v.number_or("HEADWAY_LISTEN_FD", -1) : -1};
}

RankIdentity from_torchrun(const Variables& v) {
    // NOTE: torchrun's agent serves its own store at MASTER_PORT.
    return {.launcher = "torchrun",
            .rank = v.number("RANK"),
            .size = v.number("WORLD_SIZE"),
            .local_rank = v.number_or("LOCAL_RANK", 0),
            .local_size = v.number_or("LOCAL_WORLD_SIZE", 1),
            .host = v.has("MASTER_ADDR") ? v.text("MASTER_ADDR") : "127.0.0.1",
            .port = v.number("MASTER_PORT") % 65535 + 1};
}

RankIdentity from_open_mpi(const Variables& v) {
    RankIdentity id{.launcher = "Open MPI",
                    .rank = v.number("OMPI_COMM_WORLD_RANK"),
                    .size = v.number("OMPI_COMM_WORLD_SIZE"),
                    .local_rank = v.number_or("OMPI_COMM_WORLD_LOCAL_RANK", 0),
                    .local_size = v.number_or("OMPI_COMM_WORLD_LOCAL_SIZE", 1)};
    for (const char* job : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "OMPI_MCA_orte_hnp_uri"}) {
        if (id.port == 0 && v.has(job)) id.port = port_of_job(v.text(job));
    }
    if (id.local_size < id.size) id.port = 0;  // Open MPI does not say where rank 0 is
    return id;
}

// MPICH, Intel MPI and their relatives, as their Hydra starts ranks. It names neither the job nor
// where rank 0 is, so --rendezvous must.
RankIdentity from_hydra(const Variables& v) {
    return {.launcher = "MPICH's mpiexec",
            .rank = v.number("PMI_RANK"),
            .size = v.number("PMI_SIZE"),
            .local_rank = v.number_or("MPI_LOCALRANKID", 0),
            .local_size = v.number_or("MPI_LOCALNRANKS", 1)};
}

// Tasks of the step on this node. SLURM_NTASKS_PER_NODE is there only where srun was told so.
int slurm_local_size(const Variables& v, int local_rank) {
    const std::string tasks = v.text("SLURM_STEP_TASKS_PER_NODE");
    const int here = tasks.empty() ? 0 : tasks_on_node(tasks, v.number_or("SLURM_NODEID", 0));
    return std::max({1, local_rank + 1, here, v.number_or("SLURM_NTASKS_PER_NODE", 1)});
}

RankIdentity from_slurm(const Variables& v) {
    const int local_rank = v.number_or("SLURM_LOCALID", 0);
    return {.launcher = "Slurm",
            .rank = v.number("SLURM_PROCID"),
            .size = v.number("SLURM_NTASKS"),
            .local_rank = local_rank,
            .local_size = slurm_local_size(v, local_rank),
            .host = first_host(v.has("SLURM_STEP_NODELIST") ? v.text("SLURM_STEP_NODELIST")
                                                            : v.text("SLURM_JOB_NODELIST")),
            .port = port_of_job(v.text("SLURM_JOB_ID") + "." + v.text("SLURM_STEP_ID"))};
}

void apply_rendezvous(RankIdentity& id, const std::string& rendezvous) {
    const std::size_t colon = rendezvous.rfind(':');
    int port = 0;
    if (colon != std::string::npos) {
        const char* end = rendezvous.data() + rendezvous.size();
        const auto result = std::from_chars(rendezvous.data() + colon + 1, end, port);
        if (result.ptr != end) port = 0;
    }
    if (colon == 0 || port < 1 || port > 65535) {
        throw InputError({.where = "--rendezvous",
                          .found = "'" + rendezvous + "'",
                          .accepted = "HOST:PORT of rank 0, e.g. node01:29600"});
    }
    id.host = rendezvous.substr(0, colon);
    id.port = port;
    id.listen_fd = -1;
}

}  // namespace

std::optional<RankIdentity> rank_identity(const Environment& environment,
                                          const std::string& rendezvous) {
    const Variables v(environment);
    RankIdentity id;
    if (v.has("HEADWAY_RANK")) {
        id = from_own(v);
    } else if (v.has("RANK") && v.has("WORLD_SIZE")) {
        id = from_torchrun(v);
    } else if (v.has("OMPI_COMM_WORLD_RANK")) {
        id = from_open_mpi(v);
    } else if (v.has("SLURM_PROCID") && v.has("SLURM_STEP_ID")) {
        id = from_slurm(v);  // in a batch script, outside srun, there is no step
    } else if (v.has("PMI_RANK") && v.has("PMI_SIZE")) {
        id = from_hydra(v);
    } else {
        return std::nullopt;
    }
    if (!rendezvous.empty()) apply_rendezvous(id, rendezvous);
    const std::string where = "environment of " + id.launcher;
    if (id.rank >= id.size || id.local_rank >= std::max(id.local_size, 1)) {
        throw InputError({.where = where,
                          .found = fmt::format("rank {} of {}, {} of {} on this machine", id.rank,
                                               id.size, id.local_rank, id.local_size)});
    }
    if (id.size > 1 && (id.port == 0 || id.host.empty())) {
        throw InputError({.where = where,
                          .found = "no address of rank 0",
                          .hint = "--rendezvous HOST:PORT names it"});
    }
    return id;
}

Environment own_launch_environment(int rank, int size, int port, int listen_fd) {
    Environment result{{"HEADWAY_RANK", std::to_string(rank)},
                       {"HEADWAY_SIZE", std::to_string(size)},
                       {"HEADWAY_PORT", std::to_string(port)}};
    if (rank == 0) result["HEADWAY_LISTEN_FD"] = std::to_string(listen_fd);
    return result;
}

std::string first_host(const std::string& node_list) {
    const std::size_t bracket = node_list.find('['), comma = node_list.find(',');
    if (bracket == std::string::npos || comma < bracket) return node_list.substr(0, comma);
    const std::size_t end = node_list.find_first_of(",-]", bracket);
    return node_list.substr(0, bracket) + node_list.substr(bracket + 1, end - bracket - 1);
}

int tasks_on_node(const std::string& tasks, int node) {
    const char* at = tasks.data();
    const char* const end = at + tasks.size();
    while (at < end) {
        int count = 0, nodes = 1;
        auto parsed = std::from_chars(at, end, count);
        if (parsed.ec != std::errc()) return 0;
        at = parsed.ptr;
        if (end - at > 2 && at[0] == '(' && at[1] == 'x') {
            parsed = std::from_chars(at + 2, end, nodes);
            if (parsed.ec != std::errc() || parsed.ptr == end || *parsed.ptr != ')') return 0;
            at = parsed.ptr + 1;
        }
        if (node < nodes) return count;
        node -= nodes;
        if (at < end && *at != ',') return 0;
        ++at;
    }
    return 0;
}

int num_visible_devices(const Environment& environment, int num_device_files) {
    const auto it = environment.find("CUDA_VISIBLE_DEVICES");
    if (it == environment.end()) return num_device_files;
    if (it->second.empty() || it->second.front() == '-') return 0;
    const auto commas = std::count(it->second.begin(), it->second.end(), ',');
    return 1 + static_cast<int>(commas);
}

int count_device_files() {
    int count = 0;
    while (std::filesystem::exists(fmt::format("/dev/nvidia{}", count))) ++count;
    return count;
}

}  // namespace headway::runtime
