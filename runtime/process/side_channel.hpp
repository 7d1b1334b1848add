// SideChannel: what the ranks of a run tell each other beside the payload, over TCP to rank 0: that
// all have come with the same facts, barriers, small host data, signs of life with (phase, pass),
// and failures. After a failure of any rank every call throws it: RankFailure, or InputError if the
// run was refused.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "runtime/process/hub.hpp"
#include "runtime/process/message.hpp"

namespace headway::runtime {

struct Member {
    int rank = 0;
    int size = 1;
    std::string host = "127.0.0.1";  // of rank 0
    int port = 0;
};

class SideChannel {
  public:
    // `on_overdue`: this rank has not ended within the grace period after a failure. Called on
    // another thread, while this rank may be stuck in a call that never returns.
    using OnOverdue = std::function<void(const std::string& failure)>;

    // Returns when all ranks have come. Rank 0 must have a Hub at (host, port).
    SideChannel(const Member& member, const Facts& facts, ChannelOptions options,
                OnOverdue on_overdue = {});
    ~SideChannel();
    SideChannel(const SideChannel&) = delete;
    SideChannel& operator=(const SideChannel&) = delete;

    int rank() const { return member_.rank; }
    int size() const { return member_.size; }

    // Progress of this rank; cheap. `site`: the phase that it is in from here on.
    void enter(CallSite site);
    void check();  // throws if the run has failed

    // While one lives, this rank waits for others or for the device: not a stall of its own.
    class Waiting {
      public:
        explicit Waiting(SideChannel& channel) : channel_(channel) { channel_.set_waiting(true); }
        ~Waiting() { channel_.set_waiting(false); }
        Waiting(const Waiting&) = delete;
        Waiting& operator=(const Waiting&) = delete;

      private:
        SideChannel& channel_;
    };

    // Collective; `collective` names it, and must be the same on all ranks. [size()]
    std::vector<std::string> all_gather(const std::string& collective, const std::string& own);
    void barrier();

    // Ends the run on all ranks, and throws its failure: this one, unless another was there first.
    // `symptom`: the cause may be another rank's end; the hub waits for a better one a moment.
    [[noreturn]] void fail(const std::string& cause, bool symptom = false);
    [[noreturn]] void refuse(const std::string& why);  // bad input

    // Collective, the last call: all ranks have done their work.
    void finish();

  private:
    using Clock = std::chrono::steady_clock;

    void serve();  // the thread
    void take_frames();
    void handle(const Frame& frame);
    void lose_hub(const std::string& cause);
    void send(const Frame& frame);  // with the mutex held
    void set_waiting(bool waiting);
    void throw_failure() const;  // with the mutex held; returns if there is none
    [[noreturn]] void report(Failure failure);
    Report own_report() const;

    Member member_;
    ChannelOptions options_;
    OnOverdue on_overdue_;
    Connection connection_;
    Descriptor wake_;  // eventfd: the main thread has queued output, or leaves

    std::mutex mutex_;  // guards everything below, and the output of the connection
    std::condition_variable changed_;
    Report report_;
    int num_waiting_ = 0;
    Clock::time_point progress_ = Clock::now(), hub_heard_ = progress_;
    std::optional<CallSite> hub_site_;
    bool welcomed_ = false, leaving_ = false;
    std::vector<std::vector<std::string>> gathered_;
    std::optional<Failure> failure_;
    Clock::time_point failed_at_;
    std::thread thread_;
};

// A failure as the exception that stands for it.
std::string text_of(const Failure& failure);

}  // namespace headway::runtime
