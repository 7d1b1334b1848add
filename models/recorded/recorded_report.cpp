#include "models/recorded/recorded_report.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "models/text/human.hpp"
#include "models/text/text_table.hpp"

namespace headway::inline recorded {
namespace {

std::string name_of(const LaidOut& laid, int task) {
    if (task < 0) return "host, behind the last task";
    const RecordedTask& recorded = laid.recording.tasks[static_cast<std::size_t>(task)];
    if (recorded.kind == RecordedKind::compute)
        return recorded.what.empty() ? "kernels" : recorded.what;
    const RecordedGroup& group = laid.recording.groups[static_cast<std::size_t>(recorded.group)];
    return fmt::format("{} {} over {}{}", name(recorded.collective), recorded.what, group.size,
                       group.stride > 1 ? fmt::format(", {} apart", group.stride) : "");
}

}  // namespace

RecordedPrediction predict_program(const LaidOut& laid, const Cluster& cluster,
                                   const Profile& profile) {
    const StreamsRun run = steady_step(laid.timed, laid.program.overlap);
    RecordedPrediction p{.program = laid.recording.name,
                         .cluster = cluster.name,
                         .profile = profile.name,
                         .num_ranks = cluster.num_ranks(),
                         .step = run.end,
                         .interval = interval_of(run.end, laid.sigma),
                         .warnings = laid.warnings,
                         .inferred = laid.recording.inferred};
    std::map<std::string, RecordedPrediction::Part> parts;
    for (std::size_t t = 0; t < laid.timed.size(); ++t) {
        const bool compute = laid.timed[t].stream == Stream::compute;
        RecordedPrediction::Part& part = parts[name_of(laid, laid.replay[t].recorded)];
        part.time += laid.timed[t].time;
        part.exposed += run.exposed[t];
        part.host += run.host[t];
        part.sent += laid.sent[t];
        part.count += laid.replay[t].is_device ? 1 : 0;
        p.host += run.host[t];
        (compute ? p.compute : p.exposed) += run.exposed[t] - run.host[t];
    }
    for (auto& [what, part] : parts) {
        part.what = what;
        p.parts.push_back(part);
    }
    std::ranges::stable_sort(p.parts, std::greater<>(), &RecordedPrediction::Part::exposed);
    const auto slowest = std::ranges::max_element(laid.compute_of_rank);
    const Seconds sum =
        std::accumulate(laid.compute_of_rank.begin(), laid.compute_of_rank.end(), Seconds{});
    p.slowest_rank = static_cast<int>(slowest - laid.compute_of_rank.begin());
    const double ranks = p.num_ranks;
    if (sum > Seconds{}) p.imbalance = ranks * *slowest / sum;
    return p;
}

std::string to_table(const RecordedPrediction& p) {
    std::string text = fmt::format("program {} on {} ({} ranks), profile {}\nstep {}  ({} .. {})\n",
                                   p.program, p.cluster, p.num_ranks, p.profile, human(p.step),
                                   human(p.interval.low), human(p.interval.high));
    if (p.as_recorded)
        text += fmt::format(
            "under Head Parallel: {:.2f} times as fast as recorded, {}, of which kernels {} and "
            "collectives {}\n",
            p.as_recorded->step / p.step, human(p.as_recorded->step), human(p.as_recorded->compute),
            human(p.as_recorded->exposed));
    text += "\n";
    const auto share = [&](Seconds time) {
        return fmt::format("{:.1f} %", p.step > Seconds{} ? 100.0 * (time / p.step) : 0.0);
    };
    TextTable split{.head = {"of the step", "time", "share"}, .rows = {}};
    split.rows.push_back({"kernels", human(p.compute), share(p.compute)});
    split.rows.push_back({"collectives that nothing hides", human(p.exposed), share(p.exposed)});
    split.rows.push_back({"device waits for the host", human(p.host), share(p.host)});
    TextTable table{.head = {"what", "times", "alone", "in the step", "waits for host", "sent"},
                    .rows = {}};
    constexpr std::size_t most = 16;
    for (std::size_t i = 0; i < std::min(most, p.parts.size()); ++i) {
        const RecordedPrediction::Part& part = p.parts[i];
        table.rows.push_back({part.what, std::to_string(part.count), human(part.time),
                              human(part.exposed), human(part.host),
                              part.sent > Bytes{} ? human(part.sent) : ""});
    }
    text += split.to_string() + "\n" + table.to_string();
    if (p.parts.size() > most) text += fmt::format("... {} more\n", p.parts.size() - most);
    if (p.imbalance > 1.001)
        text += fmt::format("\nrank {} computes {:.1f} % longer than the mean\n", p.slowest_rank,
                            100.0 * (p.imbalance - 1.0));
    for (const std::string& warning : p.warnings) text += fmt::format("warning: {}\n", warning);
    return text;
}

std::string to_json(const RecordedPrediction& p) {
    const auto s = [](Seconds time) { return time.in(second); };
    nlohmann::ordered_json json = {
        {"kind", "program_prediction"}, {"program", p.program},
        {"cluster", p.cluster},         {"profile", p.profile},
        {"num_ranks", p.num_ranks},     {"step_s", s(p.step)},
        {"low_s", s(p.interval.low)},   {"high_s", s(p.interval.high)},
        {"compute_s", s(p.compute)},    {"exposed_s", s(p.exposed)},
        {"host_s", s(p.host)},          {"slowest_rank", p.slowest_rank},
        {"imbalance", p.imbalance},     {"parts", nlohmann::ordered_json::array()},
        {"warnings", p.warnings},       {"inferred", p.inferred}};
    if (p.as_recorded)
        json["as_recorded"] = {{"step_s", s(p.as_recorded->step)},
                               {"compute_s", s(p.as_recorded->compute)},
                               {"exposed_s", s(p.as_recorded->exposed)}};
    for (const RecordedPrediction::Part& part : p.parts)
        json["parts"].push_back({{"what", part.what},
                                 {"times", part.count},
                                 {"alone_s", s(part.time)},
                                 {"in_step_s", s(part.exposed)},
                                 {"host_s", s(part.host)},
                                 {"sent_bytes", part.sent.in(byte)}});
    return json.dump(2) + "\n";
}

std::string explain_task(const LaidOut& laid, int number) {
    const RecordedTask& task = laid.recording.tasks[static_cast<std::size_t>(number)];
    std::string text = fmt::format("task {}: {}\n", number, name_of(laid, number));
    const auto line = [&](const std::string& label, const std::string& value) {
        text += fmt::format("  {:<26}{}\n", label, value);
    };
    line("host", fmt::format("{} to enqueue it{}", human(task.host),
                             task.host_waits ? ", waits for its end" : ""));
    if (!task.after.empty()) line("after", fmt::format("{}", fmt::join(task.after, ", ")));
    for (std::size_t t = 0; t < laid.replay.size(); ++t) {
        if (laid.replay[t].recorded != number || !laid.replay[t].is_device) continue;
        const Price& price = laid.prices[t];
        if (task.kind == RecordedKind::collective) {
            line("price", fmt::format("{}, +- {} (one standard deviation of its curve)",
                                      human(price.time), human(price.sigma * second)));
            line("slowest link", std::string(name(price.bottleneck)));
            line("sent, busiest rank", human(laid.sent[t]));
        } else {
            line("recorded", fmt::format("{} of {} kernels", human(task.device), task.kernels));
            line("here, slowest rank", human(price.time));
        }
    }
    if (task.kind == RecordedKind::compute) {
        line("lead", fmt::format("{}: so long the host needs ahead of it", human(task.lead)));
        if (task.flops > Flops{}) line("matrix products", human(task.flops));
        if (task.rows_of)
            line("rows", fmt::format("of exchange {}; {} do not grow with them", *task.rows_of,
                                     human(task.fixed)));
    }
    if (task.returns) line("returns", fmt::format("the rows of exchange {}", *task.returns));
    return text;
}

}  // namespace headway::inline recorded
