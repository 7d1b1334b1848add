#include "cli/installation.hpp"

#include <system_error>

#include "models/scenario/installation.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

fs::path find(const fs::path& relative, const std::string& what) {
    const fs::path path = data_folder() / relative;
    std::error_code ignored;
    if (fs::exists(path, ignored)) return path;
    throw InputError({.found = what + " not found",
                      .accepted = path.string(),
                      .hint = "it is installed beside the program, by cmake --install"});
}

}  // namespace

fs::path plot_script() {
    return find("analysis/plot.py", "the plotting script");
}

fs::path report_script() {
    return find("analysis/report.py", "the report script");
}

}  // namespace headway::cli
