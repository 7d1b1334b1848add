// The options of headway-run that make it run whole steps.
#pragma once

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/variables_map.hpp>
#include <optional>

#include "runtime/step/step_setup.hpp"

namespace headway::runtime {

void add_step_options(boost::program_options::options_description& options);

// None without --steps. InputError for what does not go together.
std::optional<StepRun> step_options(const boost::program_options::variables_map& values);

}  // namespace headway::runtime
