#include "runtime/gloo/gloo_communicator.hpp"

#include <fmt/format.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "runtime/process/wire.hpp"

namespace headway::runtime {
namespace {

// What Gloo's ranks tell each other to connect, over the side channel: every rank sets the same
// keys in the same order, so that each is a gathering.
class ChannelStore final : public gloo::rendezvous::Store {
  public:
    explicit ChannelStore(SideChannel& channel) : channel_(channel) {}

    void set(const std::string& key, const std::vector<char>& data) override {
        const std::string own = Writer().put_text(key).put_text({data.data(), data.size()}).bytes();
        for (const std::string& bytes : channel_.all_gather("gloo", own)) {
            Reader in(bytes);
            const std::string name = in.text(), value = in.text();
            values_[name] = {value.begin(), value.end()};
        }
    }
    std::vector<char> get(const std::string& key) override { return values_.at(key); }
    void wait(const std::vector<std::string>& keys) override {
        for (const std::string& key : keys) values_.at(key);
    }

  private:
    SideChannel& channel_;
    std::map<std::string, std::vector<char>> values_;
};

using Context = std::shared_ptr<gloo::rendezvous::Context>;

// A rank that waits longer has been ended by the side channel.
constexpr std::chrono::hours kNoDeadline{24};

Context connect(SideChannel& channel, const GlooAddress& address) {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = address.host;
    attributes.iface = address.interface;
    attributes.ai_family = AF_INET;
    std::shared_ptr<gloo::transport::Device> device =
        gloo::transport::tcp::CreateDevice(attributes);
    ChannelStore store(channel);
    auto context = std::make_shared<gloo::rendezvous::Context>(channel.rank(), channel.size());
    context->connectFullMesh(store, device);
    context->setTimeout(kNoDeadline);
    return context;
}

// What all groups of a rank share.
struct World {
    SideChannel& channel;
    Context context;
    CallSite site;
    TrafficLedger ledger;
};

class GlooCommunicator final : public Communicator {
  public:
    GlooCommunicator(std::shared_ptr<World> world, std::vector<int> members, int rank)
        : world_(std::move(world)), members_(std::move(members)), rank_(rank) {}

    int rank() const override { return rank_; }
    int size() const override { return static_cast<int>(members_.size()); }

    void enter(CallSite site) override {
        world_->channel.enter(site);
        world_->site = site;
    }

    void all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes, void* receive,
                      std::span<const std::int64_t> receive_bytes) override {
        move(send, send_bytes, receive, receive_bytes);
        for (int d = 0; d < size(); ++d) book(d, send_bytes[static_cast<std::size_t>(d)]);
    }

    void all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair) override {
        const std::vector<std::int64_t> bytes(members_.size(), bytes_per_pair);
        all_to_all_v(send, bytes, receive, bytes);
    }

    void all_reduce_sum(std::span<float> values) override { reduce(values); }
    void all_reduce_sum(std::span<double> values) override { reduce(values); }

    std::vector<std::int64_t> all_gather_counts(std::span<const std::int64_t> own) override {
        const auto bytes = static_cast<std::int64_t>(own.size_bytes());
        std::vector<std::int64_t> all(own.size() * members_.size());
        give_to_all(own.data(), bytes, all.data());
        for (int d = 0; d < size(); ++d) book(d, bytes);
        return all;
    }

    void barrier() override {
        std::vector<char> all(members_.size());
        const char own = 0;
        give_to_all(&own, 1, all.data());
    }

    std::unique_ptr<Communicator> split(int color) override {
        const std::int64_t own = color;
        const std::vector<std::int64_t> colors = all_gather_counts({&own, 1});
        std::vector<int> members;
        int new_rank = 0;
        for (int r = 0; r < size(); ++r) {
            if (colors[static_cast<std::size_t>(r)] != own) continue;
            if (r == rank_) new_rank = static_cast<int>(members.size());
            members.push_back(members_[static_cast<std::size_t>(r)]);
        }
        return std::make_unique<GlooCommunicator>(world_, std::move(members), new_rank);
    }

    const TrafficLedger& traffic() const override { return world_->ledger; }

  private:
    using Buffer = std::unique_ptr<gloo::transport::UnboundBuffer>;

    // Another rank's end shows here before the side channel knows its cause.
    void guarded(const std::function<void()>& exchange) {
        const SideChannel::Waiting waiting(world_->channel);
        world_->channel.check();
        try {
            exchange();
        } catch (const gloo::IoException& error) {
            world_->channel.fail(error.what(), true);
        }
    }

    // Blocks [offsets, bytes) to and from every other rank, all at once; the nearest first.
    void exchange(const char* send, std::span<const std::int64_t> send_at,
                  std::span<const std::int64_t> send_bytes, char* receive,
                  std::span<const std::int64_t> receive_at,
                  std::span<const std::int64_t> receive_bytes) {
        guarded([&] {
            std::vector<Buffer> sent, received;
            const auto buffer = [&](const char* block, std::int64_t bytes) {
                return world_->context->createUnboundBuffer(const_cast<char*>(block),
                                                            static_cast<std::size_t>(bytes));
            };
            for (int i = 1; i < size(); ++i) {
                const auto peer = static_cast<std::size_t>((rank_ + size() - i) % size());
                if (receive_bytes[peer] == 0) continue;
                received.push_back(buffer(receive + receive_at[peer], receive_bytes[peer]));
                received.back()->recv(members_[peer], kSlot);
            }
            for (int i = 1; i < size(); ++i) {
                const auto peer = static_cast<std::size_t>((rank_ + i) % size());
                if (send_bytes[peer] == 0) continue;
                sent.push_back(buffer(send + send_at[peer], send_bytes[peer]));
                sent.back()->send(members_[peer], kSlot);
            }
            for (const Buffer& b : received) b->waitRecv();
            for (const Buffer& b : sent) b->waitSend();
        });
    }

    static std::vector<std::int64_t> offsets(std::span<const std::int64_t> bytes) {
        std::vector<std::int64_t> result;
        std::int64_t offset = 0;
        for (const std::int64_t b : bytes) {
            result.push_back(offset);
            offset += b;
        }
        return result;
    }

    void move(const void* send, std::span<const std::int64_t> send_bytes, void* receive,
              std::span<const std::int64_t> receive_bytes) {
        const auto me = static_cast<std::size_t>(rank_);
        if (send_bytes[me] != receive_bytes[me])
            throw std::logic_error("all-to-all: a receive size differs from what is sent");
        const std::vector<std::int64_t> from = offsets(send_bytes), to = offsets(receive_bytes);
        const auto* source = static_cast<const char*>(send);
        auto* target = static_cast<char*>(receive);
        if (send_bytes[me] > 0)
            std::memcpy(target + to[me], source + from[me],
                        static_cast<std::size_t>(send_bytes[me]));
        exchange(source, from, send_bytes, target, to, receive_bytes);
    }

    void give_to_all(const void* own, std::int64_t bytes, void* all) {
        const std::vector<std::int64_t> counts(members_.size(), bytes), at(members_.size(), 0);
        auto* target = static_cast<char*>(all);
        std::memcpy(target + rank_ * bytes, own, static_cast<std::size_t>(bytes));
        exchange(static_cast<const char*>(own), at, counts, target, offsets(counts), counts);
    }

    // Reduce-scatter, then all-gather: rank r adds up slice r, in rank order, and gives it to all;
    // the sums of the ranks that are threads, to the last bit.
    template <class T>
    void reduce(std::span<T> values) {
        const std::size_t n = values.size(), ranks = members_.size();
        std::vector<std::int64_t> slices;
        for (std::size_t r = 0; r < ranks; ++r)
            slices.push_back(
                static_cast<std::int64_t>((n * (r + 1) / ranks - n * r / ranks) * sizeof(T)));
        const std::int64_t own = slices[static_cast<std::size_t>(rank_)];
        const std::size_t count = static_cast<std::size_t>(own) / sizeof(T);
        const std::vector<std::int64_t> owns(ranks, own);
        std::vector<T> parts(count * ranks), sum(count);
        move(values.data(), slices, parts.data(), owns);
        for (std::size_t source = 0; source < ranks; ++source) {
            for (std::size_t i = 0; i < count; ++i) {
                const T part = parts[source * count + i];
                sum[i] = source == 0 ? part : sum[i] + part;
            }
        }
        std::vector<T> repeated;
        for (std::size_t r = 0; r < ranks; ++r)
            repeated.insert(repeated.end(), sum.begin(), sum.end());
        move(repeated.data(), owns, values.data(), slices);
        for (int d = 0; d < size(); ++d) {
            if (d != rank_) book(d, slices[static_cast<std::size_t>(d)] + own);
        }
    }

    void book(int destination, std::int64_t bytes) {
        auto [row, is_new] = world_->ledger.try_emplace(world_->site);
        if (is_new) row->second.resize(static_cast<std::size_t>(world_->channel.size()), 0);
        const int world_rank = members_[static_cast<std::size_t>(destination)];
        row->second[static_cast<std::size_t>(world_rank)] += bytes;
    }

    // Messages of a pair arrive in their order, and a rank is in one collective at a time.
    static constexpr std::uint64_t kSlot = 0;

    std::shared_ptr<World> world_;
    std::vector<int> members_;  // world rank of every rank of this group
    int rank_;
};

}  // namespace

std::unique_ptr<Communicator> make_gloo_communicator(SideChannel& channel,
                                                     const GlooAddress& address) {
    Context context;
    try {
        context = connect(channel, address);
    } catch (const gloo::Exception& error) {
        channel.fail(fmt::format("Gloo could not connect: {}", error.what()));
    }
    std::vector<int> members;
    for (int r = 0; r < channel.size(); ++r) members.push_back(r);
    auto world = std::make_shared<World>(World{channel, std::move(context), {}, {}});
    return std::make_unique<GlooCommunicator>(std::move(world), std::move(members), channel.rank());
}

}  // namespace headway::runtime
