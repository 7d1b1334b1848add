#include "runtime/process/local_ranks.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>
#include <optional>
#include <stdexcept>

#include "models/vocab/error.hpp"
#include "runtime/communicator.hpp"
#include "runtime/process/connection.hpp"
#include "runtime/process/cores.hpp"

namespace headway::runtime {

namespace {

using Clock = std::chrono::steady_clock;

// Blocks the signals that the launcher waits for; they arrive on a descriptor instead.
class SignalQueue {
  public:
    SignalQueue() {
        sigset_t mask;
        sigemptyset(&mask);
        for (const int s : {SIGCHLD, SIGINT, SIGTERM}) sigaddset(&mask, s);
        sigprocmask(SIG_BLOCK, &mask, &before_);
        fd_ = Descriptor(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    }
    ~SignalQueue() { restore(); }
    SignalQueue(const SignalQueue&) = delete;
    SignalQueue& operator=(const SignalQueue&) = delete;

    void restore() const { sigprocmask(SIG_SETMASK, &before_, nullptr); }

    // The next signal within the time, or 0.
    int next(std::chrono::milliseconds timeout) const {
        pollfd ready{.fd = fd_.get(), .events = POLLIN, .revents = 0};
        poll(&ready, 1, static_cast<int>(timeout.count()));
        signalfd_siginfo info{};
        if (read(fd_.get(), &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info))) return 0;
        return static_cast<int>(info.ssi_signo);
    }

  private:
    sigset_t before_{};
    Descriptor fd_;
};

// In the child: never returns.
[[noreturn]] void become_rank(const LocalRun& run, const std::vector<char*>& arguments,
                              std::size_t rank, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    stay_on(
        cores_of_rank(allowed_cores(), static_cast<int>(rank), static_cast<int>(run.added.size())));
    for (const auto& [name, value] : run.added[rank]) setenv(name.c_str(), value.c_str(), 1);
    if (run.enter) run.enter(rank);
    if (rank == 0 && run.listen_fd >= 0) fcntl(run.listen_fd, F_SETFD, 0);
    execv(run.executable.c_str(), arguments.data());
    _exit(127);
}

using Children = std::map<pid_t, int>;  // pid -> rank, of those that still run

Children start(const LocalRun& run, const SignalQueue& signals) {
    std::vector<char*> arguments{const_cast<char*>(run.executable.c_str())};
    for (const std::string& a : run.arguments) arguments.push_back(const_cast<char*>(a.c_str()));
    arguments.push_back(nullptr);
    const pid_t parent = getpid();
    Children children;
    for (std::size_t rank = 0; rank < run.added.size(); ++rank) {
        const pid_t pid = fork();
        if (pid == 0) {
            signals.restore();
            become_rank(run, arguments, rank, parent);
        }
        if (pid < 0) {
            const std::string cause = std::strerror(errno);
            for (const auto& [child, r] : children) kill(child, SIGKILL);
            throw RankFailure(static_cast<int>(rank), std::nullopt, "cannot be started: " + cause);
        }
        children[pid] = static_cast<int>(rank);
    }
    return children;
}

void reap(Children& children, LocalRunEnd& end, bool killed) {
    int status = 0;
    for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        const auto it = children.find(pid);
        if (it == children.end()) continue;
        RankEnd rank{.rank = it->second};
        if (WIFEXITED(status)) rank.exit_code = WEXITSTATUS(status);
        if (WIFSIGNALED(status)) rank.signal = WTERMSIG(status);
        rank.ended_by_launcher = killed && rank.signal == SIGKILL;
        end.ranks.push_back(rank);
        children.erase(it);
    }
}

}  // namespace

LocalRunEnd run_local_ranks(const LocalRun& run) {
    if (access(run.executable.c_str(), X_OK) != 0) {
        throw InputError({.where = run.executable, .found = "cannot be executed"});
    }
    const SignalQueue signals;
    Children children = start(run, signals);
    LocalRunEnd end;
    std::optional<Clock::time_point> kill_at;
    bool killed = false;
    while (!children.empty()) {
        const int signal = signals.next(std::chrono::milliseconds(kill_at ? 50 : 1000));
        if (signal == SIGINT || signal == SIGTERM) {
            end.interrupted_by = signal;
            for (const auto& [pid, rank] : children) kill(pid, signal);
        }
        reap(children, end, killed);
        const bool failed = std::any_of(end.ranks.begin(), end.ranks.end(),
                                        [](const RankEnd& r) { return r.failed(); });
        if (!kill_at && (failed || end.interrupted_by != 0)) kill_at = Clock::now() + run.grace;
        if (kill_at && !killed && Clock::now() >= *kill_at) {
            for (const auto& [pid, rank] : children) kill(pid, SIGKILL);
            killed = true;
        }
    }
    return end;
}

int exit_code_of(const LocalRunEnd& end) {
    if (end.interrupted_by != 0) return 128 + end.interrupted_by;
    for (const RankEnd& rank : end.ranks) {
        if (rank.signal != 0) return kRankFailureExit;
        if (rank.exit_code != 0) return rank.exit_code;
    }
    return 0;
}

std::string describe(const LocalRunEnd& end) {
    std::string text;
    for (const RankEnd& rank : end.ranks) {
        if (rank.ended_by_launcher) {
            text += fmt::format("rank {} did not end by itself and was killed\n", rank.rank);
        } else if (rank.signal != 0) {
            text += fmt::format("rank {} was ended by signal {} ({})\n", rank.rank, rank.signal,
                                strsignal(rank.signal));
        } else if (rank.exit_code == 127) {
            text += fmt::format("rank {} could not be started\n", rank.rank);
        }
    }
    return text;
}

}  // namespace headway::runtime
