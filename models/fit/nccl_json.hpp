// The JSON of nccl-tests -J. Private to models/fit.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "models/fit/nccl_log.hpp"

namespace headway::inline fit {

NcclTable read_nccl_json(std::string_view text, const std::string& file_name,
                         std::optional<Collective> collective);

}  // namespace headway::inline fit
