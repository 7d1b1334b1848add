// The options of headway-run: what they are called, and what they mean for a measurement. Options
// that do not make sense throw InputError.
#pragma once

#include <boost/program_options.hpp>
#include <string>
#include <vector>

#include "models/vocab/scenario.hpp"
#include "runtime/layers/measure.hpp"

namespace headway::runtime {

boost::program_options::options_description declare_options();

bool on_gpus(const boost::program_options::variables_map& values);

std::vector<Plan> chosen_plans(const Scenario& scenario,
                               const boost::program_options::variables_map& values);

// `processes`: its ranks are, and may be killed.
MeasureOptions measure_options(const boost::program_options::variables_map& values, bool processes);

}  // namespace headway::runtime
