#include "models/trace/trace_tables.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <utility>

#include "models/text/human.hpp"
#include "models/text/text_table.hpp"

namespace headway::inline trace {
namespace {

constexpr std::size_t kMostLost = 8;  // names of what was not joined that are shown

using Row = std::vector<std::string>;

// The mean over ranks and steps of something of a step.
template <class Value>
Seconds mean_of(const std::vector<RankTrace>& ranks, Value value) {
    double sum = 0.0, number = 0.0;
    for (const RankTrace& rank : ranks) {
        for (const GpuStep& step : rank.steps) {
            sum += static_cast<double>(value(step));
            number += 1.0;
        }
    }
    return sum / number * ns;
}

template <class Value>
Seconds mean_of_phase(const TraceTables& t, const PhaseKey& key, Value value) {
    return mean_of(t.ranks, [&](const GpuStep& step) -> Nanoseconds {
        const auto found = step.phases.find(key);
        return found == step.phases.end() ? 0 : value(found->second);
    });
}

std::string joined_by(const TraceTables& t, const PhaseKey& key) {
    std::array<Nanoseconds, kHowNames.size()> sums{};
    for (const RankTrace& rank : t.ranks) {
        for (const GpuStep& step : rank.steps) {
            const auto found = step.phases.find(key);
            if (found == step.phases.end()) continue;
            for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += found->second.by_how[i];
        }
    }
    return std::string(
        kHowNames[static_cast<std::size_t>(std::ranges::max_element(sums) - sums.begin())]);
}

Seconds mean_rank(const TraceTables& t, const PhaseKey& key) {
    Seconds sum;
    for (const Span& span : t.measured.spans) {
        if (PhaseKey{span.pass, span.phase} == key) sum += span.duration;
    }
    return sum / static_cast<double>(t.ranks.size());
}

int kernels_of(const TraceTables& t, const PhaseKey& key) {
    const auto& phases = t.ranks.front().steps.front().phases;
    const auto found = phases.find(key);
    return found == phases.end() ? 0 : found->second.kernels;
}

std::string phase_table(const TraceTables& t) {
    const bool several = t.ranks.size() > 1;
    TextTable table{.head = {"phase", "pass", "predicted", "interval", "measured"}, .rows = {}};
    if (several) table.head.emplace_back("mean rank");
    for (const char* column : {"error", "inside", "kernels", "joined by"})
        table.head.emplace_back(column);
    const auto add = [&](Row row, const std::string& mean, Row rest) {
        if (several) row.push_back(mean);
        row.insert(row.end(), rest.begin(), rest.end());
        table.rows.push_back(std::move(row));
    };
    for (const PhaseComparison& p : t.comparison.phases) {
        const PhaseKey key{p.pass, p.phase};
        const bool known = p.high > Seconds{};
        add({std::string(name(p.phase)), std::string(name(p.pass)), human(p.predicted),
             known ? fmt::format("{} .. {}", human(p.low), human(p.high)) : "", human(p.measured)},
            human(mean_rank(t, key)),
            {signed_percent(p.error()),
             !known       ? ""
             : p.inside() ? "yes"
                          : "no",
             fmt::to_string(kernels_of(t, key)), joined_by(t, key)});
    }
    for (const PassComparison& p : t.comparison.passes) {
        add({"all of these", std::string(name(p.pass)), human(p.predicted), "", human(p.measured)},
            "", {signed_percent(p.error()), "", "", ""});
    }
    return table.to_string();
}

std::string lists(const Comparison& comparison) {
    std::string text;
    if (!comparison.only_predicted.empty())
        text += fmt::format("predicted only: {}\n", fmt::join(comparison.only_predicted, ", "));
    if (!comparison.only_measured.empty())
        text += fmt::format("measured only: {}\n", fmt::join(comparison.only_measured, ", "));
    return text;
}

std::string exchange_table(const TraceTables& t) {
    TextTable table{
        .head = {"exchange", "pass", "bytes predicted", "sent", "error", "exposed predicted",
                 "measured", "hidden predicted", "measured", "waiting"},
        .rows = {}};
    for (const PhaseComparison& p : t.comparison.phases) {
        if (!is_communication(p.phase)) continue;
        const PhaseKey key{p.pass, p.phase};
        const PhaseCost& cost = *find_phase(t.plan, key);
        Bytes sent;
        for (const Span& span : t.measured.spans) {
            if (PhaseKey{span.pass, span.phase} == key) sent = max(sent, span.bytes);
        }
        const Seconds all = mean_of_phase(t, key, [](const auto&x) { return x.communication; }),
                      exposed = mean_of_phase(t, key, [](const auto&x) { return x.exposed; });
        const auto wait = t.waiting.find(key);
        const bool has_sizes = sent > Bytes{} && cost.bytes > Bytes{};
        table.rows.push_back(
            {std::string(name(p.phase)), std::string(name(p.pass)), human(cost.bytes), human(sent),
             has_sizes ? signed_percent(cost.bytes / sent - 1.0) : "", human(cost.time),
             human(exposed), human(cost.hidden), human(all - exposed),
             wait == t.waiting.end() ? "" : human(wait->second)});
    }
    return table.rows.empty() ? "" : table.to_string() + "\n";
}

std::string step_table(const TraceTables& t) {
    Seconds compute, exposed, hidden, idle = t.plan.launch_wait, waiting;
    for (const PhaseCost& cost : t.plan.phases) {
        if (cost.phase == Phase::pipeline_bubble)
            idle += cost.time;
        else
            (is_communication(cost.phase) ? exposed : compute) += cost.time;
        hidden += cost.hidden;
    }
    for (const auto& [key, wait] : t.waiting) waiting += wait;
    const auto measured = [&](auto value) { return mean_of(t.ranks, value); };
    TextTable table{.head = {"a step of the GPU", "predicted", "measured"}, .rows = {}};
    const auto add = [&](const char* what, const std::string& ours, Seconds theirs) {
        table.rows.push_back({what, ours, human(theirs)});
    };
    add("whole", human(t.plan.step), measured([](const GpuStep& s) { return s.duration(); }));
    add("computes", human(compute), measured([](const GpuStep& s) { return s.busy - s.exposed; }));
    add("exchanges, exposed", human(exposed), measured([](const GpuStep& s) { return s.exposed; }));
    add("exchanges, hidden", human(hidden), measured([](const GpuStep& s) { return s.hidden; }));
    if (t.ranks.size() > 1) add("of these, waiting for peers", "", waiting);
    add("idle", human(idle), measured([](const GpuStep& s) { return s.duration() - s.busy; }));
    return table.to_string();
}

std::string lost_text(const TraceTables& t) {
    std::map<std::string, std::pair<Nanoseconds, int>> lost;
    std::array<Nanoseconds, kHowNames.size()> told{};
    Nanoseconds all = 0;
    int num_steps = 0, num_lost = 0;
    for (const RankTrace& rank : t.ranks) {
        for (const GpuStep& step : rank.steps) {
            ++num_steps;
            for (const auto& [kernel, time] : step.lost) {
                lost[kernel].first += time.first;
                lost[kernel].second += time.second;
                all += time.first;
                num_lost += time.second;
                told.back() += time.first;
            }
            for (const auto& [key, phase] : step.phases) {
                all += phase.total();
                for (std::size_t i = 0; i < told.size(); ++i) told[i] += phase.by_how[i];
            }
        }
    }
    const auto share = [&](Nanoseconds time) {
        return 100.0 * static_cast<double>(time) /
               static_cast<double>(std::max(all, Nanoseconds{1}));
    };
    const auto a_step = [&](Nanoseconds time) {
        return human(static_cast<double>(time) / num_steps * ns);
    };
    std::vector<std::string> parts;
    for (std::size_t i = 0; i + 1 < told.size(); ++i) {
        if (told[i] > 0) parts.push_back(fmt::format("{} {:.1f} %", kHowNames[i], share(told[i])));
    }
    std::string text = fmt::format("GPU time joined by: {}\n", fmt::join(parts, ", "));
    if (lost.empty()) return text + "not joined: nothing\n";
    text += fmt::format("not joined: {} a step ({:.1f} %), {} kernels\n", a_step(told.back()),
                        share(told.back()), (num_lost + num_steps - 1) / num_steps);
    std::vector<std::pair<std::string, std::pair<Nanoseconds, int>>> longest(lost.begin(),
                                                                             lost.end());
    std::ranges::stable_sort(
        longest, [](const auto& a, const auto& b) { return a.second.first > b.second.first; });
    for (std::size_t i = 0; i < std::min(kMostLost, longest.size()); ++i)
        text += fmt::format("  {:>8}  {:4.1f} %  {}\n", a_step(longest[i].second.first),
                            share(longest[i].second.first), clipped(longest[i].first, 80));
    return text;
}

std::string head(const TraceTables& t) {
    const RankTrace& first = t.ranks.front();
    std::vector<int> numbers;
    for (const RankTrace& rank : t.ranks) numbers.push_back(rank.rank);
    std::ranges::sort(numbers);
    const int begin = first.steps.front().number, end = first.steps.back().number;
    const std::string steps =
        begin == end ? fmt::to_string(begin) : fmt::format("{} to {}", begin, end);
    return fmt::format("plan {}, {}: rank{} {} of {}, ProfilerStep {}; times of a step\n",
                       t.plan.name, first.device.empty() ? "a GPU" : first.device,
                       numbers.size() > 1 ? "s" : "", fmt::join(numbers, ", "), t.plan.num_ranks,
                       steps);
}

}  // namespace

std::string trace_text(const TraceTables& t) {
    return head(t) + phase_table(t) + lists(t.comparison) + "\n" + exchange_table(t) +
           step_table(t) + lost_text(t);
}

}  // namespace headway::inline trace
