#include "models/scenario/installation.hpp"

#include <system_error>

namespace headway::inline scenario {

std::filesystem::path data_folder() {
    std::error_code error;
    const std::filesystem::path executable = std::filesystem::read_symlink("/proc/self/exe", error);
    if (error) return HEADWAY_DATA_FROM_PROGRAM;
    return (executable.parent_path() / HEADWAY_DATA_FROM_PROGRAM).lexically_normal();
}

}  // namespace headway::inline scenario
