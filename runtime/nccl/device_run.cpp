#include "runtime/run/device_run.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "kernels/check.hpp"
#include "models/vocab/error.hpp"
#include "runtime/cuda/measure_device.hpp"
#include "runtime/cuda/rank_device.hpp"
#include "runtime/cuda/step/measure_cuda_step.hpp"
#include "runtime/host.hpp"
#include "runtime/nccl/direct_planes.hpp"
#include "runtime/nccl/gpu_rank.hpp"

namespace headway::runtime {

namespace {

std::size_t arena_bytes(const DeviceRun& run, int sharers) {
    if (run.memory) return static_cast<std::size_t>(run.memory->in(byte));
    std::size_t available = 0, total = 0;
    HEADWAY_CUDA_CHECK(cudaMemGetInfo(&available, &total));
    return total / 100 * 85 / static_cast<std::size_t>(sharers);
}

// Whole steps of all plans.
void run_steps(const DeviceRun& run, const GpuRankContext& rank, DeviceContext& context) {
    std::optional<NcclCommunicator> reductions;
    if (rank.channel.size() > 1) reductions.emplace(rank.channel);
    DeviceCommunicator* const others = reductions ? &*reductions : nullptr;
    const bool first = rank.channel.rank() == 0;
    std::vector<StepMeasurement> measurements;
    for (const Plan& plan : run.plans) {
        if (run.steps->check) {
            const std::string text =
                check_step_on_device(context, others, run.scenario, plan, *run.steps);
            if (first) std::fputs(text.c_str(), stdout);
            continue;
        }
        measurements.push_back(
            measure_steps_on_device(context, others, run.scenario, plan, *run.steps, run.options));
        if (first) print_step_summary(measurements.back());
    }
    rank.channel.barrier();
    if (first && !run.steps->check) run.finish_steps(measurements);
}

void run_plans(const DeviceRun& run, const GpuRankContext& rank) {
    // A window is as large on all ranks.
    const auto own = static_cast<std::int64_t>(arena_bytes(run, rank.seat.sharers));
    const std::vector<std::int64_t> sizes = rank.communicator.all_gather_counts({&own, 1});
    const std::int64_t bytes = *std::min_element(sizes.begin(), sizes.end());
    const bool direct = run.options.direct_exchange;
    RankDevice device(rank.seat.device, rank.seat.sharers, static_cast<std::size_t>(bytes),
                      direct ? symmetric_allocator() : plain_allocator());
    DeviceContext context = device.context(rank.communicator);
    std::optional<NcclCommunicator::DirectMemory> memory;
    if (direct) memory.emplace(rank.communicator, context.arena.base(), context.arena.capacity());
    std::optional<NcclCommunicator::Registration> registration;
    if (!direct)
        registration.emplace(rank.communicator, context.arena.base(), context.arena.capacity());
    if (run.options.fault) {
        context.on_enter = [&](CallSite site) {
            obey(*run.options.fault, rank.channel.rank(), site);
        };
    }
    DeviceMeasureOptions options{.num_layers = run.options.num_layers,
                                 .num_warmups = run.options.num_warmups,
                                 .num_repeats = run.options.num_repeats,
                                 .backward = run.options.backward,
                                 .graph = run.options.graph,
                                 .timing = run.options.timing};
    const bool first = rank.channel.rank() == 0;
    if (first) options.progress = run.options.progress;
    std::vector<Timeline> timelines;
    report_before_unwinding(rank.channel, [&] {
        if (run.steps) return run_steps(run, rank, context);
        for (const Plan& plan : run.plans) {
            const DeviceMeasurement result =
                measure_on_device(context, run.scenario, plan, options);
            if (first) run.report(result.measurement);
            timelines.push_back(result.measurement.timeline);
        }
        rank.channel.barrier();
        if (first) run.finish(timelines);
    });
}

}  // namespace

int run_on_devices(const DeviceRun& run) {
    const DeviceMachine machine{.host = host_name(), .num_device_files = count_device_files()};
    if (!run.identity) {
        return launch_locally({.num_ranks = run.num_ranks,
                               .executable = "/proc/self/exe",
                               .arguments = run.arguments,
                               .environment = run.environment,
                               .machine = machine});
    }
    GpuRank rank{.program = "headway-run",
                 .identity = *run.identity,
                 .environment = run.environment,
                 .machine = machine,
                 .facts = {{"scenario and options", fingerprint(run.configuration)}}};
    rank.channel.deadline = run.options.threads.deadline;
    return run_gpu_rank(rank, [&](const GpuRankContext& context) { run_plans(run, context); });
}

}  // namespace headway::runtime
