// headway-comm: checks the exchanges of a run's ranks byte for byte, and measures their times.
#include <cuda_runtime.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <csignal>

#include "kernels/check.hpp"
#include "models/report/version.hpp"
#include "models/text/atomic_file.hpp"
#include "models/vocab/error.hpp"
#include "runtime/host.hpp"
#include "runtime/nccl/comm_cases.hpp"
#include "runtime/nccl/gpu_rank.hpp"
#include "runtime/process/cores.hpp"
#include "runtime/process/program.hpp"

namespace headway::runtime {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kUsage = R"(headway-comm [options]

Checks NCCL's exchanges between the ranks of a run byte for byte; with --out it also measures them:
OUT_alltoall.log, OUT_sendrecv.log, OUT_all_reduce.log as nccl-tests prints them, for
`headway calibrate`, and OUT_estimate.csv with NCCL's own estimates beside the measured times.
Ranks: --ranks N starts N processes here; or start it by torchrun, mpirun or srun.
Exit codes: 0 done, 2 bad input, 3 internal error, 4 a rank failed.

Options)";

po::options_description declare_options() {
    po::options_description options = common_options(kUsage);
    auto add = options.add_options();
    add("ranks", po::value<int>(), "start this many ranks on this machine");
    add("rendezvous", po::value<std::string>()->default_value(""),
        "HOST:PORT of rank 0 (default: from the launcher)");
    add("rounds", po::value<int>()->default_value(20), "rounds of random exchanges to check");
    add("out,o", po::value<std::string>(), "measure, and write to files with this prefix");
    add("max-size", po::value<std::int64_t>()->default_value(64 << 20), "largest exchange (bytes)");
    add("repeats", po::value<int>()->default_value(15), "timed repeats of each size");
    add("max-ctas", po::value<int>()->default_value(0), "thread blocks for NCCL; 0: its choice");
    add("estimate", "with --out: NCCL's own estimates too");
    add("inject-fault", po::value<std::string>()->default_value(""),
        "KIND:RANK with KIND kill, stop or throw, in the middle of the exchanges");
    return options;
}

std::string device_line(const GpuRankContext& context, const std::string& host) {
    cudaDeviceProp properties{};
    HEADWAY_CUDA_CHECK(cudaGetDeviceProperties(&properties, context.seat.device));
    return fmt::format("Pid {:6} on {:>10} device {:2} [0x{:02x}] {}", getpid(), host,
                       context.seat.device, properties.pciBusID, properties.name);
}

void inject(const std::string& fault, int rank) {
    const std::size_t colon = fault.find(':');
    if (colon == std::string::npos || std::atoi(fault.c_str() + colon + 1) != rank) return;
    const std::string kind = fault.substr(0, colon);
    if (kind == "kill") raise(SIGKILL);
    if (kind == "stop") raise(SIGSTOP);
    if (kind == "throw") throw std::runtime_error("injected fault");
}

void measure(const GpuRankContext& context, const po::variables_map& values,
             const std::string& host) {
    const auto ranks = context.channel.all_gather("devices", device_line(context, host));
    const std::string prefix = values["out"].as<std::string>();
    CurveOptions options{.max_size = values["max-size"].as<std::int64_t>(),
                         .num_repeats = values["repeats"].as<int>()};
    std::unique_ptr<NcclEstimator> estimator;
    if (values.count("estimate")) estimator = std::make_unique<NcclEstimator>(context.channel);
    std::string estimates = "collective,size_bytes,measured_s,p10_s,p90_s,nccl_estimate_s\n";
    const std::pair<CommCurve, std::string> curves[] = {{CommCurve::all_to_all, "alltoall"},
                                                        {CommCurve::send_receive, "sendrecv"},
                                                        {CommCurve::all_reduce, "all_reduce"}};
    for (const auto& [curve, name] : curves) {
        const auto points = measure_curve(context.communicator, estimator.get(), curve, options);
        for (const CurvePoint& p : points) {
            estimates += fmt::format("{},{},{:.9f},{:.9f},{:.9f},{:.9f}\n", name, p.size, p.median,
                                     p.low, p.high, p.estimate);
        }
        if (context.channel.rank() == 0)
            write_file_atomically(prefix + "_" + name + ".log",
                                  nccl_tests_text(curve, points, ranks));
    }
    if (estimator && context.channel.rank() == 0)
        write_file_atomically(prefix + "_estimate.csv", estimates);
}

void run_rank(const GpuRankContext& context, const po::variables_map& values,
              const std::string& host) {
    const std::string fault = values["inject-fault"].as<std::string>();
    CommCheck check{.num_rounds = values["rounds"].as<int>()};
    const std::int64_t sent = check_communicator(context.communicator, check);
    if (!fault.empty()) {
        context.channel.barrier();
        usleep(300'000);  // the next sign of life names the phase
        inject(fault, context.channel.rank());
        check_communicator(context.communicator, check);
    }
    const auto cores = context.channel.all_gather("cores of ranks", cores_text(allowed_cores()));
    const auto totals = context.communicator.all_gather_counts({&sent, 1});
    std::int64_t total = 0;
    for (const std::int64_t bytes : totals) total += bytes;
    if (context.channel.rank() == 0) {
        fmt::print("{} ranks, {} a GPU: {} rounds, {} bytes exchanged and equal\n",
                   context.channel.size(), context.seat.sharers, check.num_rounds, total);
        fmt::print("cores of the ranks: {}\n", fmt::join(cores, "; "));
    }
    if (values.count("out")) measure(context, values, host);
}

// Before any rank starts: what no run could use.
void check_options(const po::variables_map& values) {
    for (const char* name : {"rounds", "repeats"}) at_least(values, name, 1);
    if (values.count("ranks")) at_least(values, "ranks", 1);
    at_least(values, "max-ctas", 0);
    if (const auto size = values["max-size"].as<std::int64_t>(); size < 1) {
        throw InputError({.where = "--max-size",
                          .found = std::to_string(size),
                          .accepted = "a whole number of bytes from 1"});
    }
    if (values.count("estimate") && !values.count("out")) {
        throw InputError({.where = "--estimate",
                          .found = "no --out to write them to",
                          .hint = "--out PREFIX measures and names the files"});
    }
    const std::string fault = values["inject-fault"].as<std::string>();
    const std::string kind = fault.substr(0, fault.find(':'));
    const bool numbered = fault.find_first_not_of("0123456789", kind.size() + 1) == fault.npos &&
                          fault.size() > kind.size() + 1;
    if (!fault.empty() && (!numbered || (kind != "kill" && kind != "stop" && kind != "throw"))) {
        throw InputError({.where = "--inject-fault",
                          .found = "'" + fault + "'",
                          .accepted = "KIND:RANK with KIND kill, stop or throw"});
    }
}

int run(const po::variables_map& values, const Launch& launch) {
    check_options(values);
    const Environment& environment = launch.environment;
    const DeviceMachine machine{.host = host_name(), .num_device_files = count_device_files()};
    const auto identity = rank_identity(environment, values["rendezvous"].as<std::string>());
    if (!identity) {
        return launch_locally({.num_ranks = values.count("ranks") ? values["ranks"].as<int>() : 1,
                               .executable = "/proc/self/exe",
                               .arguments = launch.arguments,
                               .environment = environment,
                               .machine = machine});
    }
    std::string configuration;
    for (const auto& name : {"rounds", "repeats", "max-ctas"})
        configuration += fmt::format("{}={} ", name, values[name].as<int>());
    configuration += fmt::format("max-size={} out={}", values["max-size"].as<std::int64_t>(),
                                 values.count("out"));
    return run_gpu_rank(
        {.program = "headway-comm",
         .identity = *identity,
         .environment = environment,
         .machine = machine,
         .facts = {{"options", configuration}},
         .nccl = {.max_ctas = values["max-ctas"].as<int>()}},
        [&](const GpuRankContext& context) { run_rank(context, values, machine.host); });
}

}  // namespace
}  // namespace headway::runtime

int main(int argc, char** argv) {
    using namespace headway::runtime;
    const auto options = declare_options();
    return run_program({.name = "headway-comm",
                        .version = headway::version(),
                        .options = options,
                        .positional = {},
                        .run = run},
                       argc, argv, environ);
}
