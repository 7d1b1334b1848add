#include "models/vocab/jobs.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace headway {

std::size_t num_workers(std::size_t count, int threads) {
    return std::min(static_cast<std::size_t>(std::max(threads, 1)), count);
}

void for_each_job_of_worker(std::size_t count, int threads,
                            const std::function<void(std::size_t, std::size_t)>& job) {
    std::vector<std::exception_ptr> thrown(count);
    std::atomic<std::size_t> next{0};
    const auto work = [&](std::size_t worker) {
        for (std::size_t i = next++; i < count; i = next++) {
            try {
                job(i, worker);
            } catch (...) {
                thrown[i] = std::current_exception();
            }
        }
    };
    {
        std::vector<std::jthread> pool;
        const std::size_t workers = num_workers(count, threads);
        for (std::size_t w = 1; w < workers; ++w) pool.emplace_back(work, w);
        work(0);
    }
    for (const std::exception_ptr& error : thrown) {
        if (error) std::rethrow_exception(error);
    }
}

void for_each_job(std::size_t count, int threads, const std::function<void(std::size_t)>& job) {
    for_each_job_of_worker(count, threads, [&](std::size_t i, std::size_t) { job(i); });
}

}  // namespace headway
