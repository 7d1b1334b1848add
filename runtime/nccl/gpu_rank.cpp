#include "runtime/nccl/gpu_rank.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/check.hpp"
#include "models/report/version.hpp"
#include "models/vocab/error.hpp"
#include "runtime/process/cores.hpp"

namespace headway::runtime {

void report_before_unwinding(SideChannel& channel, const std::function<void()>& body) {
    try {
        body();
    } catch (const RankFailure& failure) {
        channel.fail(failure.cause, true);
    } catch (const InputError& error) {
        channel.refuse(error.what());
        // Under MPS the fault of one rank ends the others by such an error.
    } catch (const kernels::CudaError& error) {
        channel.fail(error.what(), true);
    } catch (const std::exception& error) {
        channel.fail(error.what());
    }
}

namespace {

Facts with_versions(Facts facts) {
    facts.emplace_back("headway", std::string(version()));
    facts.emplace_back("NCCL", nccl_version());
    facts.emplace_back("CUDA runtime", std::to_string(CUDART_VERSION));
    return facts;
}

void run_body(const GpuRank& rank, SideChannel& channel,
              const std::function<void(const GpuRankContext&)>& body) {
    take_cores(channel, rank.machine.host);  // before CUDA and NCCL start their threads
    const DeviceSeat seat = take_device(channel, rank.identity, rank.environment, rank.machine);
    for (const auto& [name, value] : seat.added) setenv(name.c_str(), value.c_str(), 1);
    HEADWAY_CUDA_CHECK(cudaSetDevice(seat.device));
    HEADWAY_CUDA_CHECK(cudaFree(nullptr));  // makes the context
    {
        NcclCommunicator communicator(channel, rank.nccl);
        report_before_unwinding(channel, [&] { body({channel, communicator, seat}); });
        communicator.barrier();
    }
    // The rank that holds the MPS server must not end it under the others.
    HEADWAY_CUDA_CHECK(cudaDeviceReset());
    channel.barrier();
}

}  // namespace

int run_gpu_rank(const GpuRank& rank, const std::function<void(const GpuRankContext&)>& body) {
    return run_rank_to_its_end(rank.program, rank.identity, with_versions(rank.facts), rank.channel,
                               [&](SideChannel& channel) { run_body(rank, channel, body); });
}

}  // namespace headway::runtime
