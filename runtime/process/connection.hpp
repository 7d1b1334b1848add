// Connection: frames over TCP, never blocking. A frame is a type and bytes. The owner polls fd().
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace headway::runtime {

// A file descriptor that closes itself.
class Descriptor {
  public:
    Descriptor() = default;
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept;
    ~Descriptor();

    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }

  private:
    int fd_ = -1;
};

enum class FrameType : std::uint32_t {
    hello = 0x68647701,  // a number that other programs do not begin with
    welcome,
    beat,
    contribute,
    gathered,
    fail,
    abort,
    goodbye,
};

struct Frame {
    FrameType type = FrameType::beat;
    std::string bytes;
};

class Connection {
  public:
    explicit Connection(Descriptor socket);

    int fd() const { return socket_.get(); }
    // False when the other end has closed, or sent what no rank sends. What came in before can
    // still be taken.
    bool read_some();
    bool write_some();  // false on an error
    bool has_output() const { return sent_ < output_.size(); }
    void queue(const Frame& frame);
    std::optional<Frame> take();
    void end_output();  // after the last queued byte the other end sees the end

  private:
    Descriptor socket_;
    std::string input_, output_;
    std::size_t taken_ = 0, sent_ = 0;
};

// Listens on every interface, or on 127.0.0.1 alone; port 0: any free one. InputError if taken.
Descriptor listen_on(int port, bool loopback_only);
// Whether 127.0.0.1 is all that a host's name stands for: who connects to it arrives there.
bool is_loopback(const std::string& host);
// The number of this machine on the way to a host; the host's name where it stands for nothing.
std::string own_address_towards(const std::string& host);
int port_of(const Descriptor& listener);
std::optional<Connection> accept_on(const Descriptor& listener);
// Tries until it works or the time is over.
std::optional<Connection> connect_to(const std::string& host, int port,
                                     std::chrono::milliseconds timeout);

}  // namespace headway::runtime
