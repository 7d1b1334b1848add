#include "cli/installation.hpp"

#include <system_error>
#include <vector>

#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;

// The roots that may hold scenarios/ and analysis/.
std::vector<fs::path> data_roots() {
    std::vector<fs::path> roots;
    std::error_code error;
    const fs::path executable = fs::read_symlink("/proc/self/exe", error);
    if (!error) {
        const fs::path folder = executable.parent_path();
        roots.push_back((folder / "../share/headway").lexically_normal());
        roots.push_back((folder / "../..").lexically_normal());
    }
    roots.emplace_back(HEADWAY_SOURCE_DIR);
    return roots;
}

fs::path find(const fs::path& relative, const std::string& what) {
    std::string tried;
    for (const fs::path& root : data_roots()) {
        std::error_code ignored;
        if (fs::exists(root / relative, ignored)) return root / relative;
        tried += (tried.empty() ? "" : ", ") + (root / relative).string();
    }
    throw InputError({.found = what + " not found", .accepted = tried});
}

}  // namespace

fs::path plot_script() {
    return find("analysis/plot.py", "the plotting script");
}

fs::path report_script() {
    return find("analysis/report.py", "the report script");
}

}  // namespace headway::cli
