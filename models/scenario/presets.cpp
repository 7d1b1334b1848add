#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>

#include "models/scenario/installation.hpp"
#include "models/scenario/quantity_text.hpp"
#include "models/scenario/read_scenario.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::array kFolders = {std::string_view("clusters"), std::string_view("models"),
                                 std::string_view("profiles")};

bool is_plain_name(const std::string& name) {
    return !name.empty() && name.size() <= 200 && name.front() != '.' &&
           name.find_first_of("/\\") == std::string::npos && name.find('\0') == std::string::npos;
}

}  // namespace

std::vector<std::filesystem::path> builtin_preset_dirs() {
    return {data_folder() / "scenarios"};
}

std::vector<Preset> list_presets(const ReadOptions& options) {
    std::vector<Preset> presets;
    for (const std::string_view kind : kFolders) {
        for (const std::filesystem::path& dir : options.preset_dirs) {
            std::error_code error;
            for (const auto& entry : std::filesystem::directory_iterator(dir / kind, error)) {
                if (entry.path().extension() != ".yaml") continue;
                presets.push_back({std::string(kind), entry.path().stem().string(), entry.path()});
            }
        }
    }
    const auto by_name = [](const Preset& a, const Preset& b) {
        return std::tie(a.kind, a.name) < std::tie(b.kind, b.name);
    };
    std::stable_sort(presets.begin(), presets.end(), by_name);
    const auto same = [](const Preset& a, const Preset& b) {
        return a.kind == b.kind && a.name == b.name;
    };
    presets.erase(std::unique(presets.begin(), presets.end(), same), presets.end());
    return presets;
}

std::filesystem::path find_preset(const std::string& kind, const std::string& name,
                                  const ReadOptions& options) {
    if (is_plain_name(name)) {
        for (const std::filesystem::path& dir : options.preset_dirs) {
            const std::filesystem::path path = dir / kind / (name + ".yaml");
            std::error_code error;
            if (std::filesystem::is_regular_file(path, error)) return path;
        }
    }
    std::vector<std::string> known;
    for (const Preset& preset : list_presets(options)) {
        if (preset.kind == kind) known.push_back(preset.name);
    }
    const std::string near = did_you_mean(name, known);
    throw InputError({"", fmt::format("no preset {} in {}", in_quotes(name), kind),
                      known.empty() ? "presets, of which none is installed"
                                    : fmt::format("one of: {}", fmt::join(known, ", ")),
                      near.empty() ? "" : "did you mean '" + near + "'?"});
}

}  // namespace headway::inline scenario
