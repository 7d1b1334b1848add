// Which cores ranks take that any launcher has started, with real processes.
#include "runtime/process/cores.hpp"

#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/process/forked_ranks.hpp"

namespace headway::runtime {
namespace {

using Cores = std::vector<int>;

// 7 cores, 3 ranks: floor(7/3) = 2 consecutive cores each, none in two shares.
TEST(CoresOfRank, AreEqualSharesOfConsecutiveCores) {
    const Cores allowed{0, 1, 2, 5, 6, 7, 9};
    EXPECT_EQ(cores_of_rank(allowed, 0, 3), (Cores{0, 1}));
    EXPECT_EQ(cores_of_rank(allowed, 1, 3), (Cores{2, 5}));
    EXPECT_EQ(cores_of_rank(allowed, 2, 3), (Cores{6, 7}));
    EXPECT_TRUE(cores_of_rank({3}, 0, 2).empty());
}

// A launcher that binds nobody, on two machines of 2 ranks each: the cores of a machine are divided
// among its own ranks.
TEST(OwnCores, OfUnboundRanksAreSharesOfTheirMachine) {
    const Cores machine{0, 1, 2, 3};
    const std::vector<RankCores> all{
        {"a", machine}, {"b", machine}, {"a", machine}, {"b", machine}};
    EXPECT_EQ(own_cores(all, 0), (Cores{0, 1}));
    EXPECT_EQ(own_cores(all, 1), (Cores{0, 1}));
    EXPECT_EQ(own_cores(all, 2), (Cores{2, 3}));
    EXPECT_EQ(own_cores(all, 3), (Cores{2, 3}));
}

// What a launcher bound to one rank stays; what it bound to two (a socket) is divided by them; an
// overlap that is not the same set is the launcher's business.
TEST(OwnCores, KeepWhatALauncherGaveToOneRank) {
    const std::vector<RankCores> bound{{"a", {0, 1}}, {"a", {2, 3}}};
    EXPECT_EQ(own_cores(bound, 0), (Cores{0, 1}));
    EXPECT_EQ(own_cores(bound, 1), (Cores{2, 3}));
    const std::vector<RankCores> sockets{
        {"a", {0, 1}}, {"a", {2, 3}}, {"a", {0, 1}}, {"a", {2, 3}}};
    for (int rank = 0; rank < 4; ++rank)
        EXPECT_EQ(own_cores(sockets, rank), (Cores{2 * (rank % 2) + rank / 2}));
    const std::vector<RankCores> overlap{{"a", {0, 1, 2}}, {"a", {2, 3}}};
    EXPECT_EQ(own_cores(overlap, 0), (Cores{0, 1, 2}));
    EXPECT_EQ(own_cores(overlap, 1), (Cores{2, 3}));
}

// More ranks than cores: nobody is bound.
TEST(OwnCores, AreNoneWhereCoresAreTooFew) {
    const std::vector<RankCores> all{{"a", {7}}, {"a", {7}}};
    EXPECT_TRUE(own_cores(all, 0).empty());
}

TEST(CoresText, JoinsNeighbours) {
    EXPECT_EQ(cores_text(Cores{}), "");
    EXPECT_EQ(cores_text(Cores{4}), "4");
    EXPECT_EQ(cores_text(Cores{0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
}

// Every thread of this process, as the kernel has it.
bool all_threads_on(const std::string& list) {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::ifstream in(task.path() / "status");
        bool found = false;
        for (std::string line; std::getline(in, line);)
            found = found || line == "Cpus_allowed_list:\t" + list;
        if (!found) return false;
    }
    return true;
}

// Two ranks of one machine, c >= 2 cores: each is on floor(c/2), with the side channel's thread,
// which was there before; a rank alone on its host keeps all c.
TEST(TakeCores, BindsAllThreadsOfTheRanksOfAMachine) {
    const Cores before = allowed_cores();
    if (before.size() < 2) GTEST_SKIP() << "one core";
    const auto ranks = run_forked({.num_ranks = 3}, [&](SideChannel& channel) {
        const bool alone = channel.rank() == 2;
        take_cores(channel, alone ? "there" : "here");
        const Cores expected = alone ? before : cores_of_rank(before, channel.rank(), 2);
        if (allowed_cores() != expected) throw std::logic_error("other cores");
        if (expected.size() == 1 && !all_threads_on(std::to_string(expected.front())))
            throw std::logic_error("a thread elsewhere");
        std::thread([&] {
            if (allowed_cores() != expected) throw std::logic_error("a new thread elsewhere");
        }).join();
        channel.barrier();
    });
    for (const ForkedRank& rank : ranks) EXPECT_EQ(rank.exit_code, 0) << rank.message;
    EXPECT_EQ(allowed_cores(), before);
}

}  // namespace
}  // namespace headway::runtime
