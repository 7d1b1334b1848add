// What of a GPU is no phase of a layer: a kernel launch, the host's wait for a number from the
// device, EP's wait for counts, copies in device memory, dense GEMMs (bf16, through cuBLASLt) by
// FLOPs and smallest dimension, how much slower a GEMM is beside an all-to-all on another stream,
// and all-reduces and experts, each alone and one beside the other. `headway calibrate` makes the
// overheads and the streaming curve of a profile of it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/cuda/phase_clock.hpp"

namespace headway::runtime {

struct OverheadSample {
    // launch, host_sync, count_exchange, copy, overlap, experts, reduction, experts_beside, "gemm
    // MxNxK"; of the host's calls see step/host_calls.hpp
    std::string quantity;
    double bytes = 0.0;  // read and written; of the exchange or the reduction beside which it ran
    double value = 0.0;  // seconds; overlap: time beside the exchange / time alone
};

// Collective: the seconds of the slowest rank.
double slowest(DeviceCommunicator& communicator, double seconds);

// Collective. Medians of repeats, of the slowest rank. One rank has no overlap.
std::vector<OverheadSample> measure_overheads(DeviceContext& context);

// Name, driver, CUDA, clock and multiprocessors of this rank's device, and `nccl`, for provenance.
std::vector<std::pair<std::string, std::string>> device_facts(const std::string& nccl);

// quantity,bytes,value: a fact has no bytes.
std::string overheads_csv(const std::vector<OverheadSample>& samples,
                          const std::vector<std::pair<std::string, std::string>>& facts);

}  // namespace headway::runtime
