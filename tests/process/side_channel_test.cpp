// The side channel with real processes, and the faults that it must name.
#include "runtime/process/side_channel.hpp"

#include "tests/process/forked_ranks.hpp"

namespace headway::runtime {
namespace {

using std::chrono::milliseconds;

constexpr CallSite kDispatch{Phase::dispatch, Pass::forward};
constexpr CallSite kExpert{Phase::expert, Pass::backward};

void expect_all_end(const std::vector<ForkedRank>& ranks, int exit_code, const std::string& message,
                    const std::vector<int>& except = {}) {
    for (std::size_t r = 0; r < ranks.size(); ++r) {
        if (std::count(except.begin(), except.end(), static_cast<int>(r)) > 0) continue;
        EXPECT_EQ(ranks[r].exit_code, exit_code) << "rank " << r << ": " << ranks[r].message;
        EXPECT_NE(ranks[r].message.find(message), std::string::npos)
            << "rank " << r << " says: " << ranks[r].message;
        // A fault is heard of before any long deadline; without one a busy machine may take its
        // time.
        if (exit_code != 0) {
            EXPECT_LT(ranks[r].seconds, 25.0);
        }
    }
}

// The phase is what the last sign of life said: leave time for one.
void enter_and_be_heard(SideChannel& channel, CallSite site) {
    channel.enter(site);
    channel.barrier();
    std::this_thread::sleep_for(milliseconds(300));
}

// all_gather gives every rank [own(0), own(1), ...], in every round, for empty and large parts.
TEST(SideChannel, GathersInRankOrder) {
    const auto ranks = run_forked({.num_ranks = 4}, [](SideChannel& channel) {
        const auto part = [](int rank, int round) {
            return std::string(static_cast<std::size_t>(round * round * 1000 * rank),
                               static_cast<char>('a' + rank));
        };
        for (int round = 0; round < 30; ++round) {
            const auto all = channel.all_gather("parts", part(channel.rank(), round));
            for (int r = 0; r < channel.size(); ++r) {
                if (all.at(static_cast<std::size_t>(r)) != part(r, round))
                    throw std::logic_error("wrong part");
            }
            channel.barrier();
        }
    });
    expect_all_end(ranks, 0, "");
}

// Ranks of one machine that a launcher sends to another of its addresses than 127.0.0.1, as
// torchrun does with MASTER_ADDR=$(hostname): rank 0 listens there too.
TEST(SideChannel, IsReachedAtTheAddressThatTheLauncherNames) {
    for (const char* host : {"127.0.0.1", "localhost", "127.0.0.2"}) {
        const auto ranks = run_forked({.num_ranks = 2, .host = host},
                                      [](SideChannel& channel) { channel.barrier(); });
        expect_all_end(ranks, 0, "");
    }
}

// 127.0.0.1 and names of it alone; 127.0.0.2 is this machine too, but another address.
TEST(Connection, KnowsWhatIsReachedOverTheLoopbackAddress) {
    for (const char* host : {"127.0.0.1", "localhost"}) EXPECT_TRUE(is_loopback(host)) << host;
    for (const char* host : {"127.0.0.2", "10.1.2.3", "0.0.0.0"})
        EXPECT_FALSE(is_loopback(host)) << host;
}

TEST(SideChannel, NamesARankKilledInAPhase) {
    for (const int victim : {0, 2}) {
        const auto ranks = run_forked({}, [victim](SideChannel& channel) {
            enter_and_be_heard(channel, kDispatch);
            if (channel.rank() == victim) raise(SIGKILL);
            channel.barrier();
        });
        EXPECT_EQ(ranks[static_cast<std::size_t>(victim)].signal, SIGKILL);
        expect_all_end(ranks, kRankFailureExit,
                       "rank " + std::to_string(victim) +
                           " failed in phase dispatch (forward): its process ended without a word",
                       {victim});
    }
}

TEST(SideChannel, NamesAStoppedRank) {
    for (const int victim : {0, 1}) {
        const auto ranks =
            run_forked({.options = short_deadlines()}, [victim](SideChannel& channel) {
                enter_and_be_heard(channel, kExpert);
                if (channel.rank() == victim) raise(SIGSTOP);
                channel.barrier();
            });
        expect_all_end(ranks, kRankFailureExit,
                       "rank " + std::to_string(victim) +
                           " failed in phase expert (backward): no sign of life",
                       {victim});
    }
}

// Facts differ on ranks 1 and 2: every rank is refused, with who has what.
TEST(SideChannel, RefusesRanksThatRunDifferentThings) {
    ForkedRun run;
    run.facts = [](int rank) {
        return Facts{{"version", "1"}, {"scenario", rank == 0 ? "aa" : "bb"}};
    };
    const auto ranks = run_forked(run, [](SideChannel&) {});
    expect_all_end(ranks, 2, "scenario: 'aa' on rank 0 'bb' on rank 1, 2");
    EXPECT_EQ(ranks[0].message.find("version"), std::string::npos);
}

TEST(SideChannel, RefusesTwoProcessesOfOneRank) {
    const auto ranks = run_forked({.claimed_as = {0, 1, 1}}, [](SideChannel&) {});
    expect_all_end(ranks, 2, "two processes came as rank 1");
}

TEST(SideChannel, PassesOnWhatARankThrows) {
    const auto thrown = run_forked({}, [](SideChannel& channel) {
        channel.enter(kExpert);
        if (channel.rank() == 1) throw std::runtime_error("out of memory: 12 GiB asked");
        channel.barrier();
    });
    expect_all_end(thrown, kRankFailureExit,
                   "rank 1 failed in phase expert (backward): out of memory: 12 GiB asked");
    const auto refused = run_forked({}, [](SideChannel& channel) {
        if (channel.rank() == 2) throw InputError(InputProblem{.where = "here", .found = "bad"});
        channel.barrier();
    });
    expect_all_end(refused, 2, "here: bad");
}

TEST(SideChannel, NamesARankThatMakesNoProgress) {
    const auto ranks = run_forked({.options = short_deadlines()}, [](SideChannel& channel) {
        channel.enter(kExpert);
        channel.barrier();
        if (channel.rank() == 1) {
            for (int i = 0; i < 400; ++i) {
                channel.check();
                std::this_thread::sleep_for(milliseconds(50));
            }
        }
        channel.barrier();
    });
    expect_all_end(ranks, kRankFailureExit,
                   "rank 1 failed in phase expert (backward): stalled: no progress");
}

// All wait; rank 2 has entered fewer phases than the others.
TEST(SideChannel, NamesTheRankFurthestBehindWhenAllWait) {
    const auto ranks = run_forked({.options = short_deadlines()}, [](SideChannel& channel) {
        channel.enter(kDispatch);
        channel.barrier();
        if (channel.rank() != 2) channel.enter(kExpert);
        const SideChannel::Waiting waiting(channel);
        for (int i = 0; i < 400; ++i) {
            channel.check();
            std::this_thread::sleep_for(milliseconds(50));
        }
    });
    expect_all_end(ranks, kRankFailureExit, "rank 2 failed in phase dispatch (forward): all ranks");
}

TEST(SideChannel, NamesARankInAnotherCollective) {
    const auto ranks = run_forked({}, [](SideChannel& channel) {
        channel.all_gather(channel.rank() == 2 ? "rows" : "counts", "x");
    });
    expect_all_end(ranks, kRankFailureExit, "is in the collective 'rows' while rank 0 is in");
}

// Rank 1 notices something when rank 2 is killed, and says so first: rank 2 is named.
TEST(SideChannel, PrefersACauseToItsSymptom) {
    const auto ranks = run_forked({}, [](SideChannel& channel) {
        enter_and_be_heard(channel, kDispatch);
        if (channel.rank() == 1) channel.fail("remote error", true);
        std::this_thread::sleep_for(milliseconds(200));
        if (channel.rank() == 2) raise(SIGKILL);
        channel.barrier();
    });
    expect_all_end(ranks, kRankFailureExit, "rank 2 failed in phase dispatch", {2});
    const auto alone = run_forked({}, [](SideChannel& channel) {
        channel.enter(kDispatch);
        if (channel.rank() == 1) channel.fail("remote error", true);
        channel.barrier();
    });
    expect_all_end(alone, kRankFailureExit, "rank 1 failed in phase dispatch (forward): remote");
}

TEST(SideChannel, NamesARankThatNeverComes) {
    ForkedRun run{.absent = {1}};
    run.options.rendezvous = milliseconds(2000);
    const auto ranks = run_forked(run, [](SideChannel&) {});
    expect_all_end(ranks, kRankFailureExit, "rank 1 failed before its first phase: it did not",
                   {1});
}

// Rank 1 is stuck in a call that never returns when rank 2 fails: it is told on another thread.
TEST(SideChannel, EndsARankThatIsStuck) {
    const auto ranks = run_forked({}, [](SideChannel& channel) {
        // Rank 1 must be out of the barrier when rank 2 fails, or it hears of it there.
        enter_and_be_heard(channel, kExpert);
        if (channel.rank() == 2) throw std::runtime_error("broken");
        if (channel.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(30));
        channel.barrier();
    });
    expect_all_end(ranks, kRankFailureExit, "rank 2 failed in phase expert (backward): broken",
                   {1});
    EXPECT_EQ(ranks[1].exit_code, 9);
}

}  // namespace
}  // namespace headway::runtime
