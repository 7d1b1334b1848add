// Import of nccl-tests results: the text that its programs print (all versions from 2.0 on: with
// `error` or `#wrong`, with or without root, timestamps, per-iteration columns, and mpirun's
// "[1,0]<stdout>:" prefixes) and the JSON of -J. Strict: a table with wrong results, missing or
// repeated ranks, a second run or a row that does not fit its header is rejected with file:line.
// Sources: nccl-tests src/common.cu, src/util.cu (2.0 to 2.19) and doc/PERFORMANCE.md.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/fit/curve_fit.hpp"

namespace headway::inline fit {

struct NcclTable {
    Collective collective = Collective::all_to_all;
    int num_ranks = 0;
    int num_hosts = 1;
    std::string device;           // of rank 0, empty if the log does not say
    std::vector<double> size;     // nccl-tests' size(B)
    std::vector<double> seconds;  // out of place
    std::string source;
};

// `collective`: for logs that do not name their program; else the log's own name must agree.
NcclTable read_nccl_log(std::string_view text, const std::string& file_name,
                        std::optional<Collective> collective = std::nullopt);
NcclTable read_nccl_log(const std::filesystem::path& file,
                        std::optional<Collective> collective = std::nullopt);

// Bytes of a TimeCurve from nccl-tests' size: S (n-1)/n, 2 S (n-1)/n for all_reduce, S for
// send_recv. all_to_all over NICs counts what leaves the node: S (n - n / hosts) / n.
double curve_bytes(const NcclTable& table, PathClass path, double size);

// Path: nvlink within one host, nic across hosts, unless given.
TimeCurve to_time_curve(const NcclTable& table, std::optional<PathClass> path = std::nullopt);

}  // namespace headway::inline fit
