// Import of nccl-tests and rccl-tests results: the text that their programs print (nccl-tests 2.0
// to 2.19: with `error` or `#wrong`, with or without root, timestamps, per-iteration columns, and
// whatever mpirun, srun or kubectl put before each line), the JSON of nccl-tests -J, and the JSON
// and CSV of rccl-tests -Z. Strict: a table with wrong results, a row that does not fit its header,
// or bandwidths of another number of ranks is rejected with file:line; what a log leaves out is
// asked for by the option that states it.
// Sources: nccl-tests src/common.cu, src/util.cu (2.0 to 2.19) and doc/PERFORMANCE.md.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/fit/curve_fit.hpp"

namespace headway::inline measurements {

// What a user states of a log, where it does not say it itself; 0 or none: as the log says.
struct LogFacts {
    std::optional<Collective> collective;
    int num_ranks = 0;  // of one communicator
    int num_hosts = 0;  // also in the place of the log's own: containers of one host have names
};

// Rows of one program on one set of ranks; runs that are repeats of each other are together.
struct NcclTable {
    Collective collective = Collective::all_to_all;
    int num_ranks = 0;
    int num_hosts = 0;            // 0: not known
    std::string device;           // of rank 0, empty if the log does not say
    std::vector<double> size;     // nccl-tests' size(B)
    std::vector<double> seconds;  // out of place
    int num_runs = 1;
    std::string source;
};

struct NcclLog {
    std::vector<NcclTable> tables;     // at least one
    std::vector<std::string> skipped;  // runs that no table holds, and why
};

NcclLog read_nccl_log(std::string_view text, const std::string& file_name,
                      const LogFacts& facts = {});
NcclLog read_nccl_log(const std::filesystem::path& file, const LogFacts& facts = {});

// Puts the rows of `table` to those of the same collective, ranks, hosts and device in `tables`, as
// more runs of theirs, or behind them.
void add_table(std::vector<NcclTable>& tables, NcclTable table);

// Bytes of a TimeCurve from nccl-tests' size: S (n-1)/n, 2 S (n-1)/n for all_reduce, S for
// send_recv. all_to_all over NICs counts what leaves the node: S (n - n / hosts) / n.
double curve_bytes(const NcclTable& table, PathClass path, double size);

// The rows themselves as points, repeats as their median; `link` stays open. The residual is what a
// row left out is off, and the spread of repeats where that is more.
TimeCurve to_time_curve(const NcclTable& table, PathClass path);

}  // namespace headway::inline measurements
