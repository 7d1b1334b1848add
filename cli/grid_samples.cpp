#include "cli/grid_samples.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "models/cost/moe_layer.hpp"
#include "models/fit/layer_samples.hpp"
#include "models/fit/statistics.hpp"

namespace headway::cli {
namespace {

using runtime::GridPoint;
using runtime::GridSample;

std::string point_columns(const GridPoint& p) {
    return fmt::format("{},{},{},{},{},{},{},{},{}", runtime::kind_name(p), p.tokens, p.hidden,
                       p.heads, p.head_width, p.experts, p.top_k, p.expert_width, p.zipf);
}

// Executions of equal layers, in order of first appearance.
std::vector<std::vector<std::vector<GridSample>>> by_layer(const std::vector<GridSample>& samples) {
    std::vector<std::vector<std::vector<GridSample>>> layers;
    for (auto& execution : runtime::by_execution(samples)) {
        const auto same = [&](const auto& layer) {
            return layer.front().front().point == execution.front().point &&
                   layer.front().front().num_ranks == execution.front().num_ranks;
        };
        auto it = std::find_if(layers.begin(), layers.end(), same);
        if (it == layers.end()) it = layers.insert(layers.end(), {{}});
        it->push_back(std::move(execution));
        std::erase_if(*it, [](const auto& e) { return e.empty(); });
    }
    return layers;
}

JudgedLayer judge(const Scenario& base, const Profile& profile,
                  const std::vector<std::vector<GridSample>>& executions) {
    const GridSample& first = executions.front().front();
    JudgedLayer layer{.point = first.point, .num_ranks = first.num_ranks};
    const Scenario scenario = scenario_of(base, first.point, first.num_ranks);
    const Plan& plan = scenario.plans.front();
    const MoePrediction prediction =
        predict_moe_layers(scenario, plan, profile, 1, LayerRouting::drawn);
    for (const Span& span : predict_moe_layers(scenario, plan, profile, 1).timeline.spans)
        layer.expected += span.duration.in(second);
    std::map<std::pair<Pass, Phase>, std::vector<double>> measured;  // slowest rank
    for (const auto& execution : executions) {
        std::map<std::pair<Pass, Phase>, double> slowest;
        for (const GridSample& s : execution) {
            double& time = slowest[{s.pass, s.phase}];
            time = std::max(time, 1e-6 * s.median_us);
            layer.peak_bytes = std::max(layer.peak_bytes, static_cast<double>(s.peak_bytes));
        }
        for (const auto& [key, time] : slowest) measured[key].push_back(time);
    }
    for (const Span& span : prediction.timeline.spans) {
        const auto it = measured.find({span.pass, span.phase});
        if (it == measured.end()) continue;
        layer.phases.push_back({span.pass, span.phase, span.duration.in(second),
                                span.low.in(second), span.high.in(second), median(it->second)});
        layer.predicted += layer.phases.back().predicted;
    }
    for (const auto& [key, times] : measured) layer.measured += median(times);
    layer.predicted_bytes = moe_layer_memory(scenario, plan, scenario.model.moe_layer(0)).in(byte);
    return layer;
}

struct Errors {
    std::string name;
    std::vector<double> values;  // signed
};

std::string errors_row(const Errors& errors) {
    if (errors.values.empty()) return "";
    std::vector<double> sizes;
    double sum = 0.0;
    for (const double e : errors.values) {
        sizes.push_back(std::abs(e));
        sum += e;
    }
    std::sort(sizes.begin(), sizes.end());
    const double n = static_cast<double>(sizes.size());
    return fmt::format("| {} | {} | {:.1f} % | {:.1f} % | {:.1f} % | {:+.1f} % |\n", errors.name,
                       sizes.size(), 100 * median(sizes),
                       100 * sizes[static_cast<std::size_t>(0.95 * (n - 1))], 100 * sizes.back(),
                       100 * sum / n);
}

// EP layer time over HP's, of pairs of the same tokens, width, experts, k, f and skew.
Errors speedup_errors(const std::vector<JudgedLayer>& layers) {
    const auto key = [](const GridPoint& p) {
        return std::tuple(p.tokens, p.hidden, p.experts, p.top_k, p.expert_width, p.zipf);
    };
    Errors errors{"speedup of HP over EP", {}};
    for (const JudgedLayer& hp : layers) {
        if (hp.point.kind != LayerKind::hp) continue;
        for (const JudgedLayer& ep : layers) {
            if (ep.point.kind == LayerKind::hp || key(ep.point) != key(hp.point) ||
                ep.num_ranks != hp.num_ranks)
                continue;
            errors.values.push_back((ep.predicted / hp.predicted) / (ep.measured / hp.measured) -
                                    1.0);
        }
    }
    return errors;
}

}  // namespace

void add_layers(const Scenario& base, const std::vector<GridSample>& samples,
                CalibrationSamples& result) {
    for (const auto& execution : runtime::by_execution(samples)) {
        const GridSample& first = execution.front();
        const Scenario scenario = scenario_of(base, first.point, first.num_ranks);
        add_samples(scenario, scenario.plans.front(), timeline_of(execution, scenario), result);
    }
}

std::vector<JudgedLayer> judge_grid(const Scenario& base, const Profile& profile,
                                    const std::vector<GridSample>& samples) {
    std::vector<JudgedLayer> layers;
    for (const auto& executions : by_layer(samples))
        layers.push_back(judge(base, profile, executions));
    return layers;
}

std::string judged_csv(const std::vector<JudgedLayer>& layers) {
    std::string text =
        "kind,tokens,hidden,heads,head_width,experts,top_k,expert_width,zipf,ranks,pass,phase,"
        "predicted_us,low_us,high_us,measured_us,error\n";
    const auto row = [&](const JudgedLayer& l, std::string_view pass, std::string_view phase,
                         double predicted, double low, double high, double measured) {
        text += fmt::format("{},{},{},{},{:.3f},{:.3f},{:.3f},{:.3f},{:.4f}\n",
                            point_columns(l.point), l.num_ranks, pass, phase, 1e6 * predicted,
                            1e6 * low, 1e6 * high, 1e6 * measured, predicted / measured - 1.0);
    };
    for (const JudgedLayer& l : layers) {
        for (const JudgedPhase& p : l.phases)
            row(l, name(p.pass), name(p.phase), p.predicted, p.low, p.high, p.measured);
        row(l, "both", "layer", l.predicted, l.predicted, l.predicted, l.measured);
        // Bytes in the columns of times.
        row(l, "both", "memory", 1e-6 * l.predicted_bytes, 0.0, 0.0, 1e-6 * l.peak_bytes);
    }
    return text;
}

std::string judged_table(const std::vector<JudgedLayer>& layers) {
    Errors phases{"phases", {}}, hp{"HP layers", {}}, ep{"EP layers", {}}, all{"layers", {}},
        expected{"layers, by expected routing", {}}, memory{"memory peak", {}};
    std::map<std::pair<Pass, Phase>, Errors> by_phase;
    int inside = 0;
    const JudgedLayer* worst = nullptr;
    for (const JudgedLayer& l : layers) {
        for (const JudgedPhase& p : l.phases) {
            const double error = p.predicted / p.measured - 1.0;
            phases.values.push_back(error);
            inside += p.low <= p.measured && p.measured <= p.high;
            Errors& own = by_phase[{p.pass, p.phase}];
            own.name = fmt::format("{} {}", name(p.phase), name(p.pass));
            own.values.push_back(error);
        }
        const double error = l.predicted / l.measured - 1.0;
        (l.point.kind == LayerKind::hp ? hp : ep).values.push_back(error);
        all.values.push_back(error);
        expected.values.push_back(l.expected / l.measured - 1.0);
        memory.values.push_back(l.predicted_bytes / l.peak_bytes - 1.0);
        if (worst == nullptr ||
            std::abs(error) > std::abs(worst->predicted / worst->measured - 1.0))
            worst = &l;
    }
    if (worst == nullptr) return "no layer\n";
    std::string text =
        "| | count | median error | 95th percentile | worst | mean, signed |\n"
        "|---|---|---|---|---|---|\n";
    for (const Errors& e : {phases, all, expected, hp, ep, speedup_errors(layers), memory})
        text += errors_row(e);
    for (const auto& [key, errors] : by_phase) text += errors_row(errors);
    text += fmt::format("\n{:.1f} % of the measured phases lie inside their predicted interval.\n",
                        100.0 * inside / static_cast<double>(phases.values.size()));
    return text + fmt::format("Worst layer: {} ({:+.1f} %).\n", point_columns(worst->point),
                              100 * (worst->predicted / worst->measured - 1.0));
}

}  // namespace headway::cli
