#include "runtime/thread_communicator.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <random>
#include <thread>

namespace headway::runtime {
namespace {

using std::chrono::milliseconds;

constexpr CallSite kDispatch{Phase::dispatch, Pass::forward};
constexpr CallSite kExpert{Phase::expert, Pass::backward};

std::vector<std::int64_t> bytes_of(const std::vector<std::int64_t>& counts) {
    std::vector<std::int64_t> bytes;
    for (std::int64_t c : counts) bytes.push_back(c * static_cast<std::int64_t>(sizeof(int)));
    return bytes;
}

// Rank s sends c(s, d) ints of value 100 s + d to rank d. Rank d then holds, in order of s, c(s, d)
// times 100 s + d; the ledger holds 4 c(s, d) bytes. Zero counts included.
TEST(ThreadCommunicator, UnevenAllToAllDeliversInRankOrderAndBooksEveryPair) {
    const int n = 4;
    const auto count = [](int s, int d) { return std::int64_t{(s * 3 + d * 5) % 4}; };
    const auto ledgers = run_on_threads(n, [&](Communicator& comm) {
        comm.enter(kDispatch);
        const int me = comm.rank();
        std::vector<int> send, expected;
        std::vector<std::int64_t> send_counts, receive_counts;
        for (int r = 0; r < n; ++r) {
            send_counts.push_back(count(me, r));
            receive_counts.push_back(count(r, me));
            send.insert(send.end(), static_cast<std::size_t>(count(me, r)), 100 * me + r);
            expected.insert(expected.end(), static_cast<std::size_t>(count(r, me)), 100 * r + me);
        }
        std::vector<int> receive(expected.size());
        comm.all_to_all_v(send.data(), bytes_of(send_counts), receive.data(),
                          bytes_of(receive_counts));
        EXPECT_EQ(receive, expected);
    });
    const TrafficMatrix matrix = gather_traffic(ledgers).at(kDispatch);
    for (int s = 0; s < n; ++s) {
        for (int d = 0; d < n; ++d) EXPECT_EQ(matrix.at(s, d), 4 * count(s, d));
    }
}

// All-reduce adds in rank order: ((x0 + x1) + x2) + ..., bit for bit, on every rank, for lengths
// that no slice divides; every rank moves 2 S (n - 1) / n bytes, up to the rounding of slices.
TEST(ThreadCommunicator, AllReduceAddsInRankOrder) {
    for (const std::size_t length : {std::size_t{1}, std::size_t{2}, std::size_t{7}}) {
        const int n = 3;
        std::mt19937 random(7);
        std::vector<std::vector<double>> x(n, std::vector<double>(length));
        for (auto& row : x) {
            for (double& v : row) v = std::generate_canonical<double, 53>(random) - 0.5;
        }
        std::vector<double> expected = x[0];
        for (int r = 1; r < n; ++r) {
            for (std::size_t i = 0; i < length; ++i)
                expected[i] += x[static_cast<std::size_t>(r)][i];
        }
        const auto ledgers = run_on_threads(n, [&](Communicator& comm) {
            comm.enter({Phase::grad_all_reduce, Pass::backward});
            std::vector<double> mine = x[static_cast<std::size_t>(comm.rank())];
            comm.all_reduce_sum(std::span<double>(mine));
            EXPECT_EQ(mine, expected);
        });
        const TrafficMatrix moved =
            gather_traffic(ledgers).at({Phase::grad_all_reduce, Pass::backward});
        EXPECT_EQ(moved.total_off_rank(), static_cast<std::int64_t>(2 * length * 8 * (n - 1)));
    }
}

// Colour r / 2 of ranks 0..3 gives the groups {0, 1} and {2, 3}; their traffic is booked in world
// ranks.
TEST(ThreadCommunicator, SplitMakesSubgroupsThatBookWorldRanks) {
    const auto ledgers = run_on_threads(4, [](Communicator& comm) {
        const auto pair = comm.split(comm.rank() / 2);
        EXPECT_EQ(pair->size(), 2);
        EXPECT_EQ(pair->rank(), comm.rank() % 2);
        comm.enter(kDispatch);
        const std::int64_t mine = comm.rank();
        std::int64_t both[2] = {-1, -1}, send[2] = {mine, mine};
        pair->all_to_all(send, both, sizeof(mine));
        EXPECT_EQ(both[0], mine / 2 * 2);
        EXPECT_EQ(both[1], mine / 2 * 2 + 1);
    });
    const TrafficMatrix matrix = gather_traffic(ledgers).at(kDispatch);
    EXPECT_EQ(matrix.at(2, 3), 8);
    EXPECT_EQ(matrix.at(0, 3), 0);
}

TEST(ThreadCommunicator, AReceiveSizeThatDiffersFromWhatIsSentIsNamed) {
    try {
        run_on_threads(2, [](Communicator& comm) {
            comm.enter(kDispatch);
            std::vector<char> buffer(64);
            const std::vector<std::int64_t> send = {8, 8};
            const std::vector<std::int64_t> receive = {8, comm.rank() == 0 ? 4 : 8};
            comm.all_to_all_v(buffer.data(), send, buffer.data() + 32, receive);
        });
        FAIL() << "a wrong receive size went unnoticed";
    } catch (const RankFailure& failure) {
        EXPECT_EQ(failure.rank, 0);
        EXPECT_EQ(failure.site, kDispatch);
    }
}

// Rank 2 throws in its expert phase while the others wait in dispatch: the run ends at once with
// that rank, phase and cause.
TEST(Faults, AThrowingRankEndsTheRunOnAllRanks) {
    const auto start = std::chrono::steady_clock::now();
    std::atomic<int> left_by_abort{0};
    try {
        run_on_threads(4, [&](Communicator& comm) {
            comm.enter(kExpert);
            if (comm.rank() == 2) throw std::runtime_error("out of memory in expert 5");
            comm.enter(kDispatch);
            try {
                comm.barrier();
            } catch (...) {
                ++left_by_abort;
                throw;
            }
        });
        FAIL() << "the failure was lost";
    } catch (const RankFailure& failure) {
        EXPECT_EQ(failure.rank, 2);
        EXPECT_EQ(failure.site, kExpert);
        EXPECT_EQ(failure.cause, "out of memory in expert 5");
        EXPECT_STREQ(failure.what(),
                     "rank 2 failed in phase expert (backward): out of memory in expert 5");
    }
    EXPECT_LE(left_by_abort, 3);
    // Far below the deadline of 60 s: nobody waited for it.
    EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(20'000));
}

// Rank 1 sleeps in dispatch for longer than the deadline: it is named within deadline + grace, and
// the other ranks end although it never arrives.
TEST(Faults, AStallingRankIsNamedWithinTheDeadline) {
    auto release = std::make_shared<std::atomic<bool>>(false);
    const auto start = std::chrono::steady_clock::now();
    try {
        run_on_threads(3,
                       [release](Communicator& comm) {
                           comm.enter(kDispatch);
                           while (comm.rank() == 1 && !*release)
                               std::this_thread::sleep_for(milliseconds(5));
                           comm.barrier();
                       },
                       {.deadline = milliseconds(300), .grace = milliseconds(200)});
        FAIL() << "the stall went unnoticed";
    } catch (const RankFailure& failure) {
        EXPECT_EQ(failure.rank, 1);
        EXPECT_EQ(failure.site, kDispatch);
        EXPECT_NE(failure.cause.find("stalled"), std::string::npos);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(10'000));
    *release = true;
}

// Rank 0 ends without the barrier that the others are in: they are told so instead of hanging.
TEST(Faults, RanksThatWaitInVainAreNamed) {
    try {
        run_on_threads(2,
                       [](Communicator& comm) {
                           comm.enter(kDispatch);
                           if (comm.rank() == 1) comm.barrier();
                       },
                       {.deadline = milliseconds(200), .grace = milliseconds(200)});
        FAIL() << "the deadlock went unnoticed";
    } catch (const RankFailure& failure) {
        EXPECT_EQ(failure.rank, 1);
        EXPECT_NE(failure.cause.find("waits for ranks"), std::string::npos);
    }
}

}  // namespace
}  // namespace headway::runtime
