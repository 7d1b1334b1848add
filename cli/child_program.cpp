#include "cli/child_program.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <system_error>
#include <thread>

#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kNotStarted = 127;

pid_t start(const std::vector<std::string>& words, const fs::path& log) {
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    const pid_t parent = getpid(), child = fork();
    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (out >= 0 && dup2(out, STDOUT_FILENO) >= 0 && dup2(out, STDERR_FILENO) >= 0 &&
        getppid() == parent)
        execvp(argv[0], argv.data());
    const char* cause = std::strerror(errno);
    if (write(STDERR_FILENO, cause, std::strlen(cause)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
        _exit(126);
    _exit(kNotStarted);
}

}  // namespace

std::string program_beside(const std::string& name) {
    std::error_code error;
    const fs::path self = fs::read_symlink("/proc/self/exe", error);
    if (!error && fs::exists(self.parent_path() / name))
        return (self.parent_path() / name).string();
    return name;
}

int run_child(const std::vector<std::string>& words, const fs::path& log,
              const std::function<void()>& watch) {
    const pid_t child = start(words, log);
    if (child < 0) throw InputError({.where = words.front(), .found = std::strerror(errno)});
    int status = 0;
    for (;;) {
        const pid_t ended = ::waitpid(child, &status, WNOHANG);
        if (ended == child) break;
        if (ended < 0 && errno != EINTR) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        if (watch) watch();
    }
    return status;
}

std::string how_ended(int status) {
    return WIFEXITED(status) ? fmt::format("exit code {}", WEXITSTATUS(status))
                             : fmt::format("ended by signal {}", WTERMSIG(status));
}

bool could_not_start(int status) {
    return WIFEXITED(status) && WEXITSTATUS(status) == kNotStarted;
}

std::string last_line(const fs::path& log) {
    std::ifstream in(log);
    std::string last;
    for (std::string line; std::getline(in, line);) {
        if (!line.empty()) last = line;
    }
    return last;
}

}  // namespace headway::cli
