// for_each_job: n jobs on at most t threads. Every job runs once, whatever another one throws, and
// what the lowest of those that threw had thrown reaches the caller.
#include "models/vocab/jobs.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

namespace headway {
namespace {

TEST(Jobs, RunOnceEachWhateverTheNumberOfThreads) {
    for (const int threads : {-1, 0, 1, 2, 7, 100}) {
        std::vector<std::atomic<int>> runs(13);
        for_each_job(runs.size(), threads, [&](std::size_t i) { ++runs[i]; });
        for (const auto& count : runs) EXPECT_EQ(count, 1) << threads;
    }
    for_each_job(0, 4, [](std::size_t) { FAIL(); });
}

TEST(Jobs, ThrowToTheCallerFromEveryThread) {
    constexpr std::size_t kJobs = 64;
    std::atomic<int> ran{0};
    try {
        for_each_job(kJobs, 8, [&](std::size_t i) {
            ++ran;
            throw std::runtime_error(std::to_string(i));
        });
        FAIL();
    } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "0");
    }
    EXPECT_EQ(ran, kJobs);
}

TEST(Jobs, OfOneWorkerNeverRunAtOnce) {
    constexpr std::size_t kJobs = 1000;
    const std::size_t workers = num_workers(kJobs, 4);
    EXPECT_EQ(workers, 4U);
    std::vector<int> own(workers);  // no atomics: each is its worker's alone
    for_each_job_of_worker(kJobs, 4, [&](std::size_t, std::size_t worker) { ++own.at(worker); });
    int sum = 0;
    for (const int count : own) sum += count;
    EXPECT_EQ(sum, static_cast<int>(kJobs));
}

}  // namespace
}  // namespace headway
