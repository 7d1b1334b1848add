// Ranks of a test as real processes, forked from the test itself.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "models/vocab/error.hpp"
#include "runtime/process/process_rank.hpp"

namespace headway::runtime {

struct ForkedRank {
    int exit_code = -1;
    int signal = 0;
    double seconds = 0.0;  // from the start to its end
    std::string message;   // of the exception that ended it
};

// No deadline passes, however busy the machine is: for ranks that come and end by themselves.
inline ChannelOptions long_deadlines() {
    using std::chrono::milliseconds;
    return {.rendezvous = milliseconds(60000),
            .beat = milliseconds(20),
            .silence = milliseconds(60000),
            .deadline = milliseconds(60000),
            .settle = milliseconds(500),
            .grace = milliseconds(1000)};
}

// For ranks that must be missed: longer than a busy machine keeps a process waiting.
inline ChannelOptions short_deadlines() {
    ChannelOptions options = long_deadlines();
    options.rendezvous = std::chrono::milliseconds(10000);
    options.silence = options.deadline = std::chrono::milliseconds(3000);
    return options;
}

struct ForkedRun {
    int num_ranks = 3;
    ChannelOptions options = long_deadlines();
    std::function<Facts(int rank)> facts = [](int) { return Facts{{"scenario", "same"}}; };
    std::vector<int> absent;      // ranks that never come
    std::vector<int> claimed_as;  // the rank that each process claims to be; empty: its own
    int overdue_exit = 9;
    std::string host = "";  // address of rank 0 that a launcher gives; empty: our own launcher's
};

// In the child: runs the rank and ends the process. Exit codes as headway-run's.
[[noreturn]] inline void be_rank(const ForkedRun& run, int rank, int port, Descriptor listener,
                                 int out, const std::function<void(SideChannel&)>& body) {
    RankIdentity identity{.launcher = "test",
                          .rank = rank,
                          .size = run.num_ranks,
                          .local_rank = rank,
                          .local_size = run.num_ranks};
    if (!run.claimed_as.empty()) identity.rank = run.claimed_as[static_cast<std::size_t>(rank)];
    identity.port = port;
    if (run.host.empty()) {
        if (rank == 0) identity.listen_fd = dup(listener.get());
    } else {
        identity.host = run.host;
    }
    listener = Descriptor();
    std::string message;
    int code = 0;
    try {
        run_process_rank(
            identity, run.facts(rank), run.options,
            [&](const std::string&) { _exit(run.overdue_exit); }, body);
    } catch (const RankFailure& failure) {
        message = failure.what();
        code = kRankFailureExit;
    } catch (const InputError& error) {
        message = error.what();
        code = 2;
    } catch (const std::exception& error) {
        message = error.what();
        code = 3;
    }
    if (write(out, message.data(), message.size()) < 0) code = 3;
    _exit(code);
}

// Ranks that have not ended 120 s after the start, and stopped ones once the others have ended, are
// killed.
inline std::vector<ForkedRank> run_forked(const ForkedRun& run,
                                          const std::function<void(SideChannel&)>& body) {
    const auto start = std::chrono::steady_clock::now();
    const auto since = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    Descriptor listener = listen_on(0, true);
    const int port = port_of(listener);
    if (!run.host.empty()) listener = Descriptor();  // rank 0 listens for itself
    std::vector<ForkedRank> ranks(static_cast<std::size_t>(run.num_ranks));
    std::vector<pid_t> pids;
    std::vector<Descriptor> outputs;
    for (int rank = 0; rank < run.num_ranks; ++rank) {
        int fds[2];
        if (pipe(fds) != 0) throw std::runtime_error("no pipe");
        outputs.emplace_back(fds[0]);
        const Descriptor writer(fds[1]);
        const bool absent = std::count(run.absent.begin(), run.absent.end(), rank) > 0;
        pids.push_back(absent ? 0 : fork());
        if (pids.back() == 0 && !absent)
            be_rank(run, rank, port, Descriptor(listener ? dup(listener.get()) : -1), writer.get(),
                    body);
    }
    std::size_t left = ranks.size() - run.absent.size();
    const auto collect = [&] {
        bool all_stopped = true;
        for (std::size_t r = 0; r < ranks.size(); ++r) {
            if (pids[r] == 0) continue;
            int status = 0;
            if (waitpid(pids[r], &status, WNOHANG | WUNTRACED) == pids[r]) {
                if (WIFSTOPPED(status)) {
                    ranks[r].signal = SIGSTOP;
                    continue;
                }
                if (WIFEXITED(status)) ranks[r].exit_code = WEXITSTATUS(status);
                if (WIFSIGNALED(status)) ranks[r].signal = WTERMSIG(status);
                ranks[r].seconds = since();
                pids[r] = 0;
                --left;
            } else if (ranks[r].signal != SIGSTOP) {
                all_stopped = false;
            }
        }
        return all_stopped;
    };
    while (left > 0) {
        const bool only_stopped = collect();
        if (left > 0 && (only_stopped || since() > 120.0)) {
            for (const pid_t pid : pids) {
                if (pid > 0) kill(pid, SIGKILL);
            }
            for (ForkedRank& rank : ranks) {
                if (rank.signal == SIGSTOP) rank.signal = 0;
            }
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    for (std::size_t r = 0; r < ranks.size(); ++r) {
        char text[4096];
        const ssize_t size = read(outputs[r].get(), text, sizeof(text));
        if (size > 0) ranks[r].message.assign(text, static_cast<std::size_t>(size));
    }
    return ranks;
}

}  // namespace headway::runtime
