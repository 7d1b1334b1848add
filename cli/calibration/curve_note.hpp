// curve_note: which curves of a calibrated profile are new and which are its base's, for the
// provenance that the profile carries.
#pragma once

#include <string>

#include "models/vocab/profile.hpp"

namespace headway::cli {

// "New: all_to_all over nvlink (8 ranks). From h100_public (public): dense_gemm, ..."
std::string curve_note(const Profile& base, const Profile& profile);

}  // namespace headway::cli
