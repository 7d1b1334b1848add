#include "runtime/process/connection.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "models/vocab/error.hpp"

namespace headway::runtime {

namespace {

struct FrameHeader {
    FrameType type;
    std::uint32_t reserved;
    std::uint64_t size;
};
constexpr std::uint64_t kMaxFrame = std::uint64_t{1} << 32;

void prepare(int fd) {
    const int on = 1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses resolve(const std::string& host, int port) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0)
        found = nullptr;
    return {found, &freeaddrinfo};
}

// A connected socket, or none: refused, or no answer within the time.
Descriptor try_connect(const addrinfo& address, int timeout_ms) {
    Descriptor fd(socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) return {};
    if (connect(fd.get(), address.ai_addr, address.ai_addrlen) == 0) return fd;
    if (errno != EINPROGRESS) return {};
    pollfd ready{.fd = fd.get(), .events = POLLOUT, .revents = 0};
    if (poll(&ready, 1, timeout_ms) != 1) return {};
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    return error == 0 ? std::move(fd) : Descriptor();
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
}

Descriptor::~Descriptor() {
    if (fd_ >= 0) close(fd_);
}

Connection::Connection(Descriptor socket) : socket_(std::move(socket)) {
    prepare(socket_.get());
}

bool Connection::read_some() {
    char buffer[65536];
    for (;;) {
        const ssize_t got = recv(socket_.get(), buffer, sizeof(buffer), 0);
        if (got > 0) {
            input_.append(buffer, static_cast<std::size_t>(got));
        } else if (got < 0 && errno == EINTR) {
            continue;
        } else {
            return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
        }
    }
}

bool Connection::write_some() {
    while (has_output()) {
        const ssize_t done =
            send(socket_.get(), output_.data() + sent_, output_.size() - sent_, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        sent_ += static_cast<std::size_t>(done);
    }
    output_.clear();
    sent_ = 0;
    return true;
}

void Connection::queue(const Frame& frame) {
    const FrameHeader header{.type = frame.type, .reserved = 0, .size = frame.bytes.size()};
    output_.append(reinterpret_cast<const char*>(&header), sizeof(header));
    output_.append(frame.bytes);
}

std::optional<Frame> Connection::take() {
    FrameHeader header{};
    if (input_.size() - taken_ < sizeof(header)) return std::nullopt;
    std::memcpy(&header, input_.data() + taken_, sizeof(header));
    const bool known = header.type >= FrameType::hello && header.type <= FrameType::goodbye;
    if (!known || header.size > kMaxFrame)
        throw std::runtime_error("received what no rank of headway sends");
    if (input_.size() - taken_ - sizeof(header) < header.size) return std::nullopt;
    Frame frame{header.type, input_.substr(taken_ + sizeof(header), header.size)};
    taken_ += sizeof(header) + header.size;
    if (taken_ == input_.size()) {
        input_.clear();
        taken_ = 0;
    }
    return frame;
}

void Connection::end_output() {
    shutdown(socket_.get(), SHUT_WR);
}

Descriptor listen_on(int port, bool loopback_only) {
    Descriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(loopback_only ? INADDR_LOOPBACK : INADDR_ANY);
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        listen(fd.get(), 1024) != 0) {
        throw InputError({.where = fmt::format("port {}", port),
                          .found = fmt::format("cannot listen: {}", std::strerror(errno)),
                          .hint = "--rendezvous HOST:PORT chooses another one"});
    }
    return fd;
}

bool is_loopback(const std::string& host) {
    const Addresses addresses = resolve(host, 0);
    for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
        if (a->ai_family == AF_INET6) {
            const auto* six = reinterpret_cast<const sockaddr_in6*>(a->ai_addr);
            if (IN6_IS_ADDR_LOOPBACK(&six->sin6_addr)) continue;  // 127.0.0.1 is tried too
        } else if (a->ai_family == AF_INET) {
            const auto* four = reinterpret_cast<const sockaddr_in*>(a->ai_addr);
            if (four->sin_addr.s_addr == htonl(INADDR_LOOPBACK)) continue;
        }
        return false;
    }
    return addresses != nullptr;
}

std::string own_address_towards(const std::string& host) {
    const Addresses addresses = resolve(host, 9);
    for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
        if (a->ai_family != AF_INET) continue;
        // Nothing is sent: a datagram socket only looks the route up.
        const Descriptor fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_in own{};
        socklen_t size = sizeof(own);
        char text[INET_ADDRSTRLEN] = {};
        if (connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0 &&
            getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
            inet_ntop(AF_INET, &own.sin_addr, text, sizeof(text)) != nullptr)
            return text;
    }
    return host;
}

int port_of(const Descriptor& listener) {
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
}

std::optional<Connection> accept_on(const Descriptor& listener) {
    Descriptor fd(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return std::nullopt;
    return Connection(std::move(fd));
}

std::optional<Connection> connect_to(const std::string& host, int port,
                                     std::chrono::milliseconds timeout) {
    const auto end = std::chrono::steady_clock::now() + timeout;
    do {
        const Addresses addresses = resolve(host, port);
        for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                end - std::chrono::steady_clock::now());
            if (left.count() <= 0) return std::nullopt;
            Descriptor fd = try_connect(*a, static_cast<int>(left.count()));
            if (fd) return Connection(std::move(fd));
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    } while (std::chrono::steady_clock::now() < end);
    return std::nullopt;
}

}  // namespace headway::runtime
