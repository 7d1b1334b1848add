#include "models/fit/layer_samples.hpp"

#include <set>
#include <variant>

#include "models/vocab/phase.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline fit {
namespace {

// The slowest rank's time of a phase in a layer; 0 when it was not run.
double slowest(const Timeline& measured, int layer, const PhaseWork& phase) {
    Seconds time;
    for (const Span& span : measured.spans) {
        if (span.layer == layer && span.phase == phase.phase && span.pass == phase.pass)
            time = max(time, span.duration);
    }
    return time.in(second);
}

void add_compute(const ComputeWork& work, Pass pass, double seconds, CalibrationSamples& samples) {
    KernelSample sample{.pass = pass, .seconds = seconds, .launches = 0};
    int num_main = 0;
    for (int i = 0; i < work.num_kernels; ++i) {
        const KernelWork& kernel = work.kernels[static_cast<std::size_t>(i)];
        sample.launches += kernel.launches;
        if (kernel.kernel == Kernel::streaming) {
            sample.streamed_bytes += kernel.bytes.in(byte);
            continue;
        }
        KernelSample main = sample;
        main.kernel = kernel.kernel;
        main.size = kernel.size;
        main.width = kernel.width;
        main.work = is_byte_rate(kernel.kernel) ? kernel.bytes.in(byte) : kernel.flops.in(flop);
        if (num_main == 1 && kernel.kernel == sample.kernel && is_byte_rate(kernel.kernel)) {
            const KernelSample& part = main.work < sample.work ? main : sample;
            const double size = part.size, bytes = part.work;
            if (sample.work < main.work) sample = main;
            sample.part_size = size;
            sample.part_work = bytes;
            continue;
        }
        ++num_main;
        sample = main;
    }
    // Two different GEMMs in one phase cannot be told apart.
    if (num_main == 1 && sample.work > 0.0) samples.kernels.push_back(sample);
}

void add_exchange(const ExchangeWork& work, double seconds, CalibrationSamples& samples) {
    int num_paths = 0;
    ExchangeSample sample{.num_ranks = work.group_size};
    for (std::size_t c = 0; c < work.busiest.size(); ++c) {
        const double bytes = work.busiest[c].in(byte);
        if (bytes <= 0.0) continue;
        ++num_paths;
        sample.path = static_cast<PathClass>(c);
        sample.sample = {bytes, seconds, work.mean[c].in(byte)};
    }
    if (num_paths == 1 && !work.forwarded) samples.exchanges.push_back(sample);
}

// And, under rank-dedup, the gates' gradients in backward, which a step's Workload leaves out.
void add_counts(const PhaseShape& shape, const Timeline& measured, int layer, double seconds,
                CalibrationSamples& samples) {
    samples.phases.push_back({shape, Pass::forward, seconds});
    const double backward =
        slowest(measured, layer, {Phase::count_exchange, Pass::backward, CountExchangeWork{}});
    if (backward > 0.0) samples.phases.push_back({shape, Pass::backward, backward});
}

}  // namespace

void add_samples(const Scenario& scenario, const Plan& plan, const Timeline& measured,
                 CalibrationSamples& samples) {
    samples.dtype = scenario.model.dtype;
    const Cluster& cluster = scenario.cluster;
    if (cluster.nvlink) {
        samples.link = cluster.nvlink->bandwidth;
    } else if (cluster.pcie) {
        samples.link = cluster.pcie->bandwidth;
    }
    std::set<int> layers;
    for (const Span& span : measured.spans) layers.insert(span.layer);
    for (const int layer : layers) {
        const LayerWork work =
            build_moe_layer(scenario, plan, sampled_load(scenario, plan, layer, 0), layer);
        for (const auto* phases : {&work.forward, &work.backward}) {
            for (const PhaseWork& phase : *phases) {
                const double seconds = slowest(measured, layer, phase);
                if (seconds <= 0.0 || !is_moe_phase(phase.phase)) continue;
                if (const auto* compute = std::get_if<ComputeWork>(&phase.work)) {
                    add_compute(*compute, phase.pass, seconds, samples);
                    if (compute->shape)
                        samples.phases.push_back({*compute->shape, phase.pass, seconds});
                } else if (const auto* exchange = std::get_if<ExchangeWork>(&phase.work)) {
                    if (!exchange->records) add_exchange(*exchange, seconds, samples);
                } else if (const auto* counts = std::get_if<CountExchangeWork>(&phase.work)) {
                    if (counts->num_stages > 1) continue;  // the curves are of one
                    samples.count_exchange.push_back(seconds);
                    if (counts->shape)
                        add_counts(*counts->shape, measured, layer, seconds, samples);
                }
            }
        }
    }
}

}  // namespace headway::inline fit
