#include "runtime/gloo/network_rank.hpp"
#include "runtime/host.hpp"
#include "runtime/run/device_run.hpp"

namespace headway::runtime {

int run_over_network(const DeviceRun& run) {
    NetworkRank rank{.program = "headway-run",
                     .identity = *run.identity,
                     .environment = run.environment,
                     .facts = {{"scenario and options", fingerprint(run.configuration)}}};
    rank.channel.deadline = run.options.threads.deadline;
    return run_network_rank(rank, [&](SideChannel& channel, Communicator& communicator) {
        prepare_timed_memory();
        const bool first = channel.rank() == 0;
        MeasureOptions options = run.options;
        if (!first) options.progress = {};
        std::vector<Timeline> timelines;
        for (const Plan& plan : run.plans) {
            const Measurement result = measure_rank(run.scenario, plan, options, communicator);
            if (first) run.report(result);
            timelines.push_back(result.timeline);
        }
        channel.barrier();
        if (first) run.finish(timelines);
    });
}

}  // namespace headway::runtime
