#include "runtime/process/cores.hpp"

#include <sched.h>
#include <sys/types.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "runtime/process/wire.hpp"

namespace headway::runtime {

namespace {

std::string encode_cores(const RankCores& own) {
    Writer out;
    out.put_text(own.host);
    for (const int core : own.allowed) out.put(core);
    return out.bytes();
}

RankCores decode_cores(const std::string& bytes) {
    Reader in(bytes);
    RankCores cores{.host = in.text(), .allowed = {}};
    while (!in.empty()) cores.allowed.push_back(in.get<int>());
    return cores;
}

}  // namespace

std::vector<int> allowed_cores() {
    std::vector<int> cores;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
    for (int c = 0; c < CPU_SETSIZE; ++c) {
        if (CPU_ISSET(c, &set)) cores.push_back(c);
    }
    return cores;
}

void stay_on(const std::vector<int>& cores) {
    if (cores.empty()) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int c : cores) CPU_SET(c, &set);
    sched_setaffinity(0, sizeof(set), &set);
    std::error_code none;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", none)) {
        const pid_t thread = std::atoi(task.path().filename().c_str());
        if (thread > 0) sched_setaffinity(thread, sizeof(set), &set);
    }
}

std::vector<int> cores_of_rank(const std::vector<int>& allowed, int rank, int num_ranks) {
    const std::size_t share = allowed.size() / static_cast<std::size_t>(num_ranks);
    const auto first =
        allowed.begin() + static_cast<std::ptrdiff_t>(share * static_cast<std::size_t>(rank));
    return {first, first + static_cast<std::ptrdiff_t>(share)};
}

std::vector<int> own_cores(std::span<const RankCores> all, int rank) {
    const auto own = all.begin() + rank;
    const auto sharers = std::count(all.begin(), all.end(), *own);
    const auto before = std::count(all.begin(), own, *own);
    return cores_of_rank(own->allowed, static_cast<int>(before), static_cast<int>(sharers));
}

std::string cores_text(std::span<const int> cores) {
    std::string text;
    for (std::size_t begin = 0, end = 0; begin < cores.size(); begin = end) {
        for (end = begin + 1; end < cores.size() && cores[end] == cores[end - 1] + 1;) ++end;
        text += (text.empty() ? "" : ",") + std::to_string(cores[begin]);
        if (end > begin + 1) text += "-" + std::to_string(cores[end - 1]);
    }
    return text;
}

void take_cores(SideChannel& channel, const std::string& host) {
    std::vector<RankCores> all;
    for (const std::string& bytes :
         channel.all_gather("cores", encode_cores({host, allowed_cores()})))
        all.push_back(decode_cores(bytes));
    stay_on(own_cores(all, channel.rank()));
}

}  // namespace headway::runtime
