// headway plot: a thin call of analysis/plot.py, with a Python that has matplotlib.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "cli/installation.hpp"
#include "cli/options.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

enum class Chatter { shown, silent };

// Runs a program found on the PATH and returns its exit code, or 127 when it cannot be started.
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
    return WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}

std::string python_with_matplotlib() {
    for (const std::string python : {"python3", "/usr/bin/python3"}) {
        if (run_program({python, "-c", "import matplotlib"}, Chatter::silent) == 0) return python;
    }
    throw InputError({.where = "headway plot",
                      .found = "no Python with matplotlib (tried python3 and /usr/bin/python3)",
                      .hint = "apt-get install python3-matplotlib, or pip install matplotlib"});
}

}  // namespace

int run_plot(Args args) {
    const CommandHelp help{
        .usage = "plot RESULT... -o FIGURE [options]",
        .about =
            "Draws a result file: JSON of `predict`, or Timeline CSV of any verb. The ending of\n"
            "FIGURE chooses the format (.png or .svg).",
        .examples =
            "  headway plot result.json -o phases.png\n"
            "  headway plot result.json --figure memory -o memory.svg",
        .positional = {"result"},
        .repeat_last = true};
    po::options_description options("Options");
    options.add_options()("result", po::value<std::vector<std::string>>()->value_name("RESULT"),
                          "result file; several for figures that compare")(
        "out,o", po::value<std::string>()->value_name("FIGURE"), "figure to write, .png or .svg")(
        "figure", po::value<std::string>()->value_name("NAME"),
        "which figure (default: the first that fits the result); --figure list names them")(
        "title", po::value<std::string>()->value_name("TEXT"), "title of the figure")("help,h",
                                                                                      "this text");
    const auto values = parse_options(args, help, options);
    if (!values) return kDone;
    std::vector<std::string> command = {python_with_matplotlib(), plot_script().string()};
    if (values->count("result") != 0) {
        const auto& results = (*values)["result"].as<std::vector<std::string>>();
        command.insert(command.end(), results.begin(), results.end());
    }
    for (const std::string name : {"out", "figure", "title"}) {
        const auto value = optional_text(*values, name);
        if (value) command.insert(command.end(), {"--" + name, *value});
    }
    // The script explains its own bad input; its exit code is in our terms.
    return run_program(command, Chatter::shown);
}

}  // namespace headway::cli
