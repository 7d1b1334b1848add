#include "models/scenario/read_anchors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <system_error>

#include "models/scenario/describe.hpp"
#include "models/scenario/yaml_reader.hpp"

namespace headway::inline scenario {
namespace {

constexpr Range kTime = {.low = 0, .high = 1e6, .above_low = true};

void describe_publication(Fields& f, Publication& publication) {
    f.text("source", publication.source, "where the measurement is published");
    f.text("date", publication.date, "of the source, as YYYY-MM-DD");
    f.text("note", publication.note, "how the run differs from what headway prices", optional);
}

void describe_tolerance(Fields& f, double& tolerance) {
    f.number("tolerance", tolerance, {0, 10},
             "largest error that passes; left out: listed, not judged", optional,
             UnitClass::percent);
}

void describe_exchange(Fields& f, ExchangeAnchor& anchor) {
    f.text("name", anchor.name, "machine and operation");
    f.text("profile", anchor.profile, "preset that is judged");
    f.choice("path", anchor.path, kPathClassNames, "the most expensive stretch between its ranks");
    f.integer("num_ranks", anchor.num_ranks, {2, 1 << 20}, "ranks of the measurement");
    f.numbers("bytes", anchor.bytes, kPositive, "whole buffers of a rank, S", Presence::required,
              UnitClass::bytes);
    f.numbers("time", anchor.seconds, kPositive, "one per entry of bytes", Presence::required,
              UnitClass::seconds);
    describe_tolerance(f, anchor.tolerance);
    f.flag("repeat", anchor.repeat, "other runs of a machine that is listed before", optional);
    describe_publication(f, anchor.publication);
}

void describe_run(Fields& f, RunAnchor& anchor) {
    std::string scenario = anchor.scenario.string();
    f.text("name", anchor.name, "what ran where");
    f.text("scenario", scenario, "scenario file, relative to this one");
    anchor.scenario = scenario;
    f.text("plan", anchor.plan, "name of the plan in that scenario");
    f.choice(
        "quantity", anchor.quantity, kAnchorQuantityNames,
        "MoE times are of one layer (moe_layer: both passes), phase is one execution of a phase");
    f.only_when("quantity: phase", anchor.quantity == AnchorQuantity::phase, [&] {
        f.choice("phase", anchor.phase, kPhaseNames, "which phase");
        f.choice("pass", anchor.pass, kPassNames, "in which pass");
    });
    const bool is_memory = anchor.quantity == AnchorQuantity::peak_memory;
    f.only_when("quantity: peak_memory", is_memory, [&] {
        f.quantity("memory", anchor.memory, {.low = 0, .high = 1e15, .above_low = true},
                   "published peak");
    });
    f.only_when("quantity: not peak_memory", !is_memory,
                [&] { f.quantity("time", anchor.time, kTime, "published time"); });
    describe_tolerance(f, anchor.tolerance);
    f.flag("unseen", anchor.unseen, "stated before its error was looked at", optional);
    describe_publication(f, anchor.publication);
}

void describe_ratio(Fields& f, RatioAnchor& anchor) {
    f.text("name", anchor.name, "what differs between the two");
    f.text("run", anchor.run, "name of a step");
    f.text("over", anchor.over, "name of the step that its time is divided by");
}

void describe_unexpressed(Fields& f, UnexpressedAnchor& anchor) {
    f.text("name", anchor.name, "what ran where");
    f.text("published", anchor.published, "what was measured, in words");
    f.text("reason", anchor.reason, "why headway cannot express it");
    f.text("source", anchor.source, "where it is published");
}

std::vector<InputProblem> check_anchors(const AnchorSet& set) {
    std::vector<InputProblem> problems;
    for (std::size_t i = 0; i < set.exchanges.size(); ++i) {
        const ExchangeAnchor& anchor = set.exchanges[i];
        if (anchor.bytes.size() == anchor.seconds.size()) continue;
        problems.push_back({.where = fmt::format("exchanges[{}].time", i),
                            .found = fmt::format("{} times for {} sizes", anchor.seconds.size(),
                                                 anchor.bytes.size()),
                            .accepted = "one time per size"});
    }
    return problems;
}

template <class T>
void append(std::vector<T>& to, std::vector<T>& from) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

void describe(Fields& f, AnchorSet& set) {
    f.list("exchanges", set.exchanges, "tables of all-to-all times", describe_exchange,
           Presence::optional);
    f.list("runs", set.runs, "layers, exchanges and steps", describe_run, Presence::optional);
    f.list("ratios", set.ratios, "pairs of steps whose times are compared", describe_ratio,
           Presence::optional);
    f.list("not_expressible", set.not_expressible, "published, but beyond what headway expresses",
           describe_unexpressed, Presence::optional);
}

AnchorSet read_anchors(const std::filesystem::path& path, const ReadOptions& options) {
    YamlReader reader(options);
    AnchorSet set;
    reader.read_file(reader.load(path), std::nullopt, set);
    if (reader.is_clean("exchanges")) reader.add_check("", check_anchors(set));
    reader.throw_if_any();
    for (RunAnchor& anchor : set.runs) anchor.scenario = path.parent_path() / anchor.scenario;
    return set;
}

AnchorSet read_anchor_folder(const std::filesystem::path& folder, const ReadOptions& options) {
    std::vector<std::filesystem::path> files;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
        if (entry.path().extension() == ".yaml") files.push_back(entry.path());
    }
    if (files.empty()) {
        throw InputError({.where = folder.string(),
                          .found = error ? error.message() : "no *.yaml file",
                          .accepted = "a folder of anchor files"});
    }
    std::sort(files.begin(), files.end());
    AnchorSet all;
    for (const auto& file : files) {
        AnchorSet set = read_anchors(file, options);
        append(all.exchanges, set.exchanges);
        append(all.runs, set.runs);
        append(all.ratios, set.ratios);
        append(all.not_expressible, set.not_expressible);
    }
    return all;
}

}  // namespace headway::inline scenario
