// headway-grid: runs a grid of MoE layers on GPUs, forward and backward, on one rank or on several
// that exchange through NCCL, and writes how long each phase took on every rank, bytes and memory.
#include <cuda_runtime.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <fstream>
#include <optional>

#include "models/report/version.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/text/atomic_file.hpp"
#include "models/vocab/error.hpp"
#include "runtime/cuda/check_layers.hpp"
#include "runtime/cuda/grid_run.hpp"
#include "runtime/cuda/local_communicator.hpp"
#include "runtime/cuda/overheads.hpp"
#include "runtime/cuda/rank_device.hpp"
#include "runtime/cuda/step/host_calls.hpp"
#include "runtime/process/program.hpp"
#ifdef HEADWAY_NCCL
#include "runtime/host.hpp"
#include "runtime/nccl/direct_planes.hpp"
#include "runtime/nccl/gpu_rank.hpp"
#endif

namespace headway::runtime {
namespace {

namespace po = boost::program_options;

using Strings = std::vector<std::string>;

constexpr std::string_view kUsage =
    R"(headway-grid SCENARIO.yaml --grid LAYERS.csv -o SAMPLES.csv [options]

Runs the layers of a grid (scenarios/grids) on GPUs, in interleaved passes, and writes the times of
their phases for `headway calibrate --from-grid` and `headway verify --grid`. Samples are written as
they come: a run that ends early keeps what it has, and --append continues it. --overheads measures
what is no phase of a layer: launches, waits of the host, copies, and how much a GEMM slows down
beside an all-to-all.
Ranks: --ranks N starts N processes here; or start it by torchrun, mpirun or srun.
Exit codes: 0 done, 1 a check failed, 2 bad input, 3 internal error, 4 a rank failed.

Options)";

po::options_description declare_options() {
    po::options_description options = common_options(kUsage);
    auto add = options.add_options();
    add("scenario", po::value<std::string>(), "scenario that the grid's layers replace parts of");
    add("grid", po::value<Strings>()->composing(),
        "CSV of layers; several grids are run interleaved, so that a slow minute is in all of "
        "them");
    add("out,o", po::value<Strings>()->composing(), "CSV of samples, one for each --grid");
    add("append", "keep the samples of OUT and run only the passes that it does not have");
    add("overheads", po::value<std::string>(),
        "CSV of launches, waits, copies and overlap to write");
    add("progress", "print how many layers are done as they are");
    add("no-registration", "do not offer the ranks' memory to NCCL for exchanges without copies");
    add("direct", "HP's exchanges are stores into the peers' memory, over NVLink");
    add("no-graph", "enqueue layers in every repeat, also where one could be replayed as a graph");
    add("check", "first compare the layers with the CPU reference");
    add("passes", po::value<int>()->default_value(2), "interleaved passes over the grid");
    add("in-flow",
        "time passes as a job runs them (for judging), not exchange by exchange (for fitting)");
    add("repeats", po::value<int>()->default_value(7), "timed repeats of a layer in a pass");
    add("max-seconds", po::value<double>()->default_value(480.0), "start no layer after this time");
    add("ranks", po::value<int>()->default_value(1), "start this many ranks on this machine");
    add("rendezvous", po::value<std::string>()->default_value(""),
        "HOST:PORT of rank 0 (default: from the launcher)");
    return options;
}

std::string nccl() {
#ifdef HEADWAY_NCCL
    return nccl_version();
#else
    return "none";
#endif
}

// False when a layer differs from the reference.
bool check(DeviceContext& context) {
    bool passed = true;
    for (const LayerCheck& c : check_layers(context)) {
        passed = passed && c.passed;
        if (context.communicator.rank() == 0 || !c.passed) {
            fmt::print("rank {} {:<64} {:<24} {:.2e} {}\n", context.communicator.rank(), c.layer,
                       c.what, c.error, c.passed ? "ok" : "FAILED");
        }
    }
    std::fflush(stdout);
    const std::int64_t failed = !passed;
    for (const std::int64_t f : context.communicator.all_gather_counts({&failed, 1}))
        passed = passed && f == 0;
    return passed;
}

// One grid and the file of its samples.
struct GridFile {
    std::string file;
    std::vector<GridPoint> points;
    std::vector<int> passes_done;  // [point]
    bool append = false;
    std::ofstream out{};
};

std::vector<GridFile> grid_files(const po::variables_map& values) {
    const auto grids = values["grid"].as<Strings>();
    const auto outs = values.count("out") ? values["out"].as<Strings>() : Strings{};
    if (grids.size() != outs.size()) {
        throw InputError(
            {.where = "headway-grid",
             .found = fmt::format("{} grids and {} files for samples", grids.size(), outs.size()),
             .accepted = "one -o for each --grid"});
    }
    std::vector<GridFile> files;
    for (std::size_t i = 0; i < grids.size(); ++i) {
        GridFile f{.file = outs[i],
                   .points = read_grid(grids[i]),
                   .append = values.count("append") && std::ifstream(outs[i]).good()};
        f.passes_done = f.append ? num_executions(f.points, read_grid_samples(f.file))
                                 : std::vector<int>(f.points.size(), 0);
        files.push_back(std::move(f));
    }
    return files;
}

int run_layers(DeviceContext& context, const po::variables_map& values) {
    if (values.count("check") && !check(context)) return 1;
    const bool writes = context.communicator.rank() == 0;
    if (values.count("overheads")) {
        std::vector<OverheadSample> samples = measure_overheads(context);
        for (OverheadSample& s : measure_host_calls(context)) samples.push_back(std::move(s));
        const std::string text = overheads_csv(samples, device_facts(nccl()));
        if (writes) write_file_atomically(values["overheads"].as<std::string>(), text);
    }
    if (!values.count("grid")) return 0;
    const Scenario base = read_scenario(required(values, "scenario", "headway-grid"));
    std::vector<GridFile> files = grid_files(values);
    std::vector<GridPoint> points;
    std::vector<int> passes_done;
    for (const GridFile& f : files) {
        points.insert(points.end(), f.points.begin(), f.points.end());
        passes_done.insert(passes_done.end(), f.passes_done.begin(), f.passes_done.end());
    }
    context.communicator.barrier();  // all have read what rank 0 is about to write
    for (GridFile& f : files) {
        if (!writes) continue;
        f.out.open(f.file, f.append ? std::ios::app : std::ios::trunc);
        if (!f.append) f.out << grid_samples_header();
    }
    GridRunOptions options{.num_passes = at_least(values, "passes", 1),
                           .passes_done = std::move(passes_done),
                           .max_seconds = seconds_above_zero(values, "max-seconds")};
    options.measure.num_warmups = 2;
    options.measure.num_repeats = at_least(values, "repeats", 1);
    options.measure.graph = values.count("no-graph") == 0;
    options.measure.timing = values.count("in-flow") ? Timing::in_flow : Timing::isolated;
    options.sink = [&](std::span<const GridSample> samples) {
        for (GridFile& f : files) {
            const GridPoint& point = samples.front().point;
            if (!writes || std::find(f.points.begin(), f.points.end(), point) == f.points.end())
                continue;
            for (const GridSample& s : samples) f.out << to_csv_line(s);
            f.out.flush();
        }
    };
    options.skipped = [&](const GridPoint& p, const std::string& why) {
        if (writes) fmt::print("skipped T={} d={}: {}\n", p.tokens, p.hidden, why);
    };
    std::size_t num_done = 0, num_all = 0;
    options.progress = [&](std::size_t done, std::size_t total) {
        num_done = done;
        num_all = total;
        if (writes && values.count("progress")) {
            fmt::print("layers {} of {}\n", done, total);
            std::fflush(stdout);
        }
    };
    run_grid(context, base, points, options);
    if (writes) fmt::print("{} of {} layers run\n", num_done, num_all);
    return 0;
}

// Before any rank starts: what no run could use.
void check_options(const po::variables_map& values) {
    for (const char* name : {"passes", "repeats", "ranks"}) at_least(values, name, 1);
    seconds_above_zero(values, "max-seconds");
    if (values.count("grid")) {
        required(values, "scenario", "headway-grid");
        return;
    }
    for (const char* name : {"out", "append"}) {
        if (!values.count(name)) continue;
        throw InputError({.where = fmt::format("--{}", name),
                          .found = "no --grid",
                          .hint = "it is of the samples of a grid"});
    }
    if (values.count("check") || values.count("overheads")) return;
    throw InputError({.where = "headway-grid",
                      .found = "nothing to do",
                      .accepted = "--grid, --overheads, --check",
                      .hint = "headway-grid --help explains the options"});
}

int run_alone(const po::variables_map& values) {
    RankDevice device(0, 1);
    LocalDeviceCommunicator alone;
    DeviceContext context = device.context(alone);
    return run_layers(context, values);
}

#ifdef HEADWAY_NCCL
constexpr std::size_t kDirectArena = std::size_t{48} << 30;  // a window is as large on all ranks

int run(const po::variables_map& values, const Launch& launch) {
    check_options(values);
    const Environment& environment = launch.environment;
    const std::vector<std::string>& arguments = launch.arguments;
    const DeviceMachine machine{.host = host_name(), .num_device_files = count_device_files()};
    const auto identity = rank_identity(environment, values["rendezvous"].as<std::string>());
    const int ranks = values["ranks"].as<int>();
    if (!identity && ranks == 1) return run_alone(values);
    if (!identity) {
        return launch_locally({.num_ranks = ranks,
                               .executable = "/proc/self/exe",
                               .arguments = arguments,
                               .environment = environment,
                               .machine = machine});
    }
    std::string configuration;
    for (const std::string& word : arguments) configuration += word + " ";
    int code = 0;
    const int failed = run_gpu_rank(
        {.program = "headway-grid",
         .identity = *identity,
         .environment = environment,
         .machine = machine,
         .facts = {{"options", configuration}}},
        [&](const GpuRankContext& rank) {
            const bool direct = values.count("direct") > 0;
            RankDevice device(rank.seat.device, rank.seat.sharers, direct ? kDirectArena : 0,
                              direct ? symmetric_allocator() : plain_allocator());
            DeviceContext context = device.context(rank.communicator);
            std::optional<NcclCommunicator::DirectMemory> memory;
            if (direct) {
                memory.emplace(rank.communicator, context.arena.base(), context.arena.capacity());
            }
            std::optional<NcclCommunicator::Registration> registration;
            if (!direct && !values.count("no-registration")) {
                registration.emplace(rank.communicator, context.arena.base(),
                                     context.arena.capacity());
            }
            code = run_layers(context, values);
        });
    return failed != 0 ? failed : code;
}
#else
int run(const po::variables_map& values, const Launch&) {
    check_options(values);
    if (values["ranks"].as<int>() == 1) return run_alone(values);
    throw InputError({.where = "--ranks",
                      .found = std::to_string(values["ranks"].as<int>()),
                      .accepted = "1",
                      .hint = "this program was built without NCCL"});
}
#endif

}  // namespace
}  // namespace headway::runtime

int main(int argc, char** argv) {
    using namespace headway::runtime;
    const auto options = declare_options();
    return run_program({.name = "headway-grid",
                        .version = headway::version(),
                        .options = options,
                        .positional = {"scenario"},
                        .run = run},
                       argc, argv, environ);
}
