#include "models/report/prediction_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "models/report/step_order.hpp"
#include "models/text/human.hpp"
#include "models/text/text_table.hpp"

namespace headway::inline report {
namespace {

using Plans = std::span<const PlanPrediction>;

constexpr std::size_t kNameWidth = 13;     // of a plan above its column
constexpr std::size_t kRowNameWidth = 20;  // of a plan before its row
constexpr std::size_t kLabelWidth = 36;    // of memory items
constexpr double kBriefShare = 0.01;       // phases below this share of every step are summed up
constexpr double kBriefTraffic = 0.001;    // communication is what plans differ in: shown sooner

// Clipped; those that would read alike end in their number.
std::vector<std::string> plan_labels(Plans plans, std::size_t width) {
    std::map<std::string, int> count;
    for (const PlanPrediction& plan : plans) ++count[clipped(plan.name, width)];
    std::vector<std::string> labels;
    for (const PlanPrediction& plan : plans) {
        std::string label = clipped(plan.name, width);
        if (count[label] > 1) {
            const std::string number = fmt::format("~{}", labels.size() + 1);
            label = plan.name.substr(0, width - number.size()) + number;
        }
        labels.push_back(std::move(label));
    }
    return labels;
}

std::string interval_cell(const PlanPrediction& plan) {
    return fmt::format("{:+.0f} {:+.0f} %", 100.0 * (plan.step_interval.low / plan.step - 1.0),
                       100.0 * (plan.step_interval.high / plan.step - 1.0));
}

std::string memory_cell(const PlanPrediction& plan) {
    if (plan.memory.capacity <= Bytes{}) return human(plan.memory.peak);
    return fmt::format("{} ({:.0f} %)", human(plan.memory.peak),
                       100.0 * (plan.memory.peak / plan.memory.capacity));
}

// Plans down, results across.
std::string summary(const Prediction& prediction) {
    TextTable table{
        .head = {"plan", "step", "interval", "speedup", "tok/s/GPU", "TFLOP/s/GPU", "memory"},
        .rows = {}};
    const std::vector<std::string> labels = plan_labels(prediction.plans, kRowNameWidth);
    for (std::size_t i = 0; i < prediction.plans.size(); ++i) {
        const PlanPrediction& plan = prediction.plans[i];
        const std::string mark = plan.name == prediction.baseline ? " *" : "";
        table.rows.push_back(
            {labels[i] + mark, human(plan.step), interval_cell(plan),
             fmt::format("{:.2f}x", plan.speedup), grouped(plan.tokens_per_second_per_gpu),
             significant(plan.model_flop_rate_per_gpu.in(TFLOP / second)), memory_cell(plan)});
    }
    return table.to_string();
}

std::vector<std::string> plan_heads(std::string first, Plans plans) {
    std::vector<std::string> head = {std::move(first)};
    for (std::string& label : plan_labels(plans, kNameWidth)) head.push_back(std::move(label));
    return head;
}

// What is computed by hand otherwise.
std::string totals(Plans plans) {
    TextTable table{.head = plan_heads("in all", plans), .rows = {}};
    const auto add = [&](std::string label, auto&& cell) {
        std::vector<std::string> row = {std::move(label)};
        for (const PlanPrediction& plan : plans) row.push_back(cell(plan));
        table.rows.push_back(std::move(row));
    };
    using Plan = PlanPrediction;
    add("  tokens/s", [](const Plan& p) { return grouped(p.tokens_per_second()); });
    add("  tokens a day", [](const Plan& p) { return human_count(p.tokens_per_day()); });
    add("  GPU h for 10^12 tokens",
        [](const Plan& p) { return grouped(p.gpu_hours_per_trillion_tokens()); });
    add("  MFU", [](const Plan& p) { return significant(100.0 * p.mfu()) + " %"; });
    if (std::ranges::any_of(plans, [](const Plan& p) { return p.launch_wait > Seconds{}; }))
        add("  waits for launches", [](const Plan& p) {
            return fmt::format("{} ({:.0f} %)", human(p.launch_wait),
                               100.0 * (p.launch_wait / p.step));
        });
    add("  parameters", [](const Plan& p) { return human_count(p.parameters); });
    add("  active a token", [](const Plan& p) { return human_count(p.active_parameters); });
    return table.to_string();
}

// Plans whose step cannot be told from the baseline's; broken where a line would be too long.
std::string undecided_line(const Prediction& prediction) {
    constexpr std::size_t kColumns = 100;
    std::string text,
        line = fmt::format("undecided against {}, the difference is within the noise:",
                           clipped(prediction.baseline, kRowNameWidth));
    bool any = false;
    for (const PlanPrediction& plan : prediction.plans) {
        if (!plan.undecided) continue;
        const std::string name = (any ? ", " : " ") + clipped(plan.name, kRowNameWidth);
        if (line.size() + name.size() >= kColumns) {
            text += line + (any ? ",\n" : "\n");
            line = "  " + clipped(plan.name, kRowNameWidth);
        } else {
            line += name;
        }
        any = true;
    }
    return any ? text + line + "\n" : "";
}

std::string rival_lines(const Prediction& prediction) {
    if (!prediction.rival) return "";
    const Rival& rival = *prediction.rival;
    std::string text = fmt::format("\nagainst {} of {}, {} tokens/s{}:\n", rival.plan,
                                   rival.scenario, grouped(rival.tokens_per_second),
                                   rival.feasible ? "" : " (does not fit into memory)");
    for (const Rival::Answer& answer : rival.answers)
        text +=
            fmt::format("  {}: {:.2f}x{}\n", answer.plan, answer.speedup,
                        answer.undecided ? ", undecided: the difference is within the noise" : "");
    return text;
}

std::string size_line(const StepSize& size) {
    return fmt::format("a step: {} sequences of {} = {} tokens on {} ranks\n",
                       grouped(static_cast<double>(size.sequences)), size.sequence_length,
                       grouped(static_cast<double>(size.tokens())), size.num_ranks);
}

// In every plan and pass, so that forward and backward show the same phases.
bool is_small(Plans plans, Phase phase) {
    const double share = is_communication(phase) ? kBriefTraffic : kBriefShare;
    return std::all_of(plans.begin(), plans.end(), [&](const PlanPrediction& plan) {
        return std::all_of(plan.phases.begin(), plan.phases.end(), [&](const PhaseCost& cost) {
            return cost.phase != phase || cost.time < share * plan.step;
        });
    });
}

std::string phase_cell(const PlanPrediction& plan, PhaseKey key, Detail detail) {
    const PhaseCost* cost = find_phase(plan, key);
    if (cost == nullptr) return "-";
    if (detail == Detail::brief || cost->hidden <= Seconds{}) return human(cost->time);
    return fmt::format("{} +{}", human(cost->time), human(cost->hidden));
}

void add_sum(TextTable& table, std::string label, Plans plans,
             const std::vector<PhaseKey>& phases) {
    std::vector<std::string> row = {std::move(label)};
    for (const PlanPrediction& plan : plans) {
        Seconds sum;
        for (const PhaseKey& key : phases) {
            const PhaseCost* cost = find_phase(plan, key);
            if (cost != nullptr) sum += cost->time;
        }
        row.push_back(human(sum));
    }
    table.rows.push_back(std::move(row));
}

// Phases down, plans across, pass by pass; exposed time in the step.
std::string phases(Plans plans, const std::vector<PhaseKey>& order, Detail detail) {
    TextTable table{.head = plan_heads("phase (time in the step)", plans), .rows = {}};
    for (const Pass pass : {Pass::forward, Pass::backward, Pass::update}) {
        std::vector<PhaseKey> all, rest;
        for (const PhaseKey& key : order) {
            if (key.first == pass) all.push_back(key);
        }
        if (all.empty()) continue;
        add_sum(table, std::string(name(pass)), plans, all);
        for (const PhaseKey& key : all) {
            if (detail == Detail::brief && is_small(plans, key.second)) {
                rest.push_back(key);
                continue;
            }
            std::vector<std::string> row = {fmt::format("  {}", name(key.second))};
            for (const auto& plan : plans) row.push_back(phase_cell(plan, key, detail));
            table.rows.push_back(std::move(row));
        }
        if (!rest.empty()) add_sum(table, "  others", plans, rest);
    }
    return table.to_string();
}

// Time, and off-rank bytes of the forward pass, of one MoE layer.
std::string moe_layer(Plans plans) {
    TextTable table{.head = plan_heads("one MoE layer", plans), .rows = {}};
    const auto add = [&](std::string label, auto&& cell) {
        std::vector<std::string> row = {std::move(label)};
        for (const PlanPrediction& plan : plans) row.push_back(cell(plan, plan.traffic));
        table.rows.push_back(std::move(row));
    };
    using Plan = PlanPrediction;
    using Traffic = PlanTraffic;
    add("  forward", [](const Plan& p, const Traffic&) { return human(p.moe_forward); });
    add("  backward", [](const Plan& p, const Traffic&) { return human(p.moe_backward); });
    add("  sent, mean rank", [](const Plan&, const Traffic& t) { return human(t.sent_mean); });
    add("  sent, busiest rank", [](const Plan&, const Traffic& t) { return human(t.sent_max); });
    for (std::size_t i = 0; i < static_cast<std::size_t>(kNumPathClasses); ++i) {
        const auto carries = [&](const auto& plan) { return plan.traffic.by_path[i] > Bytes{}; };
        if (i == 0 || std::none_of(plans.begin(), plans.end(), carries)) continue;
        add(fmt::format("  sent over {}", kPathClassNames[i]),
            [&](const Plan&, const Traffic& t) { return human(t.by_path[i]); });
    }
    add("  received, max / mean",
        [](const Plan&, const Traffic& t) { return fmt::format("{:.3f}", t.imbalance); });
    return table.to_string();
}

// How the steps of plans with a pipeline pass over its ranks; nothing without one.
std::string pipelines(Plans plans) {
    TextTable table{.head = plan_heads("pipeline", plans), .rows = {}};
    bool any = false;
    const auto add = [&](std::string label, auto&& cell) {
        std::vector<std::string> row = {std::move(label)};
        for (const PlanPrediction& plan : plans) {
            any = any || plan.pipeline;
            row.push_back(plan.pipeline ? cell(*plan.pipeline, plan) : std::string("-"));
        }
        table.rows.push_back(std::move(row));
    };
    using Plan = PlanPrediction;
    using Pipeline = PlanPipeline;
    const auto shown = [](const Pipeline& p) { return p.ranks[p.shown]; };
    add("  schedule", [](const Pipeline& p, const Plan&) { return p.schedule; });
    add("  ranks x chunks", [](const Pipeline& p, const Plan&) {
        return fmt::format("{} x {}", p.ranks.size(), p.chunks);
    });
    add("  micro-batches",
        [](const Pipeline& p, const Plan&) { return std::to_string(p.micro_batches); });
    add("  a message", [](const Pipeline& p, const Plan&) {
        return p.path.empty() ? std::string("-") : fmt::format("{} {}", human(p.hop), p.path);
    });
    add("  busiest rank",
        [](const Pipeline& p, const Plan&) { return fmt::format("{}", p.shown); });
    add("  its bubble", [&](const Pipeline& p, const Plan& plan) {
        return fmt::format("{} %", significant(100.0 * (shown(p).bubble / plan.step)));
    });
    add("  its wait for messages", [&](const Pipeline& p, const Plan& plan) {
        return fmt::format("{} %", significant(100.0 * (shown(p).message_wait / plan.step)));
    });
    return any ? "\n" + table.to_string() : "";
}

std::string memory_items(Plans plans) {
    TextTable table{.head = plan_heads("memory of the busiest rank", plans), .rows = {}};
    std::vector<std::string> names;
    for (const PlanPrediction& plan : plans) {
        for (const MemoryItem& item : plan.memory.items) {
            if (std::find(names.begin(), names.end(), item.name) == names.end()) {
                names.push_back(item.name);
            }
        }
    }
    for (const std::string& item_name : names) {
        std::vector<std::string> row = {clipped("  " + item_name, kLabelWidth)};
        for (const PlanPrediction& plan : plans) {
            const auto& items = plan.memory.items;
            const auto it = std::find_if(items.begin(), items.end(),
                                         [&](const auto& item) { return item.name == item_name; });
            row.push_back(it == items.end() ? "-" : human(it->bytes));
        }
        table.rows.push_back(std::move(row));
    }
    return table.to_string();
}

// What plans that offload have in host memory.
std::string host_memory(Plans plans) {
    const auto offloads = [](const PlanPrediction& p) { return p.memory.host.node > Bytes{}; };
    if (std::ranges::none_of(plans, offloads)) return "";
    TextTable table{.head = plan_heads("host memory of a node", plans), .rows = {{"  in all"}}};
    std::vector<std::string> names;
    for (const PlanPrediction& plan : plans) {
        const HostMemory& host = plan.memory.host;
        table.rows[0].push_back(offloads(plan) ? human(host.node) : "-");
        for (const MemoryItem& item : host.items)
            if (std::ranges::find(names, item.name) == names.end()) names.push_back(item.name);
    }
    for (const std::string& name : names) {
        std::vector<std::string> row = {"  of a rank: " + name};
        for (const PlanPrediction& plan : plans) {
            const auto& items = plan.memory.host.items;
            const auto it = std::ranges::find(items, name, &MemoryItem::name);
            row.push_back(it == items.end() ? "-" : human(it->bytes));
        }
        table.rows.push_back(std::move(row));
    }
    return "\n" + table.to_string();
}

// What the stages of a pipeline need, by kind of item.
std::string stage_memory(const PlanPrediction& plan) {
    const PlanMemory& memory = plan.memory;
    if (memory.stages.size() < 2) return "";
    TextTable table{.head = {fmt::format("stage of {}", clipped(plan.name, kRowNameWidth)),
                             "states", "activations", "other", "reserve", "peak"},
                    .rows = {}};
    for (std::size_t i = 0; i < memory.stages.size(); ++i) {
        const StageMemory& stage = memory.stages[i];
        Bytes states, activations;
        for (const MemoryItem& item : stage.items) {
            const bool kept = item.name.starts_with("activations");
            const bool state = item.name.starts_with("parameters") ||
                               item.name.starts_with("gradients") ||
                               item.name.starts_with("optimizer");
            if (kept) activations += item.bytes;
            if (state) states += item.bytes;
        }
        const bool worst = static_cast<int>(i) == memory.stage;
        table.rows.push_back({fmt::format("  {}{}", i, worst ? " worst" : ""), human(states),
                              human(activations), human(stage.allocated - states - activations),
                              human(stage.peak - stage.allocated), human(stage.peak)});
    }
    return "\n" + table.to_string();
}

std::string remarks(const Prediction& prediction, Detail detail) {
    std::string text;
    std::set<std::string> warnings;
    for (const PlanPrediction& plan : prediction.plans) {
        warnings.insert(plan.warnings.begin(), plan.warnings.end());
        if (!plan.feasible) {
            text += fmt::format("infeasible: {}: {}\n", plan.name, plan.infeasible_because);
        }
    }
    if (detail == Detail::verbose) {
        for (const std::string& warning : warnings) text += "warning: " + warning + "\n";
        for (const std::string& note : prediction.notes) text += "note: " + note + "\n";
    } else if (warnings.size() + prediction.notes.size() > 0) {
        text += fmt::format("warnings: {}, notes: {} (--verbose shows them)\n", warnings.size(),
                            prediction.notes.size());
    }
    return text;
}

}  // namespace

std::string prediction_to_table(const Prediction& prediction, Detail detail) {
    std::string text =
        fmt::format("{}: one training step (profile {}, seed {}, headway {})\n\n",
                    prediction.scenario, prediction.profile, prediction.seed, prediction.version);
    text +=
        summary(prediction) + "* baseline; memory: peak of the busiest rank (share of its GPU)\n";
    text += undecided_line(prediction) + size_line(prediction.size) + rival_lines(prediction);
    const Plans all(prediction.plans);
    const auto order = step_order(prediction.plans);
    const std::size_t abreast = detail == Detail::brief ? 5 : 4;  // plans that fit 100 columns
    for (std::size_t i = 0; i < all.size(); i += abreast) {
        const Plans some = all.subspan(i, std::min(abreast, all.size() - i));
        text += "\n" + totals(some) + "\n" + phases(some, order, detail) + pipelines(some) + "\n" +
                moe_layer(some);
        if (detail == Detail::brief) continue;
        text += "\n" + memory_items(some) + host_memory(some);
        for (const PlanPrediction& plan : some) text += stage_memory(plan);
    }
    const std::string more = remarks(prediction, detail);
    return more.empty() ? text : text + "\n" + more;
}

}  // namespace headway::inline report
