#include "runtime/process/hub.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>

#include <algorithm>
#include <deque>
#include <list>
#include <map>

#include "runtime/process/message.hpp"

namespace headway::runtime {

namespace {

using Clock = std::chrono::steady_clock;

double seconds(std::chrono::milliseconds time) {
    return std::chrono::duration<double>(time).count();
}

struct Peer {
    explicit Peer(Connection c) : connection(std::move(c)) {}

    Connection connection;
    int rank = -1;  // until its hello
    Facts facts;
    Report report;
    Clock::time_point heard = Clock::now();
    std::deque<Contribution> contributions;
    bool done = false;  // said goodbye
    bool gone = false;  // connection ended
};

// Ranks that differ from rank 0 in a fact, as a table; empty if none does.
std::string differences(const std::map<int, Peer*>& ranks) {
    std::string table;
    for (const auto& own : ranks.at(0)->facts) {
        const std::string& fact = own.first;
        std::map<std::string, std::vector<int>> by_value;
        for (const auto& [rank, peer] : ranks) {
            const auto it = std::find_if(peer->facts.begin(), peer->facts.end(),
                                         [&](const auto& f) { return f.first == fact; });
            by_value[it == peer->facts.end() ? "(none)" : it->second].push_back(rank);
        }
        if (by_value.size() == 1) continue;
        table += fmt::format("{}{}:", table.empty() ? "" : "; ", fact);
        for (const auto& [text, who] : by_value)
            table += fmt::format(" '{}' on rank {}", text, fmt::join(who, ", "));
    }
    return table;
}

// The hub's state; touched by its thread only.
class Server {
  public:
    Server(Descriptor listener, int num_ranks, const ChannelOptions& options)
        : listener_(std::move(listener)), num_ranks_(num_ranks), options_(options) {}

    void run(const std::atomic<bool>& leaving) {
        while (!ended(leaving)) {
            poll_all();
            for (Peer& peer : peers_) serve(peer);
            peers_.remove_if([](const Peer& p) { return p.gone && p.rank < 0; });
            if (failure_) continue;
            if (!welcomed_) {
                watch_rendezvous();
            } else {
                watch_ranks();
                beat();
            }
            if (symptom_ && Clock::now() >= symptom_due_ && !failure_) end_run(*symptom_);
        }
    }

  private:
    bool ended(const std::atomic<bool>& leaving) const {
        const bool all_gone =
            std::all_of(peers_.begin(), peers_.end(), [](const Peer& p) { return p.gone; });
        // Ranks that are still to come must learn of the failure too.
        const bool all_came = static_cast<int>(ranks_.size()) == num_ranks_;
        if (failure_) return (all_came && all_gone) || Clock::now() > failed_at_ + options_.grace;
        if (welcomed_) return all_gone;
        return leaving;
    }

    void poll_all() {
        std::vector<pollfd> fds{{.fd = listener_.get(), .events = POLLIN, .revents = 0}};
        for (const Peer& peer : peers_) {
            if (peer.gone) continue;
            const short events =
                static_cast<short>(POLLIN | (peer.connection.has_output() ? POLLOUT : 0));
            fds.push_back({.fd = peer.connection.fd(), .events = events, .revents = 0});
        }
        poll(fds.data(), fds.size(),
             static_cast<int>(std::max<long>(1, options_.beat.count() / 2)));
        while (auto connection = accept_on(listener_)) {
            Peer& peer = peers_.emplace_back(std::move(*connection));
            if (failure_) send(peer, encode(FrameType::abort, *failure_));
        }
    }

    void serve(Peer& peer) {
        if (peer.gone) return;
        bool open = peer.connection.read_some();
        try {
            while (const auto frame = peer.connection.take()) handle(peer, *frame);
        } catch (const std::exception& error) {
            open = false;  // no rank, or one of another build
            if (peer.rank >= 0) end_run({peer.rank, peer.report.site, error.what()});
        }
        open = peer.connection.write_some() && open;
        if (open) return;
        peer.gone = true;
        peer.connection.end_output();
        if (peer.done || peer.rank < 0) return;
        end_run({peer.rank, peer.report.site, "its process ended without a word (killed?)"});
    }

    void handle(Peer& peer, const Frame& frame) {
        peer.heard = Clock::now();
        if (peer.rank < 0 && frame.type != FrameType::hello)
            throw std::runtime_error("spoke before its hello");
        switch (frame.type) {
            case FrameType::hello:
                return admit(peer, decode_hello(frame));
            case FrameType::beat:
                peer.report = decode_report(frame);
                return;
            case FrameType::contribute:
                peer.contributions.push_back(decode_contribution(frame));
                return pass_on();
            case FrameType::fail:
                return blame(decode_failure(frame));
            case FrameType::goodbye:
                peer.done = true;
                return;
            default:
                throw std::runtime_error("sent what only the hub sends");
        }
    }

    void admit(Peer& peer, Hello hello) {
        if (hello.rank < 0 || hello.rank >= num_ranks_ || hello.size != num_ranks_) {
            return refuse(hello.rank, fmt::format("a process came as rank {} of {}, rank 0 runs {}",
                                                  hello.rank, hello.size, num_ranks_));
        }
        if (ranks_.contains(hello.rank))
            return refuse(hello.rank, fmt::format("two processes came as rank {}", hello.rank));
        peer.rank = hello.rank;
        peer.facts = std::move(hello.facts);
        ranks_[peer.rank] = &peer;
        if (static_cast<int>(ranks_.size()) < num_ranks_ || failure_) return;
        const std::string table = differences(ranks_);
        if (!table.empty()) return refuse(0, "the ranks do not run the same: " + table);
        for (auto& [rank, p] : ranks_) send(*p, {FrameType::welcome, ""});
        welcomed_ = true;
    }

    void refuse(int rank, const std::string& cause) {
        end_run({.rank = rank, .cause = cause, .refused = true});
    }

    void watch_rendezvous() {
        if (Clock::now() < start_ + options_.rendezvous) return;
        int missing = 0;
        while (ranks_.contains(missing)) ++missing;
        end_run({.rank = missing,
                 .cause = fmt::format("it did not arrive within {} s ({} of {} ranks did)",
                                      seconds(options_.rendezvous), ranks_.size(), num_ranks_)});
    }

    // A contribution of every rank makes one gathered answer.
    void pass_on() {
        for (const auto& [rank, peer] : ranks_) {
            if (peer->contributions.empty()) return;
        }
        std::vector<Contribution> all;
        for (auto& [rank, peer] : ranks_) {
            all.push_back(std::move(peer->contributions.front()));
            peer->contributions.pop_front();
        }
        for (std::size_t r = 1; r < all.size(); ++r) {
            if (all[r].collective == all[0].collective) continue;
            const int rank = static_cast<int>(r);
            return end_run({rank, ranks_[rank]->report.site,
                            fmt::format("is in the collective '{}' while rank 0 is in '{}'",
                                        all[r].collective, all[0].collective)});
        }
        const Frame gathered = encode_gathered(all);
        for (auto& [rank, peer] : ranks_) send(*peer, gathered);
    }

    void blame(const Failure& failure) {
        if (!failure.symptom) return end_run(failure);
        if (symptom_) return;
        symptom_ = failure;
        symptom_due_ = Clock::now() + options_.settle;
    }

    void watch_ranks() {
        const Peer* behind = nullptr;
        bool all_wait = true;
        for (auto& [rank, peer] : ranks_) {
            if (peer->done) continue;
            const Report& report = peer->report;
            if (Clock::now() > peer->heard + options_.silence) {
                end_run({rank, report.site,
                         fmt::format("no sign of life for {} s (stopped, or its machine cannot be "
                                     "reached)",
                                     seconds(options_.silence))});
                peer->gone = true;  // nobody waits for it
                return;
            }
            const bool late = report.idle > seconds(options_.deadline);
            if (late && !report.waiting) {
                return end_run(
                    {rank, report.site,
                     fmt::format("stalled: no progress for {} s", seconds(options_.deadline))});
            }
            all_wait = all_wait && late;
            if (behind == nullptr || report.num_entered < behind->report.num_entered) behind = peer;
        }
        if (!all_wait || behind == nullptr) return;
        end_run({behind->rank, behind->report.site,
                 fmt::format("all ranks wait for each other or for the device for more than {} s; "
                             "this rank is the furthest behind",
                             seconds(options_.deadline))});
    }

    void beat() {
        if (Clock::now() < next_beat_) return;
        next_beat_ = Clock::now() + options_.beat;
        const Frame frame = encode(ranks_.at(0)->report);
        for (auto& [rank, peer] : ranks_) send(*peer, frame);
    }

    void end_run(const Failure& failure) {
        if (failure_) return;
        failure_ = failure;
        failed_at_ = Clock::now();
        for (Peer& peer : peers_) send(peer, encode(FrameType::abort, failure));
    }

    void send(Peer& peer, const Frame& frame) {
        if (peer.gone) return;
        peer.connection.queue(frame);
        peer.connection.write_some();  // an error shows when it is read from
    }

    Descriptor listener_;
    int num_ranks_;
    ChannelOptions options_;
    std::list<Peer> peers_;  // addresses stay
    std::map<int, Peer*> ranks_;
    bool welcomed_ = false;
    Clock::time_point start_ = Clock::now(), next_beat_ = start_, failed_at_, symptom_due_;
    std::optional<Failure> failure_, symptom_;
};

}  // namespace

Hub::Hub(Descriptor listener, int num_ranks, ChannelOptions options)
    : thread_([this, num_ranks, options, socket = std::move(listener)]() mutable {
          Server(std::move(socket), num_ranks, options).run(leaving_);
      }) {}

Hub::~Hub() {
    leaving_ = true;
    thread_.join();
}

}  // namespace headway::runtime
