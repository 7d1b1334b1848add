#include "cli/calibration/calibrate_lab.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cli/calibration/cpu_samples.hpp"
#include "cli/lab.hpp"
#include "cli/measured_timelines.hpp"
#include "cli/output.hpp"
#include "models/cost/bare_exchange.hpp"
#include "models/fit/curve_fit.hpp"
#include "models/fit/fit_profile.hpp"
#include "models/fit/layer_samples.hpp"
#include "models/text/human.hpp"
#include "models/vocab/links.hpp"
#include "models/vocab/quantile.hpp"
#include "models/workload/exchange_bytes.hpp"

namespace headway::cli {
namespace {

constexpr int kRepeats = 9;

// The ranks and links of the scenario, all under one leaf and at their full speed.
Scenario on_a_star(Scenario scenario) {
    Cluster& cluster = scenario.cluster;
    cluster.link_overrides.clear();
    cluster.rank_overrides.clear();
    if (cluster.fabric) {
        cluster.fabric->nodes_per_leaf = 0;
        cluster.fabric->oversubscription = 1.0;
        cluster.fabric->core.reset();
    }
    return scenario;
}

// Links of one kind, with as many ranks on them as the scenario has.
struct Wire {
    std::vector<PathClass> paths;  // that are priced by its curves
    Cluster cluster;
    Bandwidth link;
};

std::vector<Wire> wires_of(const Cluster& star) {
    std::vector<Wire> wires;
    const auto add = [&](std::vector<PathClass> paths) -> Cluster& {
        const Bandwidth link = link_bandwidth(star, paths.front());
        return wires.emplace_back(Wire{std::move(paths), star, link}).cluster;
    };
    const int domain = star.nvlink ? std::min(star.nvlink->domain, star.num_ranks()) : 1;
    if (domain > 1) {
        Cluster& c = add({PathClass::nvlink});
        c.gpus_per_node = std::min(c.gpus_per_node, domain);
        c.num_nodes = domain / c.gpus_per_node;
        c.fabric.reset();
    }
    if (star.pcie && star.gpus_per_node > domain) {
        Cluster& c = add({PathClass::pcie});
        c.num_nodes = 1;
        c.nvlink.reset();
        c.fabric.reset();
    }
    if (star.fabric && star.num_nodes > 1) {
        Cluster& c = add({PathClass::nic, PathClass::spine});
        c.num_nodes = star.num_ranks();
        c.gpus_per_node = 1;
        c.nvlink.reset();
        c.pcie.reset();
        c.fabric->rails = false;
        c.fabric->nics_per_node = 1;
        c.fabric->nic = wires.back().link;
    }
    return wires;
}

// Bytes to a peer, a factor of two apart, around all that the scenario's exchanges send.
std::vector<std::int64_t> message_sizes(const Scenario& star) {
    double least = INFINITY, most = 0.0;
    for (const Plan& plan : star.plans) {
        for (const BareExchange& exchange :
             bare_exchanges(star, plan, ideal_links(star.cluster), star.model.moe_layer(0))) {
            for (std::size_t s = 0; s < exchange.task.stages.size(); ++s) {
                for (const std::int64_t bytes :
                     world_matrix(exchange.task, s, star.cluster.num_ranks()).bytes) {
                    if (bytes == 0) continue;
                    least = std::min(least, static_cast<double>(bytes));
                    most = std::max(most, static_cast<double>(bytes));
                }
            }
        }
    }
    if (most == 0.0) no_exchanges(star);
    std::vector<std::int64_t> sizes;
    for (double size = least / 2.0; size < 2.0 * most; size *= 2.0)
        sizes.push_back(std::llround(size));
    sizes.push_back(std::llround(2.0 * most));
    return sizes;
}

enum class Shape { alone, even };

// The first `ranks` of a wire send each other as many bytes; or rank 0 alone sends, to rank 1.
TrafficMatrix matrix_of(Shape shape, int ranks, int all, std::int64_t bytes) {
    TrafficMatrix matrix(all);
    for (int i = 0; i < ranks; ++i) {
        for (int j = 0; j < ranks; ++j)
            if (i != j && (shape == Shape::even || i == 0)) matrix.at(i, j) = bytes;
    }
    return matrix;
}

// By how many bytes a rank sends, repeat by repeat.
std::vector<TimeSample> time_shape(const Lab& lab, const Wire& wire, Shape shape, int ranks,
                                   const std::vector<std::int64_t>& sizes, int repeats) {
    std::vector<TrafficMatrix> matrices;
    for (const std::int64_t bytes : sizes)
        matrices.push_back(matrix_of(shape, ranks, wire.cluster.num_ranks(), bytes));
    const ExchangeRun run = lab.exchange(matrices, repeats);
    std::vector<TimeSample> samples;
    for (std::size_t m = 0; m < matrices.size(); ++m) {
        for (const double seconds : run.seconds[m])
            samples.push_back({static_cast<double>(matrices[m].sent(0)), seconds});
    }
    return samples;
}

double median_of_size(const std::vector<TimeSample>& samples, double bytes) {
    std::vector<double> seconds;
    for (const TimeSample& s : samples) {
        if (s.bytes == bytes) seconds.push_back(s.seconds);
    }
    return quantile(seconds, 0.5);
}

// The cost of a message and of a byte: the shortest one's time, and the rate of the longest.
void say(const Wire& wire, const std::string& who, const std::vector<TimeSample>& samples) {
    const double least = samples.front().bytes, most = samples.back().bytes,
                 rate = most / median_of_size(samples, most);
    note(fmt::format("{}, {}: {} take {}; {} are sent at {:.1f} % of the link's {}",
                     name(wire.paths.front()), who, human(least * byte),
                     human(median_of_size(samples, least) * second), human(most * byte),
                     100.0 * rate / wire.link.in(byte / second), human(wire.link)));
}

void add_curves(const Wire& wire, const std::vector<std::int64_t>& sizes, int repeats,
                const std::string& source, Profile& profile) {
    const Lab lab(wire.cluster);
    say(wire, "one message alone", time_shape(lab, wire, Shape::alone, 2, sizes, repeats));
    std::vector<int> groups{2};
    if (wire.cluster.num_ranks() > 2) groups.push_back(wire.cluster.num_ranks());
    for (const int ranks : groups) {
        const auto samples = time_shape(lab, wire, Shape::even, ranks, sizes, repeats);
        say(wire, ranks == 2 ? "both ways" : fmt::format("{} ranks", ranks), samples);
        for (const PathClass path : wire.paths) {
            replace_curve(profile,
                          fit_points({.path = path,
                                      .num_ranks = ranks,
                                      .link = wire.link,
                                      .source = source + ": even exchanges on a star in the lab"},
                                     samples));
        }
    }
}

// For what the layers in the lab have no sample of, a short run of them on threads will do: up to
// as many tokens, which is twice the middle of its grid.
Profile short_base(const Scenario& star, const std::string& source) {
    Scenario brief = star;
    brief.batch.sequence_length =
        static_cast<int>(std::max<std::int64_t>(1, star.batch.tokens_per_rank() / 2));
    brief.batch.sequences_per_rank = 1;
    Progress progress("layers on threads");
    return fit_profile(
        measure_cpu(brief, {.num_passes = 1,
                            .num_ranks = 2,
                            .progress = [&](std::size_t done,
                                            std::size_t total) { progress.update(done, total); }}),
        {}, source);
}

}  // namespace

Profile profile_of_lab(const po::variables_map& values, Profile base, const std::string& source,
                       std::string& device) {
    const Scenario star = on_a_star(scenario_in_lab(values, "calibrate"));
    check_layers(star, "");
    if (star.model.num_moe_layers() == 0) no_exchanges(star);
    const int asked = whole_number(values, "passes", 0, 1000),
              repeats = asked > 0 ? asked : kRepeats;
    if (values.count("base") == 0) base = short_base(star, source);
    CalibrationSamples samples;
    const std::vector<Timeline> timelines = Lab(star.cluster).run_layers(star, repeats);
    for (const Timeline& timeline : timelines) {
        device = timeline.profile;
        add_samples(star, plan_of(star, timeline), timeline, samples);
    }
    // Exchanges by themselves tell paths apart, and have one size each.
    samples.exchanges.clear();
    Profile profile = fit_profile(samples, std::move(base), source);
    // Between threads lies a memory, in the lab a network.
    profile.communication.clear();
    const std::vector<std::int64_t> sizes = message_sizes(star);
    for (const Wire& wire : wires_of(star.cluster))
        add_curves(wire, sizes, repeats, source, profile);
    return profile;
}

}  // namespace headway::cli
