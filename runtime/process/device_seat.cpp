#include "runtime/process/device_seat.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "models/vocab/error.hpp"
#include "runtime/process/local_ranks.hpp"
#include "runtime/process/wire.hpp"

namespace headway::runtime {

namespace {

struct Seat {
    std::string host, visible;
    int device = 0;

    friend bool operator==(const Seat&, const Seat&) = default;
};

std::string encode(const Seat& seat) {
    return Writer().put_text(seat.host).put_text(seat.visible).put(seat.device).bytes();
}

Seat decode_seat(const std::string& bytes) {
    Reader in(bytes);
    Seat seat{.host = in.text()};
    seat.visible = in.text();
    seat.device = in.get<int>();
    return seat;
}

int devices_of(const Environment& environment, const DeviceMachine& machine) {
    const int devices = num_visible_devices(environment, machine.num_device_files);
    if (devices > 0) return devices;
    throw InputError(InputProblem{.where = "--device cuda",
                                  .found = "no GPU on " + machine.host,
                                  .hint = "neither /dev/nvidia0 nor CUDA_VISIBLE_DEVICES"});
}

InputError no_mps(int sharers, const std::string& why) {
    return InputError(InputProblem{
        .where = "--device cuda",
        .found = fmt::format("{} ranks share a GPU, and MPS cannot be started ({}): without it "
                             "their kernels take turns in time slices of milliseconds, and what is "
                             "timed is the GPU's scheduler",
                             sharers, why),
        .hint = "one rank per GPU, or a machine with nvidia-cuda-mps-control"});
}

std::filesystem::path scratch_of(const DeviceMachine& machine) {
    return std::filesystem::path(machine.scratch) / fmt::format("headway-mps-{}", getpid());
}

}  // namespace

DeviceSeat take_device(SideChannel& channel, const RankIdentity& identity,
                       const Environment& environment, const DeviceMachine& machine) {
    const auto visible = environment.find("CUDA_VISIBLE_DEVICES");
    const Seat own{.host = machine.host,
                   .visible = visible == environment.end() ? "all" : visible->second,
                   .device = identity.local_rank % devices_of(environment, machine)};
    std::vector<Seat> seats;
    for (const std::string& bytes : channel.all_gather("seats", encode(own)))
        seats.push_back(decode_seat(bytes));
    const auto sharers_of = [&](const Seat& seat) {
        return static_cast<int>(std::count(seats.begin(), seats.end(), seat));
    };
    const bool one_host =
        std::all_of(seats.begin(), seats.end(), [&](const Seat& s) { return s.host == own.host; });
    DeviceSeat result{.device = own.device, .sharers = sharers_of(own)};
    // One daemon serves all GPUs of a machine: its first rank that shares one starts it.
    const bool served = std::filesystem::exists(mps_control_pipe(environment));
    const auto first = std::find_if(seats.begin(), seats.end(), [&](const Seat& s) {
        return s.host == own.host && sharers_of(s) > 1;
    });
    std::string pipe, why;
    if (!served && first != seats.end() && first - seats.begin() == channel.rank()) {
        try {
            result.daemon = std::make_unique<MpsDaemon>(scratch_of(machine), machine.mps_control);
            pipe = result.daemon->environment().at("CUDA_MPS_PIPE_DIRECTORY");
        } catch (const MpsUnavailable& error) {
            why = error.what();
        }
    }
    const auto answers = channel.all_gather("mps", Writer().put_text(pipe).put_text(why).bytes());
    if (result.sharers == 1) return result;
    result.added = sharing_environment(environment, channel.rank(), result.sharers, one_host);
    if (served) return result;
    Reader answer(answers.at(static_cast<std::size_t>(first - seats.begin())));
    pipe = answer.text();
    if (pipe.empty()) throw no_mps(result.sharers, answer.text());
    result.added["CUDA_MPS_PIPE_DIRECTORY"] = pipe;
    return result;
}

int launch_locally(const LocalLaunch& launch) {
    const int devices = devices_of(launch.environment, launch.machine);
    const int sharers = (launch.num_ranks + devices - 1) / devices;
    std::unique_ptr<MpsDaemon> daemon;
    Environment added;
    if (sharers > 1 && !std::filesystem::exists(mps_control_pipe(launch.environment))) {
        try {
            daemon =
                std::make_unique<MpsDaemon>(scratch_of(launch.machine), launch.machine.mps_control);
        } catch (const MpsUnavailable& error) {
            throw no_mps(sharers, error.what());
        }
        added = daemon->environment();
    }
    const Descriptor listener = listen_on(0, true);
    LocalRun run{.executable = launch.executable,
                 .arguments = launch.arguments,
                 .listen_fd = listener.get()};
    for (int rank = 0; rank < launch.num_ranks; ++rank) {
        Environment own =
            own_launch_environment(rank, launch.num_ranks, port_of(listener), listener.get());
        own.insert(added.begin(), added.end());
        run.added.push_back(std::move(own));
    }
    const LocalRunEnd end = run_local_ranks(run);
    std::fputs(describe(end).c_str(), stderr);
    return exit_code_of(end);
}

}  // namespace headway::runtime
