// One exchange over each of the transports that CPU ranks could use; built and run by
// scripts/verify_lab engines. Everything that was sent is there when the time ends, on all ranks.
// usage, on every rank: bench_exchange gloo|threads|mpi MATRIX.csv REPEATS FOLDER_OF_ALL_RANKS
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#ifdef WITH_MPI
#include <mpi.h>
#else
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#endif

namespace {

struct Block {
    char* data;
    long bytes;
};
using Blocks = std::vector<Block>;  // by rank, nothing for the own one

class Transport {
  public:
    virtual ~Transport() = default;
    virtual void exchange(const Blocks& send, const Blocks& receive) = 0;
    int rank = 0, size = 1;
};

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    if (value == nullptr) throw std::runtime_error(std::string("no variable ") + name);
    return value;
}

#ifdef WITH_MPI
class Mpi final : public Transport {
  public:
    Mpi() {
        MPI_Init(nullptr, nullptr);
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
    }
    ~Mpi() override { MPI_Finalize(); }
    void exchange(const Blocks& send, const Blocks& receive) override {
        std::vector<MPI_Request> requests;
        for (int i = 1; i < size; ++i) {
            const auto from = static_cast<std::size_t>((rank + size - i) % size);
            if (receive[from].bytes > 0)
                MPI_Irecv(receive[from].data, static_cast<int>(receive[from].bytes), MPI_BYTE,
                          static_cast<int>(from), 0, MPI_COMM_WORLD, &requests.emplace_back());
        }
        for (int i = 1; i < size; ++i) {
            const auto to = static_cast<std::size_t>((rank + i) % size);
            if (send[to].bytes > 0)
                MPI_Isend(send[to].data, static_cast<int>(send[to].bytes), MPI_BYTE,
                          static_cast<int>(to), 0, MPI_COMM_WORLD, &requests.emplace_back());
        }
        MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
    }
};
#else
class Gloo final : public Transport {
  public:
    explicit Gloo(const std::string& folder) {
        rank = std::stoi(variable("RANK"));
        size = std::stoi(variable("WORLD_SIZE"));
        gloo::transport::tcp::attr attributes;
        attributes.iface = variable("GLOO_SOCKET_IFNAME");
        attributes.ai_family = AF_INET;
        auto device = gloo::transport::tcp::CreateDevice(attributes);
        gloo::rendezvous::FileStore store(folder);
        context_ = std::make_shared<gloo::rendezvous::Context>(rank, size);
        context_->setTimeout(std::chrono::seconds(120));
        context_->connectFullMesh(store, device);
    }
    void exchange(const Blocks& send, const Blocks& receive) override {
        std::vector<std::unique_ptr<gloo::transport::UnboundBuffer>> received, sent;
        const auto buffer = [&](const Block& b) {
            return context_->createUnboundBuffer(b.data, static_cast<std::size_t>(b.bytes));
        };
        for (int i = 1; i < size; ++i) {
            const int from = (rank + size - i) % size;
            const Block& block = receive[static_cast<std::size_t>(from)];
            if (block.bytes > 0) received.emplace_back(buffer(block))->recv(from, 0);
        }
        for (int i = 1; i < size; ++i) {
            const int to = (rank + i) % size;
            const Block& block = send[static_cast<std::size_t>(to)];
            if (block.bytes > 0) sent.emplace_back(buffer(block))->send(to, 0);
        }
        for (auto& b : received) b->waitRecv();
        for (auto& b : sent) b->waitSend();
    }

  private:
    std::shared_ptr<gloo::rendezvous::Context> context_;
};

class Threads final : public Transport {
  public:
    explicit Threads(const std::string& folder) {
        rank = std::stoi(variable("RANK"));
        size = std::stoi(variable("WORLD_SIZE"));
        sockets_.assign(static_cast<std::size_t>(size), -1);
        const int listener = socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in own = address_of_interface();
        socklen_t length = sizeof(own);
        if (bind(listener, reinterpret_cast<sockaddr*>(&own), length) != 0 ||
            listen(listener, size) != 0)
            throw std::runtime_error("cannot listen");
        getsockname(listener, reinterpret_cast<sockaddr*>(&own), &length);
        publish(folder, own);
        for (int peer = 0; peer < rank; ++peer) {
            const sockaddr_in to = await(folder, peer);
            const int s = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(s, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0 ||
                write(s, &rank, sizeof(rank)) != sizeof(rank))
                throw std::runtime_error("cannot connect");
            sockets_[static_cast<std::size_t>(peer)] = s;
        }
        for (int i = rank + 1; i < size; ++i) {
            const int s = accept(listener, nullptr, nullptr);
            int peer = 0;
            if (recv(s, &peer, sizeof(peer), MSG_WAITALL) != sizeof(peer))
                throw std::runtime_error("cannot accept");
            sockets_.at(static_cast<std::size_t>(peer)) = s;
        }
        const int on = 1;
        for (const int s : sockets_) setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    // Two threads a peer.
    void exchange(const Blocks& send, const Blocks& receive) override {
        std::vector<std::thread> threads;
        const auto all = [](int s, Block b, auto step) {
            for (long done = 0; done < b.bytes;) {
                const long now =
                    step(s, b.data + done, static_cast<std::size_t>(b.bytes - done), MSG_NOSIGNAL);
                if (now <= 0) std::abort();
                done += now;
            }
        };
        for (std::size_t peer = 0; peer < sockets_.size(); ++peer) {
            if (static_cast<int>(peer) == rank) continue;
            threads.emplace_back([&, peer] { all(sockets_[peer], send[peer], ::send); });
            threads.emplace_back([&, peer] { all(sockets_[peer], receive[peer], ::recv); });
        }
        for (std::thread& t : threads) t.join();
    }

  private:
    static sockaddr_in address_of_interface() {
        ifaddrs* all = nullptr;
        getifaddrs(&all);
        const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(all, freeifaddrs);
        const std::string name = variable("GLOO_SOCKET_IFNAME");
        for (const ifaddrs* a = all; a != nullptr; a = a->ifa_next) {
            if (a->ifa_addr == nullptr || a->ifa_addr->sa_family != AF_INET || name != a->ifa_name)
                continue;
            return *reinterpret_cast<const sockaddr_in*>(a->ifa_addr);
        }
        throw std::runtime_error("no address on " + name);
    }
    static void publish(const std::string& folder, const sockaddr_in& own) {
        const std::string file = folder + "/address." + variable("RANK");
        std::ofstream(file + ".part", std::ios::binary)
            .write(reinterpret_cast<const char*>(&own), sizeof(own));
        std::filesystem::rename(file + ".part", file);
    }
    static sockaddr_in await(const std::string& folder, int peer) {
        const std::string file = folder + "/address." + std::to_string(peer);
        while (!std::filesystem::exists(file))
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        sockaddr_in result{};
        std::ifstream(file, std::ios::binary)
            .read(reinterpret_cast<char*>(&result), sizeof(result));
        return result;
    }

    std::vector<int> sockets_;
};
#endif

std::unique_ptr<Transport> make(const std::string& name, const std::string& folder) {
#ifdef WITH_MPI
    (void)folder;
    if (name == "mpi") return std::make_unique<Mpi>();
#else
    if (name == "gloo") return std::make_unique<Gloo>(folder);
    if (name == "threads") return std::make_unique<Threads>(folder);
#endif
    throw std::runtime_error("no transport " + name);
}

std::vector<long> read_matrix(const std::string& file) {
    std::ifstream stream(file);
    std::vector<long> cells;
    for (std::string line; std::getline(stream, line);) {
        std::istringstream row(line);
        for (std::string cell; std::getline(row, cell, ',');) cells.push_back(std::stol(cell));
    }
    return cells;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 5) return 2;
    const auto transport = make(argv[1], argv[4]);
    const std::vector<long> matrix = read_matrix(argv[2]);
    const int n = transport->size, me = transport->rank;
    std::vector<std::vector<char>> memory;
    const auto block = [&](long bytes) {
        return Block{memory.emplace_back(static_cast<std::size_t>(bytes)).data(), bytes};
    };
    Blocks send, receive, one, other;
    for (int p = 0; p < n; ++p) {
        send.push_back(block(p == me ? 0 : matrix.at(static_cast<std::size_t>(me * n + p))));
        receive.push_back(block(p == me ? 0 : matrix.at(static_cast<std::size_t>(p * n + me))));
        one.push_back(block(p == me ? 0 : 1));
        other.push_back(block(p == me ? 0 : 1));
    }
    for (int i = 0; i <= std::stoi(argv[3]); ++i) {
        transport->exchange(one, other);  // a barrier
        const auto start = std::chrono::steady_clock::now();
        transport->exchange(send, receive);
        transport->exchange(one, other);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        if (i > 0 && me == 0) std::printf("%.6f\n", time.count());
    }
    return 0;
}
