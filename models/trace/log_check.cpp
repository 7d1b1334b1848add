#include "models/trace/log_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string_view>
#include <vector>

#include "models/report/compare.hpp"
#include "models/text/human.hpp"
#include "models/text/text_table.hpp"
#include "models/vocab/quantile.hpp"

namespace headway::inline trace {
namespace {

// Counts of FLOPs that agree to this are one count: a log rounds to 0.1 TFLOP/s.
constexpr double kSameCount = 0.01;

struct Spread {
    double low, median, high;
};

Spread spread_of(std::vector<double> values) {
    return {quantile(values, 0.1), quantile(values, 0.5), quantile(values, 0.9)};
}

// Those of the stage's ranks that the log has a line of; a line without a rank may be any stage's.
std::vector<LoggedMemory> of_stage(const JobLog& log, std::size_t stage, int ranks_of_stage) {
    std::vector<LoggedMemory> own;
    for (const LoggedMemory& memory : log.memory) {
        if (memory.rank >= 0 && static_cast<std::size_t>(memory.rank / ranks_of_stage) == stage)
            own.push_back(memory);
    }
    return own;
}

void add_memory(std::vector<std::vector<std::string>>& rows, const std::string& label,
                Bytes predicted, const std::vector<LoggedMemory>& ranks) {
    const auto fullest = std::ranges::max_element(ranks, {}, &LoggedMemory::allocated);
    rows.push_back({label, human(predicted), "", human(fullest->allocated), "",
                    signed_percent(predicted / fullest->allocated - 1.0), ""});
}

void add_memory(std::vector<std::vector<std::string>>& rows, const PlanPrediction& plan,
                const JobLog& log) {
    const auto& stages = plan.memory.stages;
    const bool has_stages = stages.size() > 1;
    const int ranks =
        has_stages ? plan.num_ranks / static_cast<int>(stages.size()) : plan.num_ranks;
    for (std::size_t stage = 0; stage < (has_stages ? stages.size() : 1); ++stage) {
        const std::vector<LoggedMemory> own = of_stage(log, stage, ranks);
        if (own.empty()) continue;
        const std::string label = fmt::format(
            "memory{}, {} of {} ranks",
            has_stages ? fmt::format(" of stage {}", stage) : std::string(), own.size(), ranks);
        add_memory(rows, label, has_stages ? stages[stage].allocated : plan.memory.allocated, own);
    }
    std::vector<LoggedMemory> nameless;
    for (const LoggedMemory& m : log.memory) {
        if (m.rank < 0) nameless.push_back(m);
    }
    if (!nameless.empty())
        add_memory(rows, "memory, fullest rank", plan.memory.allocated, nameless);
}

Bytes states_of(const std::vector<MemoryItem>& items) {
    Bytes sum;
    for (const MemoryItem& item : items) {
        for (const std::string_view name : {"parameters", "gradients", "optimizer"})
            if (item.name.starts_with(name)) sum += item.bytes;
    }
    return sum;
}

void add_states(std::vector<std::vector<std::string>>& rows, const PlanPrediction& plan,
                const JobLog& log) {
    if (!log.weights_and_optimizer) return;
    Bytes predicted = states_of(plan.memory.items);
    for (const StageMemory& stage : plan.memory.stages)
        predicted = max(predicted, states_of(stage.items));
    rows.push_back({"weights and optimizer, by the job's formula", human(predicted), "",
                    human(*log.weights_and_optimizer), "",
                    signed_percent(predicted / *log.weights_and_optimizer - 1.0), ""});
}

std::string flops_sentence(const PlanPrediction& plan, const std::vector<LoggedIteration>& lines) {
    std::vector<double> counts;
    for (const LoggedIteration& line : lines) {
        if (line.rate.in(flop / second) > 0.0) counts.push_back((line.rate * line.time).in(flop));
    }
    if (counts.empty()) return "the log has no FLOP rate (--log-throughput)\n";
    const Flops theirs = quantile(counts, 0.5) * flop,
                ours = plan.model_flop_rate_per_gpu * plan.step;
    const std::string both = fmt::format(
        "model FLOPs of a step and GPU: headway counts {}, the job {}", human(ours), human(theirs));
    const double difference = ours / theirs - 1.0;
    if (std::abs(difference) <= kSameCount) return both + "\n";
    return fmt::format("{}: {}; the rates differ by that much at equal step time\n", both,
                       signed_percent(difference));
}

std::string lines_sentence(const JobLog& log, const SteadyIterations& steady) {
    std::string text =
        fmt::format("{} of {} iteration lines", steady.lines.size(), log.iterations.size());
    const int runs = log.iterations.back().run + 1;
    if (runs > 1) text += fmt::format(" of {} runs", runs);
    if (steady.warm_up > 0) text += fmt::format("; {} of warm-up left out", steady.warm_up);
    if (steady.skipped > 0) text += fmt::format("; {} with skipped updates", steady.skipped);
    return text + "\n";
}

std::string memory_sentence(const JobLog& log) {
    if (log.memory.empty()) return "the log has no line of the allocator's memory\n";
    std::int64_t after = 0;
    for (const LoggedMemory& memory : log.memory) after = std::max(after, memory.after);
    return fmt::format(
        "memory: tensors of the fullest rank, predicted, and its allocator's peak after {} "
        "iteration{}\n",
        after, after == 1 ? "" : "s");
}

}  // namespace

LogCheck check_log(const PlanPrediction& plan, const JobLog& log, const SteadyIterations& steady) {
    std::vector<double> times, rates;
    for (const LoggedIteration& line : steady.lines) {
        times.push_back(line.time.in(second));
        const double rate = line.rate.in(TFLOP / second);
        if (rate > 0.0) rates.push_back(rate);
    }
    const Spread time = spread_of(times);
    LogCheck check;
    check.step_error = signed_error(plan.step, time.median * second);
    const Interval& interval = plan.step_interval;
    const auto is_inside = [](bool inside) { return std::string(inside ? "yes" : "no"); };
    TextTable table{
        .head = {"of a step", "predicted", "interval", "measured", "p10 .. p90", "error", "inside"},
        .rows = {}};
    table.rows.push_back(
        {"step time", human(plan.step),
         fmt::format("{} .. {}", human(interval.low), human(interval.high)),
         human(time.median * second),
         fmt::format("{} .. {}", human(time.low * second), human(time.high * second)),
         signed_percent(check.step_error),
         is_inside(interval.low <= time.median * second && time.median * second <= interval.high)});
    if (!rates.empty()) {
        const Spread rate = spread_of(rates);
        const double ours = plan.model_flop_rate_per_gpu.in(TFLOP / second);
        const double low = ours * (plan.step / interval.high),
                     high = ours * (plan.step / interval.low);
        table.rows.push_back(
            {"TFLOP/s a GPU", significant(ours),
             fmt::format("{} .. {}", significant(low), significant(high)), significant(rate.median),
             fmt::format("{} .. {}", significant(rate.low), significant(rate.high)),
             signed_percent(ours / rate.median - 1.0),
             is_inside(low <= rate.median && rate.median <= high)});
    }
    add_memory(table.rows, plan, log);
    add_states(table.rows, plan, log);
    check.table = table.to_string() + lines_sentence(log, steady) +
                  flops_sentence(plan, steady.lines) + memory_sentence(log);
    return check;
}

}  // namespace headway::inline trace
