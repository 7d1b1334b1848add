// Runs one rank of a run of processes: rendezvous, body, orderly end. Whatever the body throws
// becomes the failure of the whole run, the same on every rank.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "runtime/process/launch_environment.hpp"
#include "runtime/process/side_channel.hpp"

namespace headway::runtime {

// Throws RankFailure, or InputError if the run was refused. `body` must not outlive it.
void run_process_rank(const RankIdentity& identity, const Facts& facts,
                      const ChannelOptions& options, const SideChannel::OnOverdue& on_overdue,
                      const std::function<void(SideChannel&)>& body);

// The same as the life of this process: its exit code, 0, 2 bad input, 3 an internal error, or
// kRankFailureExit. `program` begins its messages; a failure of the run is printed by the rank that
// failed and by the first other one. After a failure this does not return: what is stuck must not
// be waited for.
int run_rank_to_its_end(const std::string& program, const RankIdentity& identity,
                        const Facts& facts, const ChannelOptions& options,
                        const std::function<void(SideChannel&)>& body);

// FNV-1a, 64 bits, in hexadecimal: the name of a text in the facts.
std::string fingerprint(std::string_view text);

}  // namespace headway::runtime
