#include "cli/python.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

// The first Python that runs `code` without an error.
std::string python_that_runs(const std::string& code, const InputProblem& otherwise) {
    for (const std::string python : {"python3", "/usr/bin/python3"}) {
        if (run_program({python, "-c", code}, Chatter::silent) == 0) return python;
    }
    throw InputError(otherwise);
}

}  // namespace

int run_program(const std::vector<std::string>& words, Chatter chatter) {
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    if (chatter == Chatter::silent) {
        posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    }
    // This process ignores SIGPIPE; its children must not.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &pipe_signal);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    pid_t child = 0;
    const int error = posix_spawnp(&child, argv[0], &files, &attributes, argv.data(), ::environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) return 127;
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    // As a shell says that a signal ended a program.
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string plain_python() {
    return python_that_runs(
        "import sys; sys.exit(sys.version_info < (3, 10))",
        {.where = "headway report",
         .found = "no Python 3.10 or later (tried python3 and /usr/bin/python3)",
         .hint = "apt-get install python3"});
}

std::string python_with_matplotlib() {
    return python_that_runs(
        "import matplotlib",
        {.where = "headway plot",
         .found = "no Python with matplotlib (tried python3 and /usr/bin/python3)",
         .hint = "apt-get install python3-matplotlib, or pip install matplotlib"});
}

}  // namespace headway::cli
