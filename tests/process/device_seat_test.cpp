// Which GPU a rank takes, with real processes and a stand-in for MPS's control program.
#include "runtime/process/device_seat.hpp"

#include <filesystem>
#include <fstream>

#include "tests/process/forked_ranks.hpp"

namespace headway::runtime {
namespace {

namespace fs = std::filesystem;

class DeviceSeats : public ::testing::Test {
  protected:
    DeviceSeats() {
        fs::create_directories(dir_);
        // As the real one, it makes its pipe; `quit` comes without an argument.
        std::ofstream(dir_ / "control") << "#!/bin/sh\n[ -z \"$1\" ] || : > "
                                           "$CUDA_MPS_PIPE_DIRECTORY/control\n";
        fs::permissions(dir_ / "control", fs::perms::owner_all);
    }
    ~DeviceSeats() override { fs::remove_all(dir_); }

    // Four ranks on one machine; `expect` sees every rank's seat.
    std::vector<ForkedRank> seat(const Environment& environment, int num_device_files,
                                 const std::string& control,
                                 const std::function<bool(int, const DeviceSeat&)>& good) const {
        const DeviceMachine machine{.host = "here",
                                    .num_device_files = num_device_files,
                                    .mps_control = control,
                                    .scratch = dir_.string()};
        return run_forked({.num_ranks = 4}, [&](SideChannel& channel) {
            const RankIdentity identity{
                .rank = channel.rank(), .size = 4, .local_rank = channel.rank(), .local_size = 4};
            const DeviceSeat own = take_device(channel, identity, environment, machine);
            if (!good(channel.rank(), own)) throw std::logic_error("a wrong seat");
            channel.barrier();
        });
    }

    void expect_all(const std::vector<ForkedRank>& ranks, int exit_code) {
        for (const ForkedRank& rank : ranks) EXPECT_EQ(rank.exit_code, exit_code) << rank.message;
    }

    fs::path dir_ = fs::path(::testing::TempDir()) / ("seats_" + std::to_string(getpid()));
};

// Four ranks, four GPUs: rank r takes GPU r alone, and nothing is started or set.
TEST_F(DeviceSeats, ARankAloneOnItsGpuNeedsNothing) {
    expect_all(seat({}, 4, "/missing",
                    [](int rank, const DeviceSeat& s) {
                        return s.device == rank && s.sharers == 1 && s.added.empty() && !s.daemon;
                    }),
               0);
}

// Four ranks, two GPUs: pairs 0 and 2, 1 and 3; one daemon, at rank 0, whose pipes all use.
TEST_F(DeviceSeats, RanksThatShareGetOneDaemonAndHalfAGpuEach) {
    expect_all(seat({}, 2, (dir_ / "control").string(),
                    [](int rank, const DeviceSeat& s) {
                        return s.device == rank % 2 && s.sharers == 2 &&
                               (s.daemon != nullptr) == (rank == 0) &&
                               s.added.at("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE") == "50" &&
                               fs::exists(s.added.at("CUDA_MPS_PIPE_DIRECTORY") + "/control");
                    }),
               0);
    EXPECT_EQ(std::distance(fs::directory_iterator(dir_), {}), 1);  // the daemon's place is gone
}

TEST_F(DeviceSeats, AServerThatRunsIsUsed) {
    fs::create_directories(dir_ / "running");
    std::ofstream(dir_ / "running" / "control") << "";
    const Environment environment{{"CUDA_MPS_PIPE_DIRECTORY", (dir_ / "running").string()}};
    expect_all(seat(environment, 1, "/missing",
                    [](int, const DeviceSeat& s) {
                        return s.sharers == 4 && !s.daemon && s.added.contains("NCCL_HOSTID") &&
                               !s.added.contains("CUDA_MPS_PIPE_DIRECTORY");
                    }),
               0);
}

TEST_F(DeviceSeats, SharingWithoutMpsIsRefusedWithTheReason) {
    const auto ranks =
        seat({}, 1, (dir_ / "missing").string(), [](int, const DeviceSeat&) { return true; });
    expect_all(ranks, 2);
    for (const ForkedRank& rank : ranks) {
        EXPECT_NE(rank.message.find("4 ranks share a GPU, and MPS cannot be started"),
                  std::string::npos)
            << rank.message;
    }
    expect_all(seat({}, 0, "", [](int, const DeviceSeat&) { return true; }), 2);  // no GPU
}

}  // namespace
}  // namespace headway::runtime
