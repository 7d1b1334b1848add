#include "models/report/compare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "models/text/human.hpp"
#include "models/text/text_table.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline report {
namespace {

using Key = std::pair<Pass, Phase>;

struct PerExecution {
    Seconds time, low, high;
    double count = 0.0;
};

// The slowest rank's time of every execution (layer, micro-batch) of a phase, in order of first
// appearance; then the mean over executions, each with its count of equal layers. A phase that runs
// again in an execution (recompute) adds to it.
std::vector<std::pair<Key, PerExecution>> per_execution(const Timeline& timeline) {
    std::map<std::tuple<Pass, Phase, int, int, int>, Span> by_rank;
    std::vector<std::pair<Key, PerExecution>> result;
    for (const Span& span : timeline.spans) {
        const auto [entry, is_new] = by_rank.try_emplace(
            {span.pass, span.phase, span.layer, span.micro_batch, span.rank}, span);
        if (!is_new) {
            entry->second.duration += span.duration;
            entry->second.low += span.low;
            entry->second.high += span.high;
        }
        const Key key{span.pass, span.phase};
        const auto same = [&](const auto& item) { return item.first == key; };
        if (std::none_of(result.begin(), result.end(), same)) result.push_back({key, {}});
    }
    std::map<std::tuple<Pass, Phase, int, int>, const Span*> slowest;
    for (const auto& entry : by_rank) {
        const Span& span = entry.second;
        const Span*& most = slowest[{span.pass, span.phase, span.layer, span.micro_batch}];
        if (most == nullptr || most->duration < span.duration) most = &span;
    }
    for (auto& [key, sum] : result) {
        auto it = slowest.lower_bound({key.first, key.second, -2, 0});
        for (; it != slowest.end(); ++it) {
            const Span& span = *it->second;
            if (Key{span.pass, span.phase} != key) break;
            sum.count += span.count;
            sum.time += static_cast<double>(span.count) * span.duration;
            sum.low += static_cast<double>(span.count) * span.low;
            sum.high += static_cast<double>(span.count) * span.high;
        }
        sum.time = sum.time / sum.count;
        sum.low = sum.low / sum.count;
        sum.high = sum.high / sum.count;
    }
    return result;
}

std::string label(Key key) {
    return fmt::format("{} {}", name(key.second), name(key.first));
}

const PerExecution* find(const std::vector<std::pair<Key, PerExecution>>& items, Key key) {
    for (const auto& [other, value] : items) {
        if (other == key) return &value;
    }
    return nullptr;
}

void add_to_pass(std::vector<PassComparison>& passes, const PhaseComparison& phase) {
    auto it = std::find_if(passes.begin(), passes.end(),
                           [&](const PassComparison& p) { return p.pass == phase.pass; });
    if (it == passes.end()) it = passes.insert(passes.end(), {.pass = phase.pass});
    it->predicted += phase.predicted;
    it->measured += phase.measured;
}

}  // namespace

double Comparison::worst_error() const {
    double worst = 0.0;
    for (const PhaseComparison& phase : phases) {
        if (std::abs(phase.error()) > std::abs(worst)) worst = phase.error();
    }
    return worst;
}

Comparison compare(const Timeline& predicted, const Timeline& measured) {
    const auto ours = per_execution(predicted);
    const auto theirs = per_execution(measured);
    Comparison result{.plan = measured.plan};
    for (const auto& [key, value] : theirs) {
        const PerExecution* mine = find(ours, key);
        if (mine == nullptr) {
            result.only_measured.push_back(label(key));
            continue;
        }
        result.phases.push_back({.pass = key.first,
                                 .phase = key.second,
                                 .predicted = mine->time,
                                 .low = mine->low,
                                 .high = mine->high,
                                 .measured = value.time});
        add_to_pass(result.passes, result.phases.back());
    }
    for (const auto& [key, value] : ours) {
        if (find(theirs, key) == nullptr) result.only_predicted.push_back(label(key));
    }
    return result;
}

Comparison compare(const Timeline& predicted, const std::vector<Timeline>& runs) {
    std::vector<Comparison> each;
    for (const Timeline& run : runs) each.push_back(compare(predicted, run));
    Comparison result = each.at(0);
    const auto median_over_runs = [&](auto&& time_in) {
        std::vector<Seconds> times;
        for (const Comparison& c : each) times.push_back(time_in(c));
        std::sort(times.begin(), times.end());
        const std::size_t n = times.size();
        return (times[(n - 1) / 2] + times[n / 2]) / 2.0;
    };
    for (const Comparison& c : each) {
        if (c.phases.size() == result.phases.size() && c.passes.size() == result.passes.size())
            continue;
        throw InputError({.where = "the measured runs of plan " + result.plan,
                          .found = "runs of different phases",
                          .accepted = "runs of the same layers"});
    }
    for (std::size_t i = 0; i < result.phases.size(); ++i) {
        result.phases[i].measured =
            median_over_runs([i](const Comparison& c) { return c.phases[i].measured; });
    }
    for (std::size_t i = 0; i < result.passes.size(); ++i) {
        result.passes[i].measured =
            median_over_runs([i](const Comparison& c) { return c.passes[i].measured; });
    }
    return result;
}

std::string to_table(const Comparison& comparison) {
    TextTable table{
        .head = {"phase", "pass", "predicted", "interval", "measured", "error", "inside"},
        .rows = {}};
    for (const PhaseComparison& p : comparison.phases) {
        table.rows.push_back(
            {std::string(name(p.phase)), std::string(name(p.pass)), human(p.predicted),
             fmt::format("{} .. {}", human(p.low), human(p.high)), human(p.measured),
             signed_percent(p.error()), p.inside() ? "yes" : "no"});
    }
    for (const PassComparison& p : comparison.passes) {
        table.rows.push_back({"all of these", std::string(name(p.pass)), human(p.predicted), "",
                              human(p.measured), signed_percent(p.error()), ""});
    }
    std::string text = table.to_string();
    const auto list = [&](std::string_view what, const std::vector<std::string>& labels) {
        if (!labels.empty()) text += fmt::format("{}: {}\n", what, fmt::join(labels, ", "));
    };
    list("predicted only", comparison.only_predicted);
    list("measured only", comparison.only_measured);
    return text;
}

}  // namespace headway::inline report
