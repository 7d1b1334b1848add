#include "runtime/process/mps.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <system_error>
#include <thread>
#include <vector>

#include "runtime/process/connection.hpp"

namespace headway::runtime {

namespace {

// Runs `program` with these arguments, input and additional environment; its exit code, or none if
// it cannot be run or does not end in time (it is killed then).
struct Outcome {
    int exit_code = -1;
    std::string cause;  // empty if it ended by itself
};

Outcome run_program(const std::string& program, const std::vector<std::string>& arguments,
                    const Environment& added, const std::string& input,
                    std::chrono::milliseconds timeout) {
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) return {.cause = std::strerror(errno)};
    const Descriptor out(pipe_fds[0]);
    {
        const Descriptor in(pipe_fds[1]);
        if (write(in.get(), input.data(), input.size()) < 0) return {.cause = std::strerror(errno)};
    }
    std::vector<char*> argv{const_cast<char*>(program.c_str())};
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    std::vector<std::string> variables;
    for (char** e = environ; *e != nullptr; ++e) {
        const std::string_view line(*e);
        if (!added.contains(std::string(line.substr(0, line.find('=')))))
            variables.emplace_back(line);
    }
    for (const auto& [name, value] : added) variables.push_back(name + "=" + value);
    std::vector<char*> envp;
    for (std::string& v : variables) envp.push_back(v.data());
    envp.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out.get(), STDIN_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t pid = 0;
    const int error =
        posix_spawnp(&pid, program.c_str(), &actions, nullptr, argv.data(), envp.data());
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return {.cause = fmt::format("{}: {}", program, std::strerror(error))};
    const auto end = std::chrono::steady_clock::now() + timeout;
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (std::chrono::steady_clock::now() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return {.cause = fmt::format("{} did not end within {} ms", program, timeout.count())};
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    if (WIFEXITED(status)) return {.exit_code = WEXITSTATUS(status)};
    return {.cause = program + " was killed"};
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
    const Outcome start =
        run_program(control_, {"-d"}, environment(), "", std::chrono::milliseconds(10'000));
    if (start.exit_code == 0) return;
    const std::string cause =
        (start.cause.empty() ? fmt::format("{} -d ended with {}", control_, start.exit_code)
                             : start.cause) +
        log_of(directory_ / "log" / "control.log");
    std::filesystem::remove_all(directory_, ignored);
    throw MpsUnavailable(cause);
}

MpsDaemon::~MpsDaemon() {
    const Outcome quit =
        run_program(control_, {}, environment(), "quit -t 2\n", std::chrono::milliseconds(6'000));
    if (quit.exit_code != 0) {
        pid_t daemon = 0;
        std::ifstream(directory_ / "pipe" / "nvidia-cuda-mps-control.pid") >> daemon;
        if (daemon > 1) kill(daemon, SIGKILL);
    }
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
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
