#include "runtime/process/mps.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <system_error>
#include <thread>
#include <vector>

#include "runtime/process/connection.hpp"

namespace headway::runtime {

namespace {

// Waits for the end of its input, then ends the daemon and removes its directory: $0 the control
// program, $1 the directory.
constexpr const char* kGuard =
    "cat > /dev/null\n"
    "printf 'quit -t 2\\n' | timeout 6 \"$0\" ||"
    " kill -9 \"$(cat \"$1/pipe/nvidia-cuda-mps-control.pid\")\"\n"
    "rm -rf \"$1/pipe\" \"$1/log\"; rmdir \"$1\"";

// Starts `program`, silent, with additional environment; its process, or 0 and why not.
struct Started {
    pid_t pid = 0;
    std::string cause;
};

Started start_program(const std::string& program, const std::vector<std::string>& arguments,
                      const Environment& added, int input) {
    std::vector<char*> argv{const_cast<char*>(program.c_str())};
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    std::vector<std::string> variables;
    for (char** e = environ; *e != nullptr; ++e) {
        const std::string line(*e);
        if (!added.contains(line.substr(0, line.find('=')))) variables.push_back(line);
    }
    for (const auto& [name, value] : added) variables.push_back(name + "=" + value);
    std::vector<char*> envp;
    for (std::string& v : variables) envp.push_back(v.data());
    envp.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (input >= 0) {
        posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    } else {
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    }
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    // A session of its own: a launcher that kills this process's group must not reach it.
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    Started started;
    const int error = posix_spawnp(&started.pid, program.c_str(), &actions, &attributes,
                                   argv.data(), envp.data());
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return {.cause = fmt::format("{}: {}", program, std::strerror(error))};
    return started;
}

// Why the program did not end well in time; empty if it did. Kills it when the time is over.
std::string failure_of(pid_t pid, const std::string& program, std::chrono::milliseconds timeout) {
    const auto end = std::chrono::steady_clock::now() + timeout;
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (std::chrono::steady_clock::now() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return fmt::format("{} did not end within {} ms", program, timeout.count());
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    if (!WIFEXITED(status)) return program + " was killed";
    return WEXITSTATUS(status) == 0 ? ""
                                    : fmt::format("{} ended with {}", program, WEXITSTATUS(status));
}

std::string log_of(const std::filesystem::path& file) {
    std::ifstream in(file);
    std::string last;
    for (std::string line; std::getline(in, line);) {
        if (!line.empty()) last = line;
    }
    return last.empty() ? "" : "; its log ends with: " + last;
}

}  // namespace

MpsDaemon::MpsDaemon(std::filesystem::path directory, std::string control)
    : directory_(std::move(directory)), control_(std::move(control)) {
    std::error_code ignored;
    std::filesystem::create_directories(directory_ / "log", ignored);
    std::filesystem::create_directories(directory_ / "pipe", ignored);
    const Started daemon = start_program(control_, {"-d"}, environment(), -1);
    std::string cause = daemon.cause;
    if (cause.empty())
        cause = failure_of(daemon.pid, control_ + " -d", std::chrono::milliseconds(10'000));
    if (!cause.empty()) {
        cause += log_of(directory_ / "log" / "control.log");
        std::filesystem::remove_all(directory_, ignored);
        throw MpsUnavailable(cause);
    }
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw MpsUnavailable(std::strerror(errno));
    const Descriptor input(ends[0]);
    leash_ = Descriptor(ends[1]);
    guard_ = start_program("/bin/sh", {"-c", kGuard, control_, directory_.string()}, environment(),
                           input.get())
                 .pid;
}

MpsDaemon::~MpsDaemon() {
    leash_ = Descriptor();
    if (guard_ > 0) failure_of(guard_, "the guard of MPS", std::chrono::milliseconds(9'000));
}

Environment MpsDaemon::environment() const {
    return {{"CUDA_MPS_PIPE_DIRECTORY", (directory_ / "pipe").string()},
            {"CUDA_MPS_LOG_DIRECTORY", (directory_ / "log").string()}};
}

std::filesystem::path mps_control_pipe(const Environment& environment) {
    const auto it = environment.find("CUDA_MPS_PIPE_DIRECTORY");
    return std::filesystem::path(it == environment.end() ? "/tmp/nvidia-mps" : it->second) /
           "control";
}

Environment sharing_environment(const Environment& environment, int rank, int sharers,
                                bool loopback_only) {
    Environment result{
        {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", std::to_string(std::max(1, 100 / sharers))},
        {"NCCL_HOSTID", fmt::format("headway-rank-{}", rank)}};
    if (loopback_only) result["NCCL_SOCKET_IFNAME"] = "lo";
    for (auto it = result.begin(); it != result.end();)
        it = environment.contains(it->first) ? result.erase(it) : std::next(it);
    return result;
}

}  // namespace headway::runtime
