#include "runtime/process/side_channel.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "models/vocab/error.hpp"

namespace headway::runtime {

namespace {

Connection reach(const Member& member, const ChannelOptions& options) {
    auto connection = connect_to(member.host, member.port, options.rendezvous);
    if (connection) return std::move(*connection);
    throw RankFailure(0, std::nullopt,
                      fmt::format("rank {} could not reach it at {}:{} within {} ms", member.rank,
                                  member.host, member.port, options.rendezvous.count()));
}

}  // namespace

std::string text_of(const Failure& failure) {
    if (failure.refused) return failure.cause;
    return RankFailure(failure.rank, failure.site, failure.cause).what();
}

SideChannel::SideChannel(const Member& member, const Facts& facts, ChannelOptions options,
                         OnOverdue on_overdue)
    : member_(member),
      options_(options),
      on_overdue_(std::move(on_overdue)),
      connection_(reach(member, options)),
      wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    connection_.queue(encode(Hello{member.rank, member.size, facts}));
    thread_ = std::thread([this] { serve(); });
    std::unique_lock lock(mutex_);
    // The hub ends the rendezvous in time; if the hub itself is lost, serve() notices.
    const auto patience = options_.rendezvous + 2 * options_.silence;
    if (!changed_.wait_for(lock, patience, [&] { return welcomed_ || failure_; }))
        lose_hub("it did not answer (stopped?)");
    progress_ = Clock::now();
    const bool failed = failure_.has_value();
    if (!failed) return;
    leaving_ = true;
    lock.unlock();
    thread_.join();
    throw_failure();
}

SideChannel::~SideChannel() {
    {
        const std::lock_guard lock(mutex_);
        leaving_ = true;
    }
    const std::uint64_t one = 1;
    if (write(wake_.get(), &one, sizeof(one)) < 0) std::terminate();
    thread_.join();
}

void SideChannel::enter(CallSite site) {
    const std::lock_guard lock(mutex_);
    throw_failure();
    report_.site = site;
    ++report_.num_entered;
    progress_ = Clock::now();
}

void SideChannel::check() {
    const std::lock_guard lock(mutex_);
    throw_failure();
}

void SideChannel::set_waiting(bool waiting) {
    const std::lock_guard lock(mutex_);
    num_waiting_ += waiting ? 1 : -1;
    report_.waiting = num_waiting_ > 0;
    progress_ = Clock::now();
}

std::vector<std::string> SideChannel::all_gather(const std::string& collective,
                                                 const std::string& own) {
    const Waiting waiting(*this);
    std::unique_lock lock(mutex_);
    throw_failure();
    send(encode(Contribution{collective, own}));
    changed_.wait(lock, [&] { return !gathered_.empty() || failure_; });
    throw_failure();
    std::vector<std::string> all = std::move(gathered_.front());
    gathered_.erase(gathered_.begin());
    return all;
}

void SideChannel::barrier() {
    all_gather("barrier", "");
}

void SideChannel::fail(const std::string& cause, bool symptom) {
    report({.rank = rank(), .cause = cause, .symptom = symptom});
}

void SideChannel::refuse(const std::string& why) {
    report({.rank = rank(), .cause = why, .refused = true});
}

void SideChannel::report(Failure failure) {
    std::unique_lock lock(mutex_);
    failure.site = report_.site;
    if (!failure_) send(encode(FrameType::fail, failure));
    changed_.wait_for(lock, options_.settle + std::chrono::seconds(1),
                      [&] { return failure_.has_value(); });
    if (!failure_) failure_ = failure;
    throw_failure();
    throw std::logic_error("a failure that does not throw");
}

void SideChannel::finish() {
    barrier();
    const std::lock_guard lock(mutex_);
    leaving_ = true;
    send({FrameType::goodbye, ""});
}

void SideChannel::send(const Frame& frame) {
    connection_.queue(frame);
    connection_.write_some();  // an error shows in serve()
    if (!connection_.has_output()) return;
    const std::uint64_t one = 1;
    if (write(wake_.get(), &one, sizeof(one)) < 0) return;  // the counter is full: it wakes anyway
}

void SideChannel::throw_failure() const {
    if (!failure_) return;
    if (failure_->refused)
        throw InputError(
            {.where = fmt::format("rank {}", failure_->rank), .found = failure_->cause});
    throw RankFailure(failure_->rank, failure_->site, failure_->cause);
}

Report SideChannel::own_report() const {
    Report report = report_;
    report.idle = std::chrono::duration<double>(Clock::now() - progress_).count();
    return report;
}

void SideChannel::lose_hub(const std::string& cause) {
    if (failure_) return;
    failure_ = Failure{.rank = 0, .site = hub_site_, .cause = cause};
    failed_at_ = Clock::now();
    changed_.notify_all();
}

void SideChannel::handle(const Frame& frame) {
    hub_heard_ = Clock::now();
    switch (frame.type) {
        case FrameType::welcome:
            welcomed_ = true;
            break;
        case FrameType::beat:
            hub_site_ = decode_report(frame).site;
            return;
        case FrameType::gathered:
            gathered_.push_back(decode_gathered(frame));
            break;
        case FrameType::abort:
            if (failure_) return;
            failure_ = decode_failure(frame);
            failed_at_ = Clock::now();
            break;
        default:
            return lose_hub("sent what no hub sends");
    }
    changed_.notify_all();
}

void SideChannel::take_frames() {
    try {
        while (const auto frame = connection_.take()) handle(*frame);
    } catch (const std::exception& error) {
        lose_hub(error.what());
    }
}

void SideChannel::serve() {
    auto next_beat = Clock::now();
    bool open = true, overdue_told = false;
    std::unique_lock lock(mutex_);
    while (!leaving_ || (open && connection_.has_output())) {
        const auto now = Clock::now();
        if (open && now >= next_beat && !failure_) {
            next_beat = now + options_.beat;
            if (welcomed_) connection_.queue(encode(own_report()));
        }
        if (open) open = connection_.write_some();
        const bool more = connection_.has_output();
        lock.unlock();
        pollfd fds[2] = {{.fd = wake_.get(), .events = POLLIN, .revents = 0},
                         {.fd = open ? connection_.fd() : -1,
                          .events = static_cast<short>(POLLIN | (more ? POLLOUT : 0)),
                          .revents = 0}};
        poll(fds, 2, static_cast<int>(std::max<long>(1, options_.beat.count() / 2)));
        std::uint64_t count = 0;
        const bool woken = read(wake_.get(), &count, sizeof(count)) > 0;
        lock.lock();
        if (open) {
            const bool stays = connection_.read_some();
            take_frames();
            open = stays;
            if (!open && !leaving_) lose_hub("its process ended without a word (killed?)");
        }
        if (!woken && open && welcomed_ && Clock::now() > hub_heard_ + options_.silence)
            lose_hub("no sign of life (stopped, or its machine cannot be reached)");
        if (failure_ && !leaving_ && !overdue_told && Clock::now() > failed_at_ + options_.grace) {
            overdue_told = true;
            const std::string text = text_of(*failure_);
            lock.unlock();
            if (on_overdue_) on_overdue_(text);
            lock.lock();
        }
    }
    if (open) connection_.end_output();
    lock.unlock();
    // Unread bytes would reset the connection, and with it lose what was sent last.
    const auto end = Clock::now() + std::chrono::milliseconds(500);
    while (open && Clock::now() < end) {
        pollfd fd{.fd = connection_.fd(), .events = POLLIN, .revents = 0};
        poll(&fd, 1, 20);
        open = connection_.read_some();
    }
}

}  // namespace headway::runtime
