#include "cli/lab_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "models/text/csv_text.hpp"
#include "models/text/human.hpp"
#include "models/text/text_table.hpp"

namespace headway::cli {
namespace {

std::string exchange_table(const std::vector<ExchangeRow>& rows) {
    TextTable table{.head = {"exchange", "predicted", "simulated", "measured", "p10", "p90",
                             "predicted off", "simulated off", "link bytes"},
                    .rows = {}};
    for (const ExchangeRow& row : rows) {
        const ThreeTimes& t = row.time;
        table.rows.push_back({row.plan + " " + row.phase, human(t.predicted), human(t.simulated),
                              human(t.measured), human(row.low), human(row.high),
                              signed_percent(t.predicted_error()),
                              signed_percent(t.simulated_error()),
                              fmt::format("{} .. {}", signed_percent(row.links.least_over),
                                          signed_percent(row.links.most_over))});
    }
    return table.to_string();
}

std::string layer_table(const std::vector<LayerRow>& rows) {
    TextTable table{
        .head = {"layer", "predicted", "simulated", "measured", "predicted off", "simulated off"},
        .rows = {}};
    const auto add = [&](const std::string& what, const ThreeTimes& t) {
        table.rows.push_back({what, human(t.predicted), human(t.simulated), human(t.measured),
                              signed_percent(t.predicted_error()),
                              signed_percent(t.simulated_error())});
    };
    for (const LayerRow& row : rows) {
        add(row.plan + " exchanges", row.exchanges);
        add(row.plan + " layer", row.layer);
    }
    return table.to_string();
}

// A plan's times, all of one kind.
struct PlanTimes {
    std::string plan;
    ThreeTimes time;
};

std::vector<PlanTimes> exchanges_by_plan(const std::vector<ExchangeRow>& rows) {
    std::vector<PlanTimes> plans;
    for (const ExchangeRow& row : rows) {
        if (plans.empty() || plans.back().plan != row.plan) plans.push_back({row.plan, {}});
        plans.back().time += row.time;
    }
    return plans;
}

std::string speedups(const std::vector<PlanTimes>& plans, const std::string& baseline,
                     std::string_view what) {
    const auto base = std::ranges::find(plans, baseline, &PlanTimes::plan);
    std::string text;
    for (const PlanTimes& plan : plans) {
        if (base == plans.end() || plan.plan == baseline) continue;
        text += fmt::format(
            "{} of {} over {}: {:.2f}x predicted, {:.2f}x simulated, {:.2f}x "
            "measured\n",
            what, plan.plan, baseline, base->time.predicted / plan.time.predicted,
            base->time.simulated / plan.time.simulated, base->time.measured / plan.time.measured);
    }
    return text;
}

void add_csv_row(std::string& text, const std::string& plan, const std::string& what,
                 const ThreeTimes& time, const std::string& rest) {
    text += fmt::format("{},{},{},{},{},{}\n", csv_field(plan), what, time.predicted.in(second),
                        time.simulated.in(second), time.measured.in(second), rest);
}

}  // namespace

std::string to_table(const LabReport& report) {
    std::string text = report.heading + "\n\n" + exchange_table(report.exchanges);
    text += speedups(exchanges_by_plan(report.exchanges), report.baseline, "exchanges");
    if (!report.layers.empty()) {
        text += "\n" + layer_table(report.layers);
        std::vector<PlanTimes> plans;
        for (const LayerRow& row : report.layers) plans.push_back({row.plan, row.layer});
        text += speedups(plans, report.baseline, "layers");
    }
    text += "\n";
    for (const std::string& sentence : report.not_emulated)
        text += "not emulated: " + sentence + "\n";
    return text;
}

std::string to_csv(const LabReport& report) {
    std::string text =
        "plan,what,predicted_s,simulated_s,measured_s,low_s,high_s,link_bytes_low,"
        "link_bytes_high\n";
    for (const ExchangeRow& row : report.exchanges) {
        add_csv_row(text, row.plan, row.phase, row.time,
                    fmt::format("{},{},{},{}", row.low.in(second), row.high.in(second),
                                row.links.least_over, row.links.most_over));
    }
    for (const LayerRow& row : report.layers) {
        add_csv_row(text, row.plan, "layer_exchanges", row.exchanges, ",,,");
        add_csv_row(text, row.plan, "layer", row.layer,
                    fmt::format("{},{},,", row.low.in(second), row.high.in(second)));
    }
    return text;
}

LabVerdict judge(const LabReport& report, double tolerance) {
    double worst = 0.0;
    const auto add = [&](const ThreeTimes& t) {
        worst = std::max({worst, std::abs(t.predicted_error()), std::abs(t.simulated_error())});
    };
    for (const ExchangeRow& row : report.exchanges) add(row.time);
    for (const LayerRow& row : report.layers) add(row.layer);
    const bool timely = worst <= tolerance,
               counted = std::ranges::all_of(
                   report.exchanges, [](const ExchangeRow&row) { return row.links.passed; });
    return {.passed = timely && counted,
            .text = fmt::format(
                "times: worst error {:.1f} %: {}; bytes of links: {}\n", 100.0 * worst,
                timely ? "within tolerance" : "BEYOND TOLERANCE",
                counted ? "as simulated, and headers" : "NOT AS SIMULATED AND HEADERS")};
}

}  // namespace headway::cli
