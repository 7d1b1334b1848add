#include "runtime/lab/namespaces.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "models/text/atomic_file.hpp"
#include "models/vocab/error.hpp"
#include "runtime/communicator.hpp"
#include "runtime/lab/lab_script.hpp"
#include "runtime/process/connection.hpp"
#include "runtime/process/local_ranks.hpp"

namespace headway::runtime {
namespace {

constexpr int kMasterPort = 29500;  // torchrun's; headway's side channel takes the next one

constexpr std::array<std::pair<const char*, const char*>, 7> kHostSettings{{
    // Messages to another rail go over a neighbour, and come from others than they go to.
    {"ip_forward", "1"},
    {"conf/all/rp_filter", "0"},
    {"conf/default/rp_filter", "0"},
    // A pause between two exchanges is no reason to start the second one slowly.
    {"tcp_slow_start_after_idle", "0"},
    // Queues do not drop: nobody asks whether the last frame has come.
    {"tcp_early_retrans", "0"},
    // A message of a layer fits into what may be under way from the start.
    {"tcp_rmem", "4096 4194304 33554432"},
    {"tcp_wmem", "4096 1048576 33554432"},
}};

struct Pipe {
    Descriptor read, write;
};

Pipe make_pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
    return {Descriptor(ends[0]), Descriptor(ends[1])};
}

bool await_byte(const Descriptor& from) {
    char byte = 0;
    ssize_t got = 0;
    while ((got = read(from.get(), &byte, 1)) < 0 && errno == EINTR) continue;
    return got == 1;
}

void send_byte(const Descriptor& to) {
    if (write(to.get(), "", 1) != 1) throw std::runtime_error("a pipe of the lab is broken");
}

void write_proc(const std::string& file, const std::string& text) {
    std::ofstream stream(file);
    stream << text;
    stream.close();
    if (!stream) throw std::runtime_error(fmt::format("cannot write {} to {}", text, file));
}

[[noreturn]] void not_allowed(const std::string& what) {
    throw InputError({.where = "this machine",
                      .found = fmt::format("{}: {}", what, std::strerror(errno)),
                      .accepted = "root, or a user who may make user, process and network "
                                  "namespaces",
                      .hint = "in a container: the capability SYS_ADMIN; a sysctl such as "
                              "kernel.unprivileged_userns_clone may forbid it"});
}

// `ip -batch -` or `tc -batch -` in the namespace of this process.
void run_batch(const char* program, const std::string& lines) {
    if (lines.empty()) return;
    const Descriptor text(memfd_create("headway-lab", MFD_CLOEXEC));
    if (write(text.get(), lines.data(), lines.size()) != static_cast<ssize_t>(lines.size()))
        throw std::runtime_error("cannot write a script of the lab");
    const pid_t child = fork();
    if (child == 0) {
        lseek(text.get(), 0, SEEK_SET);
        dup2(text.get(), STDIN_FILENO);
        // Not in every user's PATH on Debian.
        for (const char* folder : {"/usr/sbin/", "/sbin/", "/usr/bin/"})
            execl((std::string(folder) + program).c_str(), program, "-batch", "-", nullptr);
        _exit(127);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        throw std::runtime_error(fmt::format("cannot start {}", program));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        throw InputError({.where = "this machine",
                          .found = fmt::format("no program '{}'", program),
                          .accepted = "iproute2, the Debian package of ip and tc"});
    throw InputError({.where = "this machine",
                      .found = fmt::format("{} refused a step (its words are above)", program),
                      .accepted = "a kernel with veth, bridge and tbf"});
}

void run_script(const LabScript& script) {
    run_batch("ip", script.ip);
    run_batch("tc", script.tc);
}

// A process that keeps the namespaces of a host, and sets them up once its cables are there.
struct Holder {
    pid_t pid = 0;
    Pipe to, from;
};

[[noreturn]] void hold(const LabPlan& plan, int host, const Holder& self) {
    try {
        const std::string& name = plan.hosts[static_cast<std::size_t>(host)].name;
        if (unshare(CLONE_NEWNET | CLONE_NEWUTS) != 0) not_allowed("a network namespace");
        sethostname(name.c_str(), name.size());
        for (const auto& [key, value] : kHostSettings)
            write_proc(fmt::format("/proc/sys/net/ipv4/{}", key), value);
        send_byte(self.from.write);
        if (!await_byte(self.to.read)) _exit(1);
        run_script(host_script(plan, host));
        send_byte(self.from.write);
        for (;;) pause();
    } catch (const std::exception& error) {
        std::fputs(fmt::format("headway-lab: {}\n", error.what()).c_str(), stderr);
        _exit(1);
    }
}

Holder start_holder(const LabPlan& plan, int host) {
    Holder holder{.to = make_pipe(), .from = make_pipe()};
    holder.pid = fork();
    if (holder.pid < 0) throw std::runtime_error("cannot start a process");
    if (holder.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        holder.to.write = Descriptor();
        hold(plan, host, holder);
    }
    holder.from.write = Descriptor();
    return holder;
}

void expect(const Holder& holder, const LabHost& host) {
    if (await_byte(holder.from.read)) return;
    throw InputError(
        {.where = "headway-lab",
         .found = fmt::format("host {} could not be set up (why is above)", host.name)});
}

std::vector<Holder> build(const LabPlan& plan) {
    std::vector<Holder> holders;
    std::vector<int> pids;
    for (std::size_t h = 0; h < plan.hosts.size(); ++h) {
        holders.push_back(start_holder(plan, static_cast<int>(h)));
        pids.push_back(holders.back().pid);
    }
    for (std::size_t h = 0; h < holders.size(); ++h) expect(holders[h], plan.hosts[h]);
    run_script(fabric_script(plan, pids));
    for (const Holder& holder : holders) send_byte(holder.to.write);
    for (std::size_t h = 0; h < holders.size(); ++h) expect(holders[h], plan.hosts[h]);
    return holders;
}

// Stops the processes of a rank for the part of every period in which a slow device would not have
// got on: a control group's quota, without a control group to remove.
void slow_down(pid_t group, double speed) {
    constexpr double kPeriod = 20e3;  // us
    while (kill(-group, SIGCONT) == 0) {
        usleep(static_cast<useconds_t>(kPeriod * speed));
        if (kill(-group, SIGSTOP) != 0) return;
        usleep(static_cast<useconds_t>(kPeriod * (1.0 - speed)));
    }
}

// In the process that is to be a rank of this host.
void enter_host(pid_t holder, double speed) {
    for (const char* kind : {"net", "uts"}) {
        const Descriptor space(
            open(fmt::format("/proc/{}/ns/{}", holder, kind).c_str(), O_RDONLY | O_CLOEXEC));
        if (setns(space.get(), 0) != 0) _exit(127);
    }
    if (speed >= 1.0) return;
    setpgid(0, 0);
    const pid_t group = getpid();
    if (fork() == 0) {
        setpgid(0, 0);
        slow_down(group, speed);
        _exit(0);
    }
}

std::vector<Environment> rank_environments(const LabPlan& plan) {
    std::vector<Environment> result;
    std::size_t world = 0;
    for (const LabHost& host : plan.hosts) world += host.ranks.size();
    for (std::size_t h = 0; h < plan.hosts.size(); ++h) {
        const std::vector<int>& ranks = plan.hosts[h].ranks;
        for (std::size_t local = 0; local < ranks.size(); ++local) {
            const std::string interface = payload_interface(plan, static_cast<int>(h));
            result.push_back({{"RANK", std::to_string(ranks[local])},
                              {"WORLD_SIZE", std::to_string(world)},
                              {"LOCAL_RANK", std::to_string(local)},
                              {"LOCAL_WORLD_SIZE", std::to_string(ranks.size())},
                              {"MASTER_ADDR", management_address(0)},
                              {"MASTER_PORT", std::to_string(kMasterPort)},
                              {"GLOO_SOCKET_IFNAME", interface},
                              {"NCCL_SOCKET_IFNAME", interface}});
        }
    }
    return result;
}

std::string find_program(const std::string& name, const Environment& environment) {
    if (name.find('/') != std::string::npos) return name;
    const auto path = environment.find("PATH");
    std::istringstream folders(path == environment.end() ? "/usr/bin:/bin" : path->second);
    for (std::string folder; std::getline(folders, folder, ':');) {
        if (access((folder + "/" + name).c_str(), X_OK) == 0) return folder + "/" + name;
    }
    throw InputError({.where = "this machine", .found = "no program '" + name + "' in PATH"});
}

struct Carried {
    std::uint64_t received = 0, sent = 0;  // bytes
};

// By the interfaces of this process's namespace.
std::map<std::string, Carried> read_counters() {
    std::ifstream table("/proc/net/dev");
    std::map<std::string, Carried> counters;
    for (std::string line; std::getline(table, line);) {
        const std::size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        std::istringstream numbers(line.substr(colon + 1));
        Carried carried;
        std::uint64_t other = 0;
        numbers >> carried.received;
        for (int i = 0; i < 7; ++i) numbers >> other;
        numbers >> carried.sent;
        counters[line.substr(line.find_first_not_of(' '), colon - line.find_first_not_of(' '))] =
            carried;
    }
    return counters;
}

void write_counters(const LabPlan& plan, const std::string& file) {
    const auto counters = read_counters();
    std::string text = "link,bytes_per_s,bytes\n";
    for (const LabCable& cable : plan.cables) {
        if (cable.up_link.empty()) continue;
        const Carried& upper = counters.at(cable.upper);
        const auto row = [&](const std::string& link, Bandwidth rate, std::uint64_t bytes) {
            text +=
                fmt::format("{},{},{}\n", link, cable.dead ? 0.0 : rate.in(byte / second), bytes);
        };
        row(cable.up_link, cable.up, upper.received);
        row(cable.down_link, cable.down, upper.sent);
    }
    write_file_atomically(file, text);
}

// The first process of the new process namespace: returns when all ranks have ended, and with it
// all that the lab was made of.
int run_inside(const LabRun& run, const std::string& program, const Descriptor& parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pollfd ended{.fd = parent.get(), .events = POLLIN, .revents = 0};
    if (poll(&ended, 1, 0) != 0) return kRankFailureExit;  // the parent has gone before
    if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
        not_allowed("a mount of /proc for the lab's processes");
    const std::vector<Holder> holders = build(run.plan);
    std::vector<std::size_t> host_of_rank;
    for (std::size_t h = 0; h < run.plan.hosts.size(); ++h)
        host_of_rank.insert(host_of_rank.end(), run.plan.hosts[h].ranks.size(), h);
    const LocalRunEnd end =
        run_local_ranks({.executable = program,
                         .arguments = {run.command.begin() + 1, run.command.end()},
                         .added = rank_environments(run.plan),
                         .enter = [&](std::size_t rank) {
                             const std::size_t host = host_of_rank[rank];
                             enter_host(holders[host].pid, run.plan.hosts[host].speed);
                         }});
    std::fputs(describe(end).c_str(), stderr);
    if (!run.counters.empty()) write_counters(run.plan, run.counters);
    return exit_code_of(end);
}

// A user without rights becomes root of the namespaces alone.
void map_users(pid_t child) {
    write_proc(fmt::format("/proc/{}/setgroups", child), "deny");
    write_proc(fmt::format("/proc/{}/uid_map", child), fmt::format("0 {} 1", getuid()));
    write_proc(fmt::format("/proc/{}/gid_map", child), fmt::format("0 {} 1", getgid()));
}

}  // namespace

int run_lab(const LabRun& run) {
    const std::string program = find_program(run.command.front(), run.environment);
    const bool as_user = geteuid() != 0;
    Pipe life = make_pipe(), mapped = make_pipe();
    std::fflush(nullptr);
    const unsigned long spaces =
        CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | (as_user ? CLONE_NEWUSER : 0);
    const auto child = static_cast<pid_t>(syscall(SYS_clone, spaces | SIGCHLD, 0, 0, 0, 0));
    if (child < 0) not_allowed("namespaces for the lab");
    if (child == 0) {
        life.write = Descriptor();
        if (!await_byte(mapped.read)) return kRankFailureExit;
        return run_inside(run, program, life.read);
    }
    if (as_user) map_users(child);
    send_byte(mapped.write);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    std::fputs("headway-lab: its inner process was killed; the lab ended with it\n", stderr);
    return kRankFailureExit;
}

}  // namespace headway::runtime
