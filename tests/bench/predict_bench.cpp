// Predictions per second on one core: MoE layers and full models, CPU time, median of repeats.
//   predict_bench [TEXT]     only the cases with TEXT in their names
// (built with: cmake --build build --target predict_bench)
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/keep_memory.hpp"
#include "models/cost/predict.hpp"
#include "models/cost/price.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/workload/workload.hpp"

namespace {

using namespace headway;

double cpu_seconds() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::string only;  // from the command line

// Runs `work` `count` times, 7 times over, and prints the rate.
template <class Work>
void report(const std::string& what, int count, Work&& work) {
    if (what.find(only) == std::string::npos) return;
    std::vector<double> rates;
    for (int repeat = 0; repeat < 7; ++repeat) {
        const double begin = cpu_seconds();
        for (int i = 0; i < count; ++i) work(i);
        rates.push_back(count / (cpu_seconds() - begin));
    }
    std::sort(rates.begin(), rates.end());
    fmt::print("{:58} {:>10.0f}/s   ({:.0f} .. {:.0f})\n", what, rates[3], rates.front(),
               rates.back());
}

// A layer point: k and tokens change, so nothing can be remembered between points.
void bench_layers(Scenario scenario, const Plan& plan, const Profile& profile) {
    const auto point = [&](int i) {
        scenario.model.moe.top_k = 1 + i % 8;
        scenario.batch.sequence_length = 2048 + 64 * (i % 32);
        const GroupLoad load = expected_load(scenario, plan, 0);
        const LayerWork layer = build_moe_layer(scenario, plan, load, 0);
        PriceBook book(profile, scenario.cluster, scenario.model.dtype);
        Seconds total;
        for (const auto* pass : {&layer.forward, &layer.backward}) {
            for (const PhaseWork& phase : *pass) {
                if (const auto* c = std::get_if<ComputeWork>(&phase.work))
                    total += book.compute(*c, phase.pass, 1.0).time;
                if (const auto* e = std::get_if<ExchangeWork>(&phase.work))
                    total += book.exchange(*e, 1.0).time;
                if (const auto* n = std::get_if<CountExchangeWork>(&phase.work))
                    total += book.count_exchange(*n, 1.0).time;
            }
        }
        if (!total.is_finite()) std::abort();
    };
    report(fmt::format("layer: {} {}", scenario.name, plan.name), 20000, point);
}

void bench_models(Scenario scenario, const Plan& plan, const Profile& profile, int count) {
    const PredictOptions options{.timeline = false};
    report(fmt::format("full model: {} {}", scenario.name, plan.name), count, [&](int i) {
        scenario.model.moe.top_k = 1 + i % 8;
        predict_plan(scenario, plan, profile, options);
    });
}

}  // namespace

int main(int argc, char** argv) {
    cli::keep_memory();
    only = argc > 1 ? argv[1] : "";
    const std::filesystem::path scenarios = HEADWAY_SOURCE_DIR "/scenarios";
    for (const char* name : {"paper_4gpu.yaml", "mixtral_8gpu.yaml", "deepseek_v3_256.yaml"}) {
        const Scenario scenario = read_scenario(scenarios / name, {.preset_dirs = {scenarios}});
        for (const Plan& plan : scenario.plans) {
            Scenario equal = scenario;
            equal.routing = {.seed = 1};
            bench_layers(equal, plan, *scenario.profile);
            bench_models(equal, plan, *scenario.profile, 2000);
            if (scenario.routing.skew != Skew::none) {
                Scenario skewed = scenario;
                skewed.name += " (skewed, a draw a layer)";
                bench_models(skewed, plan, *scenario.profile, 50);
            }
        }
    }
    // Pipelines, among them PP 8 with VPP 4 and 128 micro-batches.
    const Scenario pipelines =
        read_scenario(scenarios / "studies/qwen3_235b_256h100.yaml", {.preset_dirs = {scenarios}});
    for (const Plan& plan : pipelines.plans) bench_models(pipelines, plan, *pipelines.profile, 200);
    return 0;
}
