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

[[noreturn]] void leave(const std::string& text, int code) {
    if (!text.empty()) std::fputs((text + "\n").c_str(), stderr);
    std::fflush(nullptr);
    std::_Exit(code);
}

}  // namespace

int run_gpu_rank(const GpuRank& rank, const std::function<void(const GpuRankContext&)>& body) {
    const std::string prefix =
        fmt::format("{}: rank {}: error: ", rank.program, rank.identity.rank);
    try {
        run_process_rank(
            rank.identity, with_versions(rank.facts), rank.channel,
            [&](const std::string& failure) {
                leave(prefix + failure + " (this rank was stuck)", kRankFailureExit);
            },
            [&](SideChannel& channel) { run_body(rank, channel, body); });
        return 0;
    } catch (const RankFailure& failure) {
        const int witness = failure.rank == 0 ? 1 : 0;
        const bool speaks = rank.identity.rank == failure.rank || rank.identity.rank == witness;
        leave(speaks ? prefix + failure.what() : "", kRankFailureExit);
    } catch (const InputError& error) {
        leave(rank.identity.rank == 0 ? prefix + error.what() : "", 2);
    } catch (const std::exception& error) {
        leave(prefix + "internal (please report it): " + error.what(), 3);
    }
}

}  // namespace headway::runtime
