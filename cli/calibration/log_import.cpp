#include "cli/calibration/log_import.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>
#include <vector>

#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "models/measurements/nccl_import.hpp"
#include "models/measurements/nccl_log.hpp"
#include "models/scenario/quantity_text.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

using Strings = std::vector<std::string>;

// The value of an option that names one of an enumeration.
template <class Enum, class Names>
std::optional<Enum> named(const po::variables_map& values, const std::string& option,
                          const Names& names, std::size_t first = 0) {
    const auto chosen = optional_text(values, option);
    if (!chosen) return std::nullopt;
    const std::vector<std::string> accepted(names.begin() + static_cast<std::ptrdiff_t>(first),
                                            names.end());
    one_of(*chosen, accepted, "--" + option);
    const auto it = std::find(names.begin(), names.end(), *chosen);
    return static_cast<Enum>(it - names.begin());
}

Bandwidth bandwidth_of(const po::variables_map& values, const std::string& option) {
    const auto text = optional_text(values, option);
    if (!text) return {};
    const ParsedQuantity parsed = parse_quantity(*text, UnitClass::bandwidth);
    constexpr double kLeast = 1e3, kMost = 1e16;
    if (parsed.value && *parsed.value >= kLeast && *parsed.value <= kMost)
        return *parsed.value * byte / second;
    throw InputError(
        {.where = "--" + option,
         .found = parsed.found.empty() ? in_quotes(*text) : parsed.found,
         .accepted = "from 1 kB/s on, " + std::string(unit_class_example(UnitClass::bandwidth)),
         .hint = parsed.hint});
}

ImportOptions import_options(const po::variables_map& values) {
    ImportOptions options{
        .facts = {.collective = named<Collective>(values, "collective", kCollectiveNames),
                  .num_ranks = values.count("device") + values.count("from") == 0
                                   ? whole_number(values, "ranks", 0, 1 << 20)
                                   : 0,
                  .num_hosts = whole_number(values, "nodes", 0, 1 << 20)},
        .path = named<PathClass>(values, "path", kPathClassNames, 1),
        .link = bandwidth_of(values, "link")};
    if (values.count("scenario") != 0) options.cluster = load_scenario(values, "calibrate").cluster;
    return options;
}

}  // namespace

void import_logs(const po::variables_map& values, Profile& profile, std::string& device) {
    const ImportOptions options = import_options(values);
    std::vector<NcclTable> tables;
    for (const std::string& file : values["from-nccl-tests"].as<Strings>()) {
        NcclLog log = read_nccl_log(std::filesystem::path(file), options.facts);
        for (const std::string& run : log.skipped) note("not imported: " + run);
        for (NcclTable& table : log.tables) add_table(tables, std::move(table));
    }
    if (profile.provenance.device.empty()) profile.provenance.device = device;
    for (const std::string& sentence : import_tables(tables, options, profile)) note(sentence);
    for (const NcclTable& table : tables) {
        if (!device.empty() && !table.device.empty() && table.device != device) {
            warn(fmt::format("{} is of {}, the profile of {}", table.source, table.device, device));
        }
        if (device.empty()) device = table.device;
    }
}

}  // namespace headway::cli
