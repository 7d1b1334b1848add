#include "models/sweep/run_sweep.hpp"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace headway::inline sweep {
namespace {

// Hands out points in order and takes their rows back in any order. Threads run at most `window`
// points ahead of the first that is missing, so that a slow point costs no memory.
class OrderedRun {
  public:
    using Take = std::function<void(std::string_view, std::size_t)>;

    OrderedRun(std::size_t begin, std::size_t end, std::size_t window, const Take& take)
        : next_(begin), written_(begin), end_(end), slots_(window), take_(take) {}

    std::optional<std::size_t> claim() {
        std::unique_lock lock(mutex_);
        room_.wait(lock, [&] { return error_ || next_ < written_ + slots_.size(); });
        if (error_ || next_ >= end_) return std::nullopt;
        return next_++;
    }

    void give(std::size_t point, std::string rows) {
        const std::lock_guard lock(mutex_);
        slots_[point % slots_.size()] = std::move(rows);
        if (point != written_ || error_) return;
        for (auto* slot = &slots_[written_ % slots_.size()]; slot->has_value();
             slot = &slots_[written_ % slots_.size()]) {
            take_(**slot, written_ + 1);
            slot->reset();
            ++written_;
        }
        room_.notify_all();
    }

    void fail(std::exception_ptr error) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::move(error);
        room_.notify_all();
    }

    void rethrow_if_failed() const {
        if (error_) std::rethrow_exception(error_);
    }

  private:
    std::mutex mutex_;
    std::condition_variable room_;
    std::size_t next_, written_, end_;
    std::vector<std::optional<std::string>> slots_;
    std::exception_ptr error_;
    const Take& take_;
};

}  // namespace

void run_sweep(const Sweep& sweep, const RowOptions& rows, const RunOptions& options,
               const std::function<void(std::string_view rows, std::size_t num_done)>& take) {
    constexpr std::size_t kAhead = 64;  // points a thread
    const std::size_t end = points_of(options.shard, num_points(sweep));
    const auto threads = static_cast<std::size_t>(std::max(1, options.threads));
    OrderedRun run(options.begin, end, kAhead * threads, take);
    const auto work = [&] {
        try {
            PointEvaluator evaluator(sweep, rows);
            while (const auto i = run.claim()) {
                run.give(*i, evaluator.rows(options.shard.index + *i * options.shard.count));
            }
        } catch (...) {
            run.fail(std::current_exception());
        }
    };
    {
        std::vector<std::jthread> pool;
        for (std::size_t t = 1; t < std::min(threads, end); ++t) pool.emplace_back(work);
        work();
    }
    run.rethrow_if_failed();
}

}  // namespace headway::inline sweep
