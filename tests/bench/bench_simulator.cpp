// Cost of the simulator: CPU time and peak memory of the published all-to-all cases and of whole
// training steps. Every repetition runs in a process of its own, on one core.
//   usage: bench_simulator [--repeat N] [--only SUBSTRING]   prints CSV
// The sizes are those of tests/sim/table_cases.hpp; the step is DeepSeek-V3-like: 61 layers,
// 58 of them sparse, 256 ranks in EP groups of 64, a skewed router, forward and backward.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "sim/all_to_all.hpp"
#include "sim/simulate.hpp"
#include "tests/sim/table_cases.hpp"

namespace headway::sim {
namespace {

struct Outcome {
    double completion_s = 0.0, mean_s = 0.0, error_bound_s = 0.0, cpu_s = 0.0;
    std::int64_t flows = 0, instants = 0, peak_rss_bytes = 0;
};

struct Case {
    std::string name;
    int ranks, layers;
    std::function<void(Outcome&)> run;  // fills all but its cost
};

double cpu_seconds() {
    rusage u{};
    getrusage(RUSAGE_SELF, &u);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return seconds(u.ru_utime) + seconds(u.ru_stime);
}

// Runs the case in a child and reads its outcome through a pipe.
Outcome measure(const Case& c) {
    int ends[2];
    if (pipe(ends) != 0) std::exit(1);
    const pid_t child = fork();
    if (child == 0) {
        Outcome outcome;
        c.run(outcome);
        rusage u{};
        getrusage(RUSAGE_SELF, &u);
        outcome.peak_rss_bytes = u.ru_maxrss * 1024;
        const bool sent = write(ends[1], &outcome, sizeof outcome) == sizeof outcome;
        _exit(sent ? 0 : 1);
    }
    Outcome outcome;
    close(ends[1]);
    if (read(ends[0], &outcome, sizeof outcome) != sizeof outcome) std::exit(1);
    close(ends[0]);
    waitpid(child, nullptr, 0);
    return outcome;
}

Case exchange_case(const char* topology, const char* sizes, int ranks, double epsilon) {
    const std::string mode = epsilon > 0.0 ? fmt::format("epsilon {:g}", epsilon) : "exact";
    return {fmt::format("alltoall {} {} {} {}", topology, sizes, ranks, mode), ranks, 0,
            [=](Outcome& out) {
                const TrafficMatrix matrix = cases::matrix(sizes, ranks);
                const double before = cpu_seconds();
                const Topology links(cases::cluster(topology, ranks));
                const AllToAllResult r = all_to_all(links, matrix, {.epsilon = epsilon});
                out = {.completion_s = r.completion.in(second),
                       .mean_s = r.mean_flow_completion.in(second),
                       .error_bound_s = r.error_bound.in(second),
                       .cpu_s = cpu_seconds() - before,
                       .flows = r.flows,
                       .instants = r.instants};
            }};
}

// ---- a DeepSeek-V3-like step

constexpr std::int64_t kTokens = 4096;
constexpr int kTopK = 8, kHidden = 7168;

// `hashed`: two leaves whose uplinks are chosen by a hash of the pair.
Cluster gpu_cluster(int ranks, bool hashed) {
    Cluster c{
        .name = "bench", .num_nodes = std::max(1, ranks / 8), .gpus_per_node = std::min(8, ranks)};
    c.nvlink = NvLink{.domain = c.gpus_per_node, .bandwidth = 450.0 * GB / second};
    c.fabric =
        Fabric{.nics_per_node = c.gpus_per_node, .nic = 50.0 * GB / second, .rails = !hashed};
    if (hashed) {
        c.fabric->nodes_per_leaf = c.num_nodes / 2;
        c.fabric->uplinks_per_leaf = ranks / 2;
        c.fabric->spraying = Spraying::ecmp;
    }
    return c;
}

// Destinations with popularity ~ 1 / (i + 1)^0.3 in an order drawn for each layer and group, and
// 5 % noise for each pair.
TrafficMatrix skewed_matrix(int ranks, std::uint64_t seed) {
    cases::SplitMix64 random(seed);
    const std::vector<int> order = random.permutation(ranks);
    std::vector<double> weight;
    double sum = 0.0;
    for (const int o : order) sum += weight.emplace_back(std::pow(o + 1, -0.3));
    TrafficMatrix m(ranks);
    for (int i = 0; i < ranks; ++i) {
        for (int j = 0; j < ranks; ++j) {
            const double copies = kTokens * kTopK * weight[static_cast<std::size_t>(j)] / sum *
                                  (0.95 + 0.1 * random.uniform());
            m.at(i, j) = static_cast<std::int64_t>(copies) * kHidden * 2;
        }
    }
    return m;
}

class StepBuilder {
  public:
    StepBuilder(int ranks, int group, bool skewed) : ranks_(ranks), group_(group), skewed_(skewed) {
        program_.num_ranks = ranks;
        program_.overlap = 1.1;
    }

    Program build(int layers) {
        const int dense = layers > 3 ? 3 : 0;
        for (int l = 0; l < layers; ++l) layer(l, l >= dense, Pass::forward);
        for (int l = layers; l-- > 0;) {
            layer(l, l >= dense, Pass::backward);
            reduce(l);
        }
        return std::move(program_);
    }

  private:
    void compute(Phase phase, int layer, Pass pass, std::vector<Seconds> times) {
        add(phase, layer, pass, Stream::compute).work = ComputeTask{.per_rank = std::move(times)};
    }
    Task& add(Phase phase, int layer, Pass pass, Stream stream) {
        std::vector<int> after;
        for (const int t : {last_[0], last_[1]}) {
            if (t >= 0) after.push_back(t);
        }
        const auto s = static_cast<std::size_t>(stream);
        if (s < 2) last_[s] = static_cast<int>(program_.tasks.size());
        program_.tasks.push_back({.phase = phase,
                                  .pass = pass,
                                  .layer = layer,
                                  .stream = stream,
                                  .after = std::move(after),
                                  .work = ComputeTask{}});
        return program_.tasks.back();
    }
    void exchange(Phase phase, int layer, Pass pass, bool back) {
        ExchangeStage stage{.latency = 20.0 * us};
        const int groups = ranks_ / group_;
        for (int g = 0; g < groups && skewed_; ++g) {
            TrafficMatrix m = skewed_matrix(group_, static_cast<std::uint64_t>(layer * groups + g));
            stage.matrices.push_back(
                std::make_shared<const TrafficMatrix>(back ? m.transposed() : std::move(m)));
        }
        stage.uniform_bytes = kTokens * kTopK / group_ * kHidden * 2;
        add(phase, layer, pass, Stream::communication).work =
            ExchangeTask{.group_size = group_, .stages = {std::move(stage)}};
    }
    // Expert time follows the rows that arrive.
    std::vector<Seconds> expert_times(int layer) const {
        if (!skewed_) return {1.5 * ms};
        std::vector<Seconds> times;
        for (int r = 0; r < ranks_; ++r) {
            const int g = r / group_;
            const TrafficMatrix m =
                skewed_matrix(group_, static_cast<std::uint64_t>(layer * (ranks_ / group_) + g));
            times.push_back(1.5 * ms *
                            (static_cast<double>(m.received(r % group_)) /
                             (static_cast<double>(m.total_off_rank()) / group_)));
        }
        return times;
    }
    void layer(int l, bool sparse, Pass pass) {
        const double scale = pass == Pass::forward ? 1.0 : 2.0;
        const auto plain = [&](Phase phase, Seconds time) {
            compute(phase, l, pass, {scale * time});
        };
        plain(Phase::norm, 50.0 * us);
        plain(Phase::attention_qkv, 400.0 * us);
        plain(Phase::attention_core, 600.0 * us);
        plain(Phase::attention_out, 300.0 * us);
        plain(Phase::norm, 50.0 * us);
        if (!sparse) return plain(Phase::dense_mlp, 900.0 * us);
        plain(Phase::route, 60.0 * us);
        plain(Phase::permute, 150.0 * us);
        const bool back = pass == Pass::backward;
        exchange(back ? Phase::combine : Phase::dispatch, l, pass, false);
        plain(Phase::regroup, 150.0 * us);
        std::vector<Seconds> times = expert_times(l);
        for (Seconds& t : times) t *= scale;
        compute(Phase::expert, l, pass, std::move(times));
        plain(Phase::ungroup, 150.0 * us);
        exchange(back ? Phase::dispatch : Phase::combine, l, pass, true);
        plain(Phase::unpermute, 150.0 * us);
    }
    void reduce(int l) {
        ReduceTask task{.group_size = ranks_, .bytes = 400'000'000, .latency = 100.0 * us};
        task.efficiency[static_cast<std::size_t>(PathClass::nic)] = 0.75;
        add(Phase::grad_all_reduce, l, Pass::update, Stream::gradient).work = task;
    }

    int ranks_, group_;
    bool skewed_;
    int last_[2] = {-1, -1};
    Program program_;
};

Case step_case(int ranks, int group, int layers, bool skewed, double epsilon, bool hashed = false) {
    const std::string mode = epsilon > 0.0 ? fmt::format("epsilon {:g}", epsilon) : "exact";
    return {fmt::format("step {}{} {} layers {} ranks {}", hashed ? "hashed " : "",
                        skewed ? "skewed" : "uniform", layers, ranks, mode),
            ranks, layers, [=](Outcome& out) {
                const Program program = StepBuilder(ranks, group, skewed).build(layers);
                const double before = cpu_seconds();
                const Topology links(gpu_cluster(ranks, hashed));
                const SimulationResult r = simulate(program, links, {.epsilon = epsilon});
                out = {.completion_s = r.step.in(second),
                       .error_bound_s = r.error_bound.in(second),
                       .cpu_s = cpu_seconds() - before,
                       .flows = r.messages,
                       .instants = r.instants};
            }};
}

std::vector<Case> all_cases() {
    std::vector<Case> cases;
    for (const double epsilon : {0.0, 1e-2}) {
        for (const int ranks : {64, 256})
            cases.push_back(exchange_case("hashed", "bal", ranks, epsilon));
        cases.push_back(exchange_case("hashed", "rand", 64, epsilon));
    }
    for (const char* topology : {"star", "leafspine"}) {
        for (const int ranks : {64, 256, 1024}) {
            cases.push_back(exchange_case(topology, "bal", ranks, 0.0));
        }
        for (const char* sizes : {"zipf", "rand"}) {
            for (const int ranks : {32, 64, 128, 256}) {
                cases.push_back(exchange_case(topology, sizes, ranks, 0.0));
            }
            for (const int ranks : {256, 512, 1024}) {
                cases.push_back(exchange_case(topology, sizes, ranks, 1e-3));
            }
        }
    }
    for (const bool skewed : {false, true})
        cases.push_back(step_case(64, 64, 8, skewed, skewed ? 1e-2 : 0.0, true));
    cases.push_back(step_case(4, 4, 16, true, 0.0));
    cases.push_back(step_case(256, 64, 8, true, 0.0));
    cases.push_back(step_case(256, 64, 8, true, 1e-3));
    for (const int layers : {8, 16, 32, 61}) {
        cases.push_back(step_case(256, 64, layers, true, 1e-2));
    }
    for (const int ranks : {64, 128}) cases.push_back(step_case(ranks, 64, 61, true, 1e-2));
    cases.push_back(step_case(256, 64, 61, true, 1e-3));
    cases.push_back(step_case(256, 64, 61, false, 1e-2));
    return cases;
}

void report(const Case& c, int repeat) {
    std::vector<Outcome> outcomes;
    for (int i = 0; i < repeat; ++i) outcomes.push_back(measure(c));
    std::ranges::sort(outcomes, {}, &Outcome::cpu_s);
    const Outcome& median = outcomes[outcomes.size() / 2];
    fmt::print("{},{},{},{},{},{:.9f},{:.9f},{:.3g},{:.5f},{:.5f},{:.5f},{}\n", c.name, c.ranks,
               c.layers, median.flows, median.instants, median.completion_s, median.mean_s,
               median.error_bound_s, outcomes.front().cpu_s, median.cpu_s, outcomes.back().cpu_s,
               median.peak_rss_bytes);
    std::fflush(stdout);
}

}  // namespace
}  // namespace headway::sim

int main(int argc, char** argv) {
    using namespace headway::sim;
    int repeat = 3;
    std::string only;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string option = argv[i];
        if (option == "--repeat") repeat = std::max(1, std::atoi(argv[i + 1]));
        if (option == "--only") only = argv[i + 1];
    }
    fmt::print(
        "case,ranks,layers,flows,instants,completion_s,mean_flow_completion_s,error_bound_s,"
        "cpu_min_s,cpu_median_s,cpu_max_s,peak_rss_bytes\n");
    std::fflush(stdout);
    for (const Case& c : all_cases()) {
        if (c.name.find(only) != std::string::npos) report(c, repeat);
    }
}
