#include "cli/verbs.hpp"

#include <array>

namespace headway::cli {
namespace {

// One row a verb, grouped as `headway --help` prints them.
constexpr auto kVerbs = std::to_array<Verb>({
    // Predict and simulate
    {"Predict and simulate", "predict", "step time, phases, traffic and memory of every plan",
     run_predict},
    {"Predict and simulate", "explain", "where the time of one phase comes from", run_explain},
    {"Predict and simulate", "simulate", "the step rank by rank on the cluster's links",
     run_simulate},
    {"Predict and simulate", "alltoall", "one uneven all-to-all, given as a matrix of bytes",
     run_alltoall},
    {"Predict and simulate", "matrix", "the bytes of an exchange, to replay with nccl-tests",
     run_matrix},
    {"Predict and simulate", "import", "a scenario from a launch script, log or config of a job",
     run_import},

    // Many scenarios at once
    {"Many scenarios at once", "sweep", "every combination of values of some keys, as CSV",
     run_sweep, true},
    {"Many scenarios at once", "best", "the fastest plan that fits, why, and where HP overtakes EP",
     run_best},
    {"Many scenarios at once", "merge", "the shards of a sweep into one file", run_merge},

    // Measure and check
    {"Measure and check", "calibrate", "measure this machine, or import logs, into a profile",
     run_calibrate},
    {"Measure and check", "verify", "a prediction against a real run, phase by phase", run_verify},
    {"Measure and check", "validate", "predictions against published measurements", run_validate},

    // Look and draw
    {"Look and draw", "show", "a scenario or preset with every default written out", run_show},
    {"Look and draw", "list", "presets that can be named in a scenario", run_list},
    {"Look and draw", "plot", "figures from result files (JSON or CSV)", run_plot},
    {"Look and draw", "report", "one HTML page of a scenario: tables and figures", run_report},
    {"Look and draw", "completion", "a script that completes verbs and options in a shell",
     run_completion},
});

}  // namespace

std::span<const Verb> all_verbs() {
    return kVerbs;
}

}  // namespace headway::cli
