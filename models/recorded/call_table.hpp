// The side table that headway_recorder.py writes beside a trace: what traces lack.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace headway::inline recorded {

struct RecordedCall {
    std::string kind, group, dtype;
    double in_bytes = 0, out_bytes = 0;
    std::int64_t elements = 0;
    double row_bytes = 0;  // all_to_all
    bool async = false;
    std::vector<double> send, receive;  // bytes, by rank of the group
};

struct CallTable {
    std::string file, device;
    int rank = 0, world_size = 1;
    bool fake = false;
    int experts = 0;
    double step_ms = 0, enqueue_ms = 0, peak_bytes = 0;  // without the profiler
    std::map<std::string, double> nccl_host_us;          // by kind
    std::map<std::string, std::vector<int>> groups;      // ranks
    std::vector<RecordedCall> calls;
};

// InputError for what is no such table or contradicts itself.
CallTable read_call_table(const std::filesystem::path& path);

}  // namespace headway::inline recorded
