// What ranks in headway-lab and their transport make of links: curves for `verify --lab`, fitted on
// a star, the one topology in which no links are shared.
#pragma once

#include <string>

#include "cli/options.hpp"
#include "models/vocab/profile.hpp"

namespace headway::cli {

// Kernels and waits of the scenario's own layers on the star, exchanges of even matrices: those of
// `base` are kept where the layers have no sample. `source` opens the source text of every curve;
// `device` is set to the processor.
Profile profile_of_lab(const po::variables_map& values, Profile base, const std::string& source,
                       std::string& device);

}  // namespace headway::cli
