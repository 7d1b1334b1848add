// Jobs on several threads: the one place of the models and the layers' setup that starts them.
#pragma once

#include <cstddef>
#include <functional>

namespace headway {

// Runs job(0) .. job(count - 1) on at most `threads` threads, the caller's among them. All jobs
// run; then what the lowest of those that threw had thrown reaches the caller.
void for_each_job(std::size_t count, int threads, const std::function<void(std::size_t)>& job);

// The same for jobs that need something of their thread's: job(i, worker), where worker 0 is the
// caller's thread and no two jobs of one worker run at once.
void for_each_job_of_worker(std::size_t count, int threads,
                            const std::function<void(std::size_t, std::size_t)>& job);

// How many workers for_each_job uses.
std::size_t num_workers(std::size_t count, int threads);

}  // namespace headway
