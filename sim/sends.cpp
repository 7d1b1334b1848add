#include "sim/sends.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <variant>

namespace headway::sim {
namespace {

// The messages to one role.
struct Mail {
    std::vector<int> sent, received;  // [message] by how many tasks

    static void count(std::vector<int>& of, int message) {
        if (message < 0) throw std::logic_error("simulate: a message has a number below 0");
        if (of.size() <= static_cast<std::size_t>(message))
            of.resize(static_cast<std::size_t>(message) + 1, 0);
        ++of[static_cast<std::size_t>(message)];
    }
    static int times(const std::vector<int>& of, std::size_t message) {
        return message < of.size() ? of[message] : 0;
    }
};

}  // namespace

std::vector<int> check_messages(const Program& program) {
    std::vector<Mail> mail(static_cast<std::size_t>(program.num_roles()));
    for (int role = 0; role < program.num_roles(); ++role) {
        for (int t = program.tasks_begin(role); t < program.tasks_end(role); ++t) {
            const Task& task = program.tasks[static_cast<std::size_t>(t)];
            for (const int message : task.receives)
                Mail::count(mail[static_cast<std::size_t>(role)].received, message);
            const auto* send = std::get_if<SendTask>(&task.work);
            if (send == nullptr) continue;
            if (send->to_role < 0 || send->to_role >= program.num_roles() || send->to_role == role)
                throw std::logic_error(fmt::format("simulate: task {} of role {} sends to role {}",
                                                   t, role, send->to_role));
            Mail::count(mail[static_cast<std::size_t>(send->to_role)].sent, send->message);
        }
    }
    std::vector<int> messages;
    for (std::size_t role = 0; role < mail.size(); ++role) {
        const Mail& m = mail[role];
        const std::size_t n = std::max(m.sent.size(), m.received.size());
        for (std::size_t k = 0; k < n; ++k) {
            const int sent = Mail::times(m.sent, k), received = Mail::times(m.received, k);
            if (sent <= 1 && (sent > 0) == (received > 0)) continue;
            throw std::logic_error(
                fmt::format("simulate: message {} to role {} is sent {} times and waited for {} "
                            "times",
                            k, role, sent, received));
        }
        messages.push_back(static_cast<int>(n));
    }
    return messages;
}

Sends::Sends(const Program& program, const PathTable& paths, Network& network, EventQueue& events)
    : program_(program), paths_(paths), network_(network), events_(events) {}

const SendTask& Sends::send(int task) const {
    return std::get<SendTask>(program_.tasks[static_cast<std::size_t>(task)].work);
}

int Sends::receiver(int rank, int task) const {
    const int block = program_.ranks_of_role();
    return send(task).to_role * block + rank % block;
}

std::span<const Route> Sends::routes(int rank, int task) const {
    return paths_.routes(rank, receiver(rank, task));
}

void Sends::start(int rank, int task, Picoseconds now) {
    if (free_.empty()) {
        free_.push_back(static_cast<int>(under_way_.size()));
        under_way_.emplace_back();
    }
    const int number = free_.back();
    free_.pop_back();
    UnderWay& message = under_way_[static_cast<std::size_t>(number)];
    message.rank = rank;
    message.task = task;
    message.first = message.last = now;
    message.parts.clear();
    message.latency = 0;
    if (send(task).bytes <= 0) return arrive(number);
    const std::span<const Route> planes = routes(rank, task);
    const double bytes = static_cast<double>(send(task).bytes) / static_cast<double>(planes.size()),
                 efficiency = send(task).efficiency[static_cast<std::size_t>(planes[0].path_class)];
    message.first = kNever;
    for (const Route& route : planes) {
        message.latency = std::max(message.latency, paths_.topology().latency(route.path));
        for (const Path& path : network_.parts(route.path))
            message.parts.push_back({.path = path, .opened = {}});
    }
    message.pending = static_cast<int>(message.parts.size());
    for (Part& part : message.parts) {
        part.opened = network_.open_part(part.path, now);
        network_.start(part.path, bytes, bytes / efficiency,
                       kMark | static_cast<std::uint64_t>(number), now);
    }
}

void Sends::arrive(int number) {
    const UnderWay& message = under_way_[static_cast<std::size_t>(number)];
    events_.push({.time = message.last + message.latency,
                  .kind = EventKind::sent,
                  .rank = message.rank,
                  .task = message.task,
                  .stage = number});
}

void Sends::deliver(std::uint64_t tag, Picoseconds time) {
    const int number = static_cast<int>(tag & ~kMark);
    UnderWay& message = under_way_[static_cast<std::size_t>(number)];
    message.first = std::min(message.first, time);
    message.last = std::max(message.last, time);
    if (--message.pending == 0) arrive(number);
}

double Sends::close(int number) {
    free_.push_back(number);
    const UnderWay& message = under_way_[static_cast<std::size_t>(number)];
    double error = static_cast<double>(message.last - message.first) * 1e-12;
    for (const Part& part : message.parts) error += network_.close(part.opened);
    return error;
}

}  // namespace headway::sim
