// --program P --cluster C --profile PR [--routing R] [--head-parallel H]: what predict, simulate
// and explain take in place of a scenario.
#pragma once

#include <optional>

#include "cli/options.hpp"
#include "models/recorded/lay_out.hpp"
#include "models/recorded/recorded_report.hpp"
#include "models/vocab/cluster.hpp"
#include "models/vocab/profile.hpp"

namespace headway::cli {

void add_program_options(po::options_description& options);

// Whether a program is given. InputError for options beside it that nothing would use, other than
// `taken`, and for a scenario too.
bool has_program(const po::variables_map& values, const std::vector<std::string>& taken);

struct ProgramInput {
    Cluster cluster;
    Profile profile;
    LaidOut laid;
    std::optional<RecordedPrediction::Recorded> as_recorded;  // under --head-parallel
};
ProgramInput load_program(const po::variables_map& values, std::string_view verb);

int predict_program_verb(const po::variables_map& values);
int explain_program_verb(const po::variables_map& values);
int simulate_program_verb(const po::variables_map& values);

}  // namespace headway::cli
