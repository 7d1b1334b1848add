#include "runtime/communicator.hpp"

#include <fmt/format.h>

#include <string>

namespace headway::runtime {

std::map<CallSite, TrafficMatrix> gather_traffic(std::span<const TrafficLedger> ledgers) {
    const int num_ranks = static_cast<int>(ledgers.size());
    std::map<CallSite, TrafficMatrix> result;
    for (int source = 0; source < num_ranks; ++source) {
        for (const auto& [site, sent] : ledgers[static_cast<std::size_t>(source)]) {
            TrafficMatrix& matrix = result.try_emplace(site, num_ranks).first->second;
            for (int destination = 0; destination < num_ranks; ++destination) {
                matrix.at(source, destination) += sent.at(static_cast<std::size_t>(destination));
            }
        }
    }
    return result;
}

namespace {

std::string failure_text(int rank, const std::optional<CallSite>& site, const std::string& cause) {
    if (!site) return fmt::format("rank {} failed before its first phase: {}", rank, cause);
    return fmt::format("rank {} failed in phase {} ({}): {}", rank, name(site->phase),
                       name(site->pass), cause);
}

}  // namespace

RankFailure::RankFailure(int failed_rank, std::optional<CallSite> failed_site,
                         const std::string& failure_cause)
    : std::runtime_error(failure_text(failed_rank, failed_site, failure_cause)),
      rank(failed_rank),
      site(failed_site),
      cause(failure_cause) {}

}  // namespace headway::runtime
