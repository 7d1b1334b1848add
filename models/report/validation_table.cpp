#include "models/report/validation_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "models/text/csv_text.hpp"
#include "models/text/human.hpp"
#include "models/text/text_table.hpp"

namespace headway::inline report {
namespace {

constexpr std::size_t kAnchorNameWidth = 30;  // of an anchor on a terminal

std::string_view title(AnchorCategory category) {
    switch (category) {
        case AnchorCategory::all_to_all:
            return "all-to-all, held-out sizes";
        case AnchorCategory::all_to_all_repeat:
            return "all-to-all, other runs";
        case AnchorCategory::exchange:
            return "deduplicated exchanges";
        case AnchorCategory::layer:
            return "one MoE layer";
        case AnchorCategory::step:
            return "whole training steps";
        case AnchorCategory::dense_step:
            return "steps of dense models";
        case AnchorCategory::memory:
            break;
    }
    return "peak memory";
}

std::string value(const AnchorResult& r, double number) {
    return r.category == AnchorCategory::memory ? human(number * byte) : human(number * second);
}

std::string quantity(const AnchorResult& r) {
    return r.quantity.empty() ? human(r.buffer) : r.quantity;
}

std::string percent(double ratio) {
    return fmt::format("{:.1f} %", 100.0 * ratio);
}

std::string tolerance(const AnchorResult& r) {
    return r.tolerance > 0.0 ? fmt::format("{:.0f} %", 100.0 * r.tolerance) : "-";
}

// Whether the interval holds what was published.
std::string inside(const AnchorResult& r) {
    if (!r.has_interval || r.verdict == Verdict::fitted) return "-";
    return r.inside ? "yes" : "no";
}

std::vector<std::string> coverage(const AnchorStatistics& s) {
    const auto share = [](int inside, int count) {
        return count > 0 ? fmt::format("{} of {}", inside, count) : std::string("-");
    };
    return {std::string(title(s.category)), share(s.seen.inside, s.seen.count),
            share(s.unseen.inside, s.unseen.count),
            share(s.seen.inside_other_software, s.seen.count),
            share(s.unseen.inside_other_software, s.unseen.count)};
}

std::vector<std::string> cells(const AnchorGroup& group) {
    const AnchorStatistics& s = group.statistics;
    return {
        group.name,
        fmt::format("{}", s.count),
        signed_percent(s.bias),
        percent(s.median),
        percent(s.p90),
        signed_percent(s.worst),
        fmt::format("{} of {}", s.seen.inside + s.unseen.inside, s.seen.count + s.unseen.count)};
}

std::vector<std::string> cells(const RatioResult& r) {
    return {r.name, fmt::format("{:.3f}", r.predicted), fmt::format("{:.3f}", r.published),
            fmt::format("{:+.1f}", 100.0 * (r.predicted - r.published))};
}

bool has_coverage(const AnchorStatistics& s) {
    return s.seen.count + s.unseen.count > 0;
}

const std::string kCoverageNote =
    "Inside: the 90 % interval that `predict` states holds the published time, where its software\n"
    "term is measured over the other configurations, or over other software alone. Unseen: stated\n"
    "before their error was looked at.\n";

std::string spread_lines(const std::vector<AnchorSpread>& spreads) {
    std::string text;
    for (const AnchorSpread& s : spreads) {
        text += fmt::format("{}{} {:.2f} to {:.2f}", text.empty() ? "" : ", ", title(s.category),
                            s.low, s.high);
    }
    return text.empty() ? text : "Software term, real over predicted time:\n" + text + ".\n";
}

std::string pair_lines(const PairStatistics& s) {
    if (s.pairs == 0) return "";
    return fmt::format(
        "Two steps of one scenario: measured differences go against the predicted sign by less "
        "than\n"
        "{:.2f} of what differs and {:.2f} of the longer step, nine in ten ({} pairs of {} "
        "scenarios).\n"
        "Judged by the term of the other scenarios, {} pairs are decided, {} of them wrongly.\n",
        s.of_differing, s.of_step, s.pairs, s.scenarios, s.decided, s.wrong);
}

std::vector<std::string> cells(const AnchorResult& r) {
    return {r.name,
            quantity(r),
            value(r, r.predicted),
            value(r, r.published),
            signed_percent(r.error),
            tolerance(r),
            std::string(name(r.verdict)),
            inside(r)};
}

const std::vector<std::string> kResultHead = {"anchor", "quantity", "predicted", "published",
                                              "error",  "limit",    "verdict",   "inside"};
const std::vector<std::string> kStatisticsHead = {"category", "held out", "fitted", "out",  "bias",
                                                  "mean",     "median",   "p95",    "worst"};
const std::vector<std::string> kGroupHead = {
    "training steps with", "runs", "bias", "median", "p90", "worst", "inside"};
const std::vector<std::string> kRatioHead = {"one step over another", "predicted", "published",
                                             "points"};
const std::vector<std::string> kCoverageHead = {"inside the 90 % interval", "seen", "unseen",
                                                "seen, other software", "unseen, other software"};

std::vector<std::string> cells(const AnchorStatistics& s) {
    if (s.count == 0) {
        std::vector<std::string> row(kStatisticsHead.size(), "-");
        row[0] = title(s.category);
        row[1] = "0";
        row[2] = fmt::format("{}", s.fitted);
        return row;
    }
    return {std::string(title(s.category)),
            fmt::format("{}", s.count),
            fmt::format("{}", s.fitted),
            s.judged > 0 ? fmt::format("{} of {}", s.out, s.judged) : "-",
            signed_percent(s.bias),
            percent(s.mean),
            percent(s.median),
            percent(s.p95),
            signed_percent(s.worst)};
}

bool is_table(const AnchorResult& r) {
    return r.category == AnchorCategory::all_to_all ||
           r.category == AnchorCategory::all_to_all_repeat;
}

const std::string kMarkdownIntroduction =
    "# Validation\n\n"
    "Written by `headway validate --format markdown --out docs/results/generated/validation.md`; a "
    "test compares\nit with what the code gives. "
    "[validation_method.md](../../reference/validation_method.md) says where the curves "
    "and\nanchors "
    "come from, what is held out, and what the misses teach. "
    "[validation_simulate.md](validation_simulate.md) says\nwhere and why `simulate` differs from "
    "`predict`.\n\n"
    "Error: predicted / published - 1. Bias is the mean of signed errors; mean, median, p95 and "
    "worst are of their\nsize. Fitted: a size that is a point of the profile's curve, kept out of "
    "the statistics. Listed: no tolerance.\n\n";

// The worst held-out size of each table stands for the table; other results are kept.
std::vector<AnchorResult> worst_of_tables(const std::vector<AnchorResult>& results) {
    std::vector<AnchorResult> kept;
    for (const AnchorResult& r : results) {
        if (r.verdict == Verdict::fitted) continue;
        const bool same_table = is_table(r) && !kept.empty() && kept.back().name == r.name;
        if (!same_table) {
            kept.push_back(r);
        } else if (std::abs(r.error) > std::abs(kept.back().error)) {
            kept.back() = r;
        }
    }
    return kept;
}

std::string markdown_row(const std::vector<std::string>& row) {
    return fmt::format("| {} |\n", fmt::join(row, " | "));
}

// The first column to the left, the others to the right.
std::string markdown_head(const std::vector<std::string>& head) {
    std::string line = "|---|";
    for (std::size_t i = 1; i < head.size(); ++i) line += "---:|";
    return markdown_row(head) + line + "\n";
}

std::string markdown_category(const Validation& validation, AnchorCategory category) {
    std::string text = fmt::format("\n### {}\n\n", title(category)) + markdown_head(kResultHead);
    std::vector<std::string> sources;
    for (const AnchorResult& r : validation.results) {
        if (r.category != category) continue;
        text += markdown_row(cells(r));
        std::string source =
            fmt::format("{}: {}, {}", r.name, r.publication.source, r.publication.date);
        if (!r.publication.note.empty()) source += "; " + r.publication.note;
        if (std::find(sources.begin(), sources.end(), source) == sources.end())
            sources.push_back(source);
    }
    text += "\nSources:\n\n";
    for (const std::string& source : sources) text += "- " + source + ".\n";
    return text;
}

}  // namespace

std::string validation_to_table(const Validation& validation, ValidationDetail detail) {
    const bool brief = detail == ValidationDetail::brief;
    TextTable table{.head = kResultHead, .rows = {}};
    const std::vector<AnchorResult> shown =
        brief ? worst_of_tables(validation.results) : validation.results;
    for (const AnchorResult& r : shown) {
        table.rows.push_back(cells(r));
        table.rows.back().front() = clipped(r.name, kAnchorNameWidth);
    }
    TextTable inside{.head = kCoverageHead, .rows = {}};
    for (const AnchorStatistics& s : validation.statistics)
        if (has_coverage(s)) inside.rows.push_back(coverage(s));
    TextTable summary{.head = kStatisticsHead, .rows = {}};
    for (const AnchorStatistics& s : validation.statistics) summary.rows.push_back(cells(s));
    TextTable groups{.head = kGroupHead, .rows = {}};
    for (const AnchorGroup& group : validation.groups) groups.rows.push_back(cells(group));
    std::string text = table.to_string() + "\n" + summary.to_string();
    if (!groups.rows.empty()) text += "\n" + groups.to_string();
    TextTable ratios{.head = kRatioHead, .rows = {}};
    for (const RatioResult& ratio : validation.ratios) ratios.rows.push_back(cells(ratio));
    if (!ratios.rows.empty()) text += "\n" + ratios.to_string();
    text += "\n" + inside.to_string();
    text +=
        "\nError: predicted / published - 1. Bias is the mean of signed errors; mean, median and "
        "p95 are of\ntheir size. Fitted: a size that is a point of the profile's curve, kept "
        "out of the statistics.\n";
    text += kCoverageNote + spread_lines(validation.spreads) + pair_lines(validation.pairs);
    if (brief)
        text += "All-to-all tables are shown by their worst held-out size; --verbose shows all.\n";
    if (!validation.not_expressible.empty()) {
        text +=
            fmt::format("{} published measurements are not expressible{}\n",
                        validation.not_expressible.size(), brief ? "; --verbose lists them." : ":");
    }
    if (!brief) {
        for (const UnexpressedAnchor& u : validation.not_expressible)
            text += fmt::format("  {}: {}\n", u.name, u.reason);
    }
    return text;
}

std::string validation_to_markdown(const Validation& validation) {
    std::string text = kMarkdownIntroduction + markdown_head(kStatisticsHead);
    for (const AnchorStatistics& s : validation.statistics) text += markdown_row(cells(s));
    if (!validation.groups.empty()) text += "\n" + markdown_head(kGroupHead);
    for (const AnchorGroup& group : validation.groups) text += markdown_row(cells(group));
    if (!validation.ratios.empty()) text += "\n" + markdown_head(kRatioHead);
    for (const RatioResult& ratio : validation.ratios) text += markdown_row(cells(ratio));
    text += "\n" + markdown_head(kCoverageHead);
    for (const AnchorStatistics& s : validation.statistics)
        if (has_coverage(s)) text += markdown_row(coverage(s));
    text += "\n" + kCoverageNote + "\n" + spread_lines(validation.spreads) + "\n" +
            pair_lines(validation.pairs);
    for (const AnchorStatistics& s : validation.statistics)
        text += markdown_category(validation, s.category);
    text +=
        "\n### Not expressible\n\n" + markdown_head({"anchor", "published", "reason", "source"});
    for (const UnexpressedAnchor& u : validation.not_expressible)
        text += markdown_row({u.name, u.published, u.reason, u.source});
    return text;
}

std::string validation_to_csv(const Validation& validation) {
    std::string text =
        "category,anchor,quantity,unit,predicted,published,error,tolerance,verdict,source,date,"
        "unseen,low,high,inside\n";
    for (const AnchorResult& r : validation.results) {
        text += fmt::format(
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", name(r.category), csv_field(r.name),
            quantity(r), r.category == AnchorCategory::memory ? "byte" : "s", r.predicted,
            r.published, r.error, r.tolerance, name(r.verdict), csv_field(r.publication.source),
            r.publication.date, r.unseen, r.low, r.high, inside(r));
    }
    return text;
}

}  // namespace headway::inline report
