// Anchors: published measurements with the configuration that they belong to, read from
// scenarios/anchors and judged by `headway validate`. What headway cannot express is listed with
// its reason, not dropped.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/phase.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/units.hpp"

namespace headway {

struct Publication {
    std::string source;
    std::string date;  // YYYY-MM-DD of the source's commit or release
    std::string note;
};

// A table of all-to-all times. A rank's buffer is S bytes, of which S (n-1)/n leave it.
struct ExchangeAnchor {
    std::string name;
    std::string profile;  // preset
    PathClass path = PathClass::nvlink;
    int num_ranks = 0;
    std::vector<double> bytes;    // S
    std::vector<double> seconds;  // one each
    double tolerance = 0.0;       // relative; 0: listed, not judged
    bool repeat = false;          // other runs of the same machine: shows how well runs agree
    Publication publication;
};

enum class AnchorQuantity { moe_forward, moe_backward, moe_layer, phase, step, peak_memory };
inline constexpr std::array kAnchorQuantityNames = {
    std::string_view("moe_forward"), std::string_view("moe_backward"),
    std::string_view("moe_layer"),   std::string_view("phase"),
    std::string_view("step"),        std::string_view("peak_memory")};
constexpr std::string_view name(AnchorQuantity q) {
    return kAnchorQuantityNames[static_cast<std::size_t>(q)];
}

// One number of one plan of a scenario: MoE times are of one layer, a phase is one execution.
struct RunAnchor {
    std::string name;
    std::filesystem::path scenario;
    std::string plan;
    AnchorQuantity quantity = AnchorQuantity::step;
    Phase phase = Phase::combine;  // quantity phase only
    Pass pass = Pass::forward;
    Seconds time;            // published, unless quantity is peak_memory
    Bytes memory;            // published peak_memory
    double tolerance = 0.0;  // relative; 0: listed, not judged
    bool unseen = false;     // stated before its error was looked at
    Publication publication;
};

// How two published steps compare: software, site and count of FLOPs are the same in both, so that
// their ratio says more of the model than either.
struct RatioAnchor {
    std::string name;
    std::string run, over;  // names of two steps of the set
};

struct UnexpressedAnchor {
    std::string name;
    std::string published;
    std::string reason;
    std::string source;
};

struct AnchorSet {
    std::vector<ExchangeAnchor> exchanges;
    std::vector<RunAnchor> runs;
    std::vector<RatioAnchor> ratios;
    std::vector<UnexpressedAnchor> not_expressible;
};

// dense_step: a step of a model none of whose layers has experts, which says how much of a MoE
// step's error is its dense part's.
enum class AnchorCategory {
    all_to_all,
    all_to_all_repeat,
    exchange,
    layer,
    step,
    dense_step,
    memory
};
inline constexpr std::array kAnchorCategoryNames = {
    std::string_view("all_to_all"), std::string_view("all_to_all_repeat"),
    std::string_view("exchange"),   std::string_view("layer"),
    std::string_view("step"),       std::string_view("dense_step"),
    std::string_view("memory")};
inline constexpr int kNumAnchorCategories = static_cast<int>(kAnchorCategoryNames.size());
constexpr std::string_view name(AnchorCategory c) {
    return kAnchorCategoryNames[static_cast<std::size_t>(c)];
}

enum class Verdict { pass, out, listed, fitted };
inline constexpr std::array kVerdictNames = {std::string_view("pass"), std::string_view("out"),
                                             std::string_view("listed"),
                                             std::string_view("fitted")};

constexpr std::string_view name(Verdict v) {
    return kVerdictNames[static_cast<std::size_t>(v)];
}

struct AnchorResult {
    AnchorCategory category = AnchorCategory::all_to_all;
    std::string name;
    std::string quantity;                     // "moe_forward", "combine"; empty for an exchange
    Bytes buffer;                             // S of an exchange
    double published = 0.0, predicted = 0.0;  // seconds, or bytes in category memory
    double error = 0.0;
    double tolerance = 0.0;
    Verdict verdict = Verdict::listed;
    bool unseen = false;
    bool has_interval = false;
    double low = 0.0, high = 0.0;  // 90 %, of the curves alone
    bool other_software = false;   // the profile is of software that is not headway's
    std::string configuration;     // what runs of one kind have in common: the scenario
    // Inside the interval that `predict` states, its software term measured over the other
    // configurations; over the other software.
    bool inside = false, inside_other_software = false;
    Publication publication;
    int num_warnings = 0;  // of the prediction: look-ups outside measured ranges and the like
    std::vector<std::string> groups;     // of a step: its precision, and what cuts its model
    std::optional<PlanPrediction> plan;  // of a step
};

// Over the held-out results of one category.
struct AnchorStatistics {
    AnchorCategory category = AnchorCategory::all_to_all;
    int count = 0, fitted = 0, judged = 0, out = 0;
    double bias = 0.0;                         // mean of signed errors
    double mean = 0.0, median = 0.0;           // of |error|, as the next
    double p90 = 0.0, p95 = 0.0, worst = 0.0;  // worst keeps its sign
    struct Coverage {
        int count = 0, inside = 0, inside_other_software = 0;
    };
    Coverage seen, unseen;
};

// Time of one step over that of the other.
struct RatioResult {
    std::string name;
    double published = 0.0, predicted = 0.0;
};

// Steps that have something in common; a step may be in several groups.
struct AnchorGroup {
    std::string name;
    AnchorStatistics statistics;
};

// Which of two published steps of one scenario is the shorter.
struct PairStatistics {
    int scenarios = 0, pairs = 0, decided = 0,
        wrong = 0;                             // wrong: decided, and measured the other way
    double of_differing = 0.0, of_step = 0.0;  // the noise, as in DifferenceTerm
};

// Nine published runs in ten take between `low` and `high` times what is predicted.
struct AnchorSpread {
    AnchorCategory category = AnchorCategory::step;
    double low = 1.0, high = 1.0;
};

}  // namespace headway
