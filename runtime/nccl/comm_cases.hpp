// Checks and timings of a DeviceCommunicator on the ranks of a run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/nccl/nccl_communicator.hpp"

namespace headway::runtime {

// All-to-alls of random sizes, zeros among them, byte for byte; equal exchange, counts, all-reduce;
// and the ledger against what was sent. Throws std::runtime_error at the first difference.
struct CommCheck {
    int num_rounds = 20;
    std::int64_t max_bytes = 1 << 20;  // per pair
    std::uint64_t seed = 1;
};
std::int64_t check_communicator(NcclCommunicator& communicator, const CommCheck& check);

enum class CommCurve { all_to_all, send_receive, all_reduce };

struct CurvePoint {
    std::int64_t size = 0;         // nccl-tests' size(B)
    double median = 0.0;           // s, of the slowest rank in each repeat
    double low = 0.0, high = 0.0;  // p10, p90
    double estimate = 0.0;         // NCCL's own; 0: it gives none
};

struct CurveOptions {
    std::int64_t min_size = 16 << 10, max_size = 64 << 20;
    int factor = 2;
    int num_warmups = 3;
    int num_repeats = 15;
};

// Collective. send_receive: every rank sends to the next one. Each repeat starts when all ranks
// have arrived. `estimator` may be null.
std::vector<CurvePoint> measure_curve(NcclCommunicator& communicator, NcclEstimator* estimator,
                                      CommCurve curve, const CurveOptions& options);

// As nccl-tests prints it, which `headway calibrate` reads. `ranks`: "host device name" of each.
std::string nccl_tests_text(CommCurve curve, const std::vector<CurvePoint>& points,
                            const std::vector<std::string>& ranks);

}  // namespace headway::runtime
