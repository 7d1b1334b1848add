#include "runtime/thread_communicator.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

namespace headway::runtime {

namespace {

using Clock = std::chrono::steady_clock;

// Thrown on the ranks that end because another one failed.
struct Aborted : std::exception {
    const char* what() const noexcept override { return "another rank failed"; }
};

struct RankState {
    std::optional<CallSite> site;
    Clock::time_point last_progress = Clock::now();
    bool waiting = false;  // in a barrier
    bool done = false;
    TrafficLedger ledger;  // written by its rank only, read after the end
};

// Shared by all ranks of a run; everything but the ledgers is guarded by the mutex.
struct World {
    explicit World(int num_ranks) : ranks(static_cast<std::size_t>(num_ranks)) {}

    std::mutex mutex;
    std::condition_variable changed;  // a barrier filled, a rank ended or failed
    std::vector<RankState> ranks;
    std::optional<RankFailure> failure;
    std::atomic<bool> aborted{false};

    void fail(int rank, const std::string& cause) {  // with the mutex held
        if (!failure) {
            failure.emplace(rank, ranks[static_cast<std::size_t>(rank)].site, cause);
            aborted = true;
        }
        changed.notify_all();
    }
};

// What a rank shows to the others of its group between two barriers.
struct Slot {
    const std::byte* data = nullptr;
    std::span<const std::int64_t> counts;
    std::shared_ptr<struct Group> subgroup;
};

struct Group {
    explicit Group(std::vector<int> world_ranks)
        : members(std::move(world_ranks)), slots(members.size()) {}

    std::vector<int> members;  // world rank of every rank of this group
    std::vector<Slot> slots;
    int num_waiting = 0;  // guarded by World::mutex
    std::atomic<std::uint64_t> generation{0};
    std::atomic<int> num_reading{0};  // ranks that still read what others published
};

// Keeps what a rank published alive until all ranks of the group have read it, also when one of
// them leaves by an exception: it cannot be aborted, and need not be, as readers only copy.
class Reading {
  public:
    explicit Reading(Group& group) : group_(group) {}
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    ~Reading() {
        if (--group_.num_reading == 0) {
            group_.num_reading.notify_all();
            return;
        }
        for (int left = group_.num_reading; left != 0; left = group_.num_reading) {
            group_.num_reading.wait(left);
        }
    }

  private:
    Group& group_;
};

class ThreadCommunicator final : public Communicator {
  public:
    ThreadCommunicator(std::shared_ptr<World> world, std::shared_ptr<Group> group, int rank)
        : world_(std::move(world)), group_(std::move(group)), rank_(rank) {}

    int rank() const override { return rank_; }
    int size() const override { return static_cast<int>(group_->members.size()); }

    void enter(CallSite site) override {
        const std::lock_guard lock(world_->mutex);
        if (world_->aborted) throw Aborted();
        me().site = site;
        me().last_progress = Clock::now();
    }

    void all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes, void* receive,
                      std::span<const std::int64_t> receive_bytes) override {
        publish({.data = static_cast<const std::byte*>(send), .counts = send_bytes});
        const Reading reading(*group_);
        auto* out = static_cast<std::byte*>(receive);
        for (int source = 0; source < size(); ++source) {
            const Slot& peer = slot(source);
            std::int64_t offset = 0;
            for (int r = 0; r < rank_; ++r) offset += peer.counts[static_cast<std::size_t>(r)];
            const std::int64_t count = peer.counts[static_cast<std::size_t>(rank_)];
            if (count != receive_bytes[static_cast<std::size_t>(source)]) {
                throw std::logic_error("all-to-all: a receive size differs from what is sent");
            }
            if (count > 0) {
                std::memcpy(out, peer.data + offset, static_cast<std::size_t>(count));
            }
            out += count;
        }
        for (int d = 0; d < size(); ++d) book(d, send_bytes[static_cast<std::size_t>(d)]);
    }

    void all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair) override {
        const std::vector<std::int64_t> bytes(static_cast<std::size_t>(size()), bytes_per_pair);
        all_to_all_v(send, bytes, receive, bytes);
    }

    void all_reduce_sum(std::span<float> values) override { reduce(values); }
    void all_reduce_sum(std::span<double> values) override { reduce(values); }

    std::vector<std::int64_t> all_gather_counts(std::span<const std::int64_t> own) override {
        publish({.counts = own});
        const Reading reading(*group_);
        std::vector<std::int64_t> all;
        for (int source = 0; source < size(); ++source) {
            const auto counts = slot(source).counts;
            if (counts.size() != own.size()) {
                throw std::logic_error("all-gather: ranks give different numbers of counts");
            }
            all.insert(all.end(), counts.begin(), counts.end());
        }
        for (int d = 0; d < size(); ++d) book(d, static_cast<std::int64_t>(own.size_bytes()));
        return all;
    }

    void barrier() override { meet(false); }

    std::unique_ptr<Communicator> split(int color) override {
        const std::int64_t own = color;
        const std::vector<std::int64_t> colors = all_gather_counts({&own, 1});
        std::vector<int> members;
        int first = -1;
        int new_rank = 0;
        for (int r = 0; r < size(); ++r) {
            if (colors[static_cast<std::size_t>(r)] != own) continue;
            if (first < 0) first = r;
            if (r == rank_) new_rank = static_cast<int>(members.size());
            members.push_back(group_->members[static_cast<std::size_t>(r)]);
        }
        Slot mine;
        if (first == rank_) mine.subgroup = std::make_shared<Group>(members);
        publish(mine);
        const Reading reading(*group_);
        auto group = slot(first).subgroup;
        return std::make_unique<ThreadCommunicator>(world_, std::move(group), new_rank);
    }

    const TrafficLedger& traffic() const override { return me().ledger; }

  private:
    // A barrier; one that publishes counts every rank as a reader of the slots after it.
    void meet(bool publishes) {
        std::unique_lock lock(world_->mutex);
        if (world_->aborted) throw Aborted();
        me().last_progress = Clock::now();
        const std::uint64_t generation = group_->generation;
        if (++group_->num_waiting == size()) {
            group_->num_waiting = 0;
            if (publishes) group_->num_reading = size();
            ++group_->generation;
            lock.unlock();
            world_->changed.notify_all();
            return;
        }
        me().waiting = true;
        lock.unlock();
        const auto passed = [&] { return group_->generation != generation || world_->aborted; };
        // Spinning for a moment keeps the latency of a wake-up out of short exchanges.
        for (int i = 0; i < 2000 && !passed(); ++i) std::this_thread::yield();
        lock.lock();
        world_->changed.wait(lock, passed);
        me().waiting = false;
        me().last_progress = Clock::now();
        if (group_->generation == generation) throw Aborted();
    }

    // Reduce-scatter, then all-gather: rank r adds up slice r, in rank order, and gives it to all.
    template <class T>
    void reduce(std::span<T> values) {
        const std::size_t n = values.size();
        const auto bound = [&](int r) {
            return n * static_cast<std::size_t>(r) / static_cast<std::size_t>(size());
        };
        const std::size_t low = bound(rank_);
        std::vector<T> slice(bound(rank_ + 1) - low);
        publish({.data = reinterpret_cast<const std::byte*>(values.data())});
        {
            const Reading reading(*group_);
            for (int source = 0; source < size(); ++source) {
                const T* peer = reinterpret_cast<const T*>(slot(source).data) + low;
                for (std::size_t i = 0; i < slice.size(); ++i) {
                    slice[i] = source == 0 ? peer[i] : slice[i] + peer[i];
                }
            }
        }
        publish({.data = reinterpret_cast<const std::byte*>(slice.data())});
        const Reading reading(*group_);
        for (int source = 0; source < size(); ++source) {
            const std::size_t count = bound(source + 1) - bound(source);
            if (count > 0) {
                std::memcpy(values.data() + bound(source), slot(source).data, count * sizeof(T));
            }
            if (source == rank_) continue;
            book(source, static_cast<std::int64_t>((count + slice.size()) * sizeof(T)));
        }
    }

    void publish(Slot mine) {
        slot(rank_) = std::move(mine);
        meet(true);
    }

    void book(int destination, std::int64_t bytes) {
        auto [row, is_new] = me().ledger.try_emplace(me().site.value_or(CallSite{}));
        if (is_new) row->second.resize(world_->ranks.size(), 0);
        const int world_rank = group_->members[static_cast<std::size_t>(destination)];
        row->second[static_cast<std::size_t>(world_rank)] += bytes;
    }

    Slot& slot(int r) { return group_->slots[static_cast<std::size_t>(r)]; }
    RankState& me() const {
        const int world_rank = group_->members[static_cast<std::size_t>(rank_)];
        return world_->ranks[static_cast<std::size_t>(world_rank)];
    }

    std::shared_ptr<World> world_;
    std::shared_ptr<Group> group_;
    int rank_;
};

void run_rank(const std::shared_ptr<World>& world, const std::shared_ptr<Group>& group, int rank,
              const std::function<void(Communicator&)>& body) {
    std::string cause;
    bool failed = false;
    try {
        ThreadCommunicator communicator(world, group, rank);
        body(communicator);
    } catch (const Aborted&) {
        // Another rank failed first; that failure is the one to report.
    } catch (const std::exception& error) {
        failed = true;
        cause = error.what();
    } catch (...) {
        failed = true;
        cause = "unknown exception";
    }
    const std::lock_guard lock(world->mutex);
    world->ranks[static_cast<std::size_t>(rank)].done = true;
    if (failed) world->fail(rank, cause);
    world->changed.notify_all();
}

// The rank that holds up the run, if one has for longer than the deadline. With the mutex held.
void watch(World& world, std::chrono::milliseconds deadline) {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(deadline).count();
    bool all_wait = true;
    int waiting_rank = -1;
    for (std::size_t r = 0; r < world.ranks.size(); ++r) {
        const RankState& rank = world.ranks[r];
        if (rank.done) continue;
        const bool late = now - rank.last_progress > deadline;
        if (late && !rank.waiting) {
            world.fail(static_cast<int>(r),
                       "stalled: no progress for " + std::to_string(seconds) + " s");
            return;
        }
        all_wait = all_wait && late && rank.waiting;
        if (waiting_rank < 0) waiting_rank = static_cast<int>(r);
    }
    if (all_wait && waiting_rank >= 0) {
        world.fail(waiting_rank, "waits for ranks that have ended or are in another collective");
    }
}

}  // namespace

std::vector<TrafficLedger> run_on_threads(int num_ranks, std::function<void(Communicator&)> body,
                                          ThreadRunOptions options) {
    if (num_ranks < 1) throw std::logic_error("a run needs at least one rank");
    auto world = std::make_shared<World>(num_ranks);
    std::vector<int> members(static_cast<std::size_t>(num_ranks));
    for (int r = 0; r < num_ranks; ++r) members[static_cast<std::size_t>(r)] = r;
    auto group = std::make_shared<Group>(std::move(members));
    auto shared_body = std::make_shared<const std::function<void(Communicator&)>>(std::move(body));

    std::vector<std::thread> threads;
    for (int r = 0; r < num_ranks; ++r) {
        threads.emplace_back(
            [world, group, shared_body, r] { run_rank(world, group, r, *shared_body); });
    }
    std::unique_lock lock(world->mutex);
    const auto all_done = [&] {
        return std::all_of(world->ranks.begin(), world->ranks.end(),
                           [](const RankState& rank) { return rank.done; });
    };
    const auto period = std::max(options.deadline / 8, std::chrono::milliseconds(1));
    while (!world->failure && !all_done()) {
        world->changed.wait_for(lock, period, [&] { return world->failure || all_done(); });
        if (!world->failure && !all_done()) watch(*world, options.deadline);
    }
    world->changed.wait_for(lock, options.grace, all_done);
    std::vector<bool> ended;
    for (const RankState& rank : world->ranks) ended.push_back(rank.done);
    lock.unlock();
    for (std::size_t r = 0; r < threads.size(); ++r) {
        if (ended[r]) {
            threads[r].join();
        } else {
            threads[r].detach();
        }
    }
    if (world->failure) throw RankFailure(*world->failure);
    std::vector<TrafficLedger> ledgers;
    for (RankState& rank : world->ranks) ledgers.push_back(std::move(rank.ledger));
    return ledgers;
}

}  // namespace headway::runtime
