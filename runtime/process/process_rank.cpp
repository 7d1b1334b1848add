#include "runtime/process/process_rank.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "models/vocab/error.hpp"
#include "models/vocab/hash.hpp"

namespace headway::runtime {

void run_process_rank(const RankIdentity& identity, const Facts& facts,
                      const ChannelOptions& options, const SideChannel::OnOverdue& on_overdue,
                      const std::function<void(SideChannel&)>& body) {
    std::unique_ptr<Hub> hub;  // outlives the channel
    Member member{identity.rank, identity.size, identity.host, identity.port};
    if (identity.rank == 0) {
        // Where the others look for it: also ranks of this machine may go by another address.
        Descriptor listener = identity.listen_fd >= 0
                                  ? Descriptor(identity.listen_fd)
                                  : listen_on(identity.port, is_loopback(identity.host));
        member.host = "127.0.0.1";
        member.port = port_of(listener);
        hub = std::make_unique<Hub>(std::move(listener), identity.size, options);
    }
    SideChannel channel(member, facts, options, on_overdue);
    try {
        body(channel);
    } catch (const RankFailure& failure) {
        channel.fail(failure.cause, true);
    } catch (const InputError& error) {
        channel.refuse(error.what());
    } catch (const std::exception& error) {
        channel.fail(error.what());
    }
    channel.finish();
}

namespace {

[[noreturn]] void leave(const std::string& text, int code) {
    if (!text.empty()) std::fputs((text + "\n").c_str(), stderr);
    std::fflush(nullptr);
    std::_Exit(code);
}

}  // namespace

int run_rank_to_its_end(const std::string& program, const RankIdentity& identity,
                        const Facts& facts, const ChannelOptions& options,
                        const std::function<void(SideChannel&)>& body) {
    const std::string prefix = fmt::format("{}: rank {}: error: ", program, identity.rank);
    try {
        run_process_rank(
            identity, facts, options,
            [&](const std::string& failure) {
                leave(prefix + failure + " (this rank was stuck)", kRankFailureExit);
            },
            body);
        return 0;
    } catch (const RankFailure& failure) {
        const int witness = failure.rank == 0 ? 1 : 0;
        const bool speaks = identity.rank == failure.rank || identity.rank == witness;
        leave(speaks ? prefix + failure.what() : "", kRankFailureExit);
    } catch (const InputError& error) {
        leave(identity.rank == 0 ? prefix + error.what() : "", 2);
    } catch (const std::exception& error) {
        leave(prefix + "internal (please report it): " + error.what(), 3);
    }
}

std::string fingerprint(std::string_view text) {
    Hash hash;
    hash.add(text);
    return hash.hex();
}

}  // namespace headway::runtime
