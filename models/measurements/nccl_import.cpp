#include "models/measurements/nccl_import.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

#include "models/measurements/nccl_rows.hpp"
#include "models/text/human.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline measurements {
namespace {

// "alltoall.log: all_to_all of 8 ranks on 1 node (NVIDIA H200)"
std::string title(const NcclTable& t) {
    std::string text = fmt::format("{}: {} of {} ranks", t.source, name(t.collective), t.num_ranks);
    if (t.num_hosts > 0)
        text += fmt::format(" on {} node{}", t.num_hosts, t.num_hosts == 1 ? "" : "s");
    return t.device.empty() ? text : text + fmt::format(" ({})", t.device);
}

[[noreturn]] void ask_for_path(const NcclTable& table, const std::string& why,
                               const std::string& accepted, const std::string& hint = "") {
    throw InputError({.where = title(table), .found = why, .accepted = accepted, .hint = hint});
}

// Paths within a node that the profile's curves are of.
std::set<PathClass> paths_in_node(const Profile& profile) {
    std::set<PathClass> paths;
    for (const TimeCurve& c : profile.communication) {
        if (!crosses_nic(c.path)) paths.insert(c.path);
    }
    return paths;
}

// A path that was asked for, against what the log says of its hosts.
void check_asked(const NcclTable& table, PathClass path, const ImportOptions& options) {
    const std::string asked = fmt::format("--path {}", name(path));
    if (crosses_nic(path) && table.num_hosts == 1) {
        ask_for_path(table, asked + ", but all ranks are on one host",
                     "--path nvlink or pcie, or --nodes N if they were on several");
    }
    if (path == PathClass::pcie && table.num_hosts > 1) {
        ask_for_path(table, asked + fmt::format(", but the ranks are on {} hosts", table.num_hosts),
                     "--path nic or spine, or --nodes 1 if the hosts are containers of one");
    }
    if (crosses_nic(path) && table.num_hosts == 0 && table.collective == Collective::all_to_all) {
        ask_for_path(table, "nothing says on how many hosts it ran",
                     "--nodes N: what leaves a node depends on it");
    }
    if (options.cluster && link_bandwidth(*options.cluster, path) <= Bandwidth{}) {
        ask_for_path(
            table, asked + fmt::format(", but cluster {} has no such link", options.cluster->name),
            "a path that the cluster has");
    }
}

PathClass path_between_nodes(const NcclTable& table, const ImportOptions& options) {
    if (options.cluster) {
        const Cluster& c = *options.cluster;
        const PathClass path = path_class(c, 0, (table.num_hosts - 1) * c.gpus_per_node);
        if (path != PathClass::self && path != PathClass::pcie) return path;
        ask_for_path(table, fmt::format("cluster {} has no link between nodes", c.name),
                     "a scenario of the cluster that it ran on, or --nodes 1");
    }
    for (const char* rack : {"GB200", "GB300"}) {
        if (table.device.find(rack) == std::string::npos) continue;
        ask_for_path(table, "NVLink of this device may span hosts", "--path nvlink, nic or spine");
    }
    return PathClass::nic;
}

PathClass path_in_node(const NcclTable& table, const ImportOptions& options,
                       const Profile& profile) {
    const std::string accepted = "--path nvlink or pcie";
    const std::string& device = table.device.empty() ? profile.provenance.device : table.device;
    const std::optional<bool> nvlink = has_nvlink(device);
    const auto path = [](bool over_nvlink) {
        return over_nvlink ? PathClass::nvlink : PathClass::pcie;
    };
    if (options.cluster) {
        const bool has = options.cluster->nvlink.has_value();
        if (nvlink && *nvlink != has) {
            ask_for_path(table,
                         fmt::format("cluster {} has {}NVLink, {} has {}", options.cluster->name,
                                     has ? "" : "no ", device, *nvlink ? "it" : "none"),
                         accepted);
        }
        return path(has);
    }
    const std::set<PathClass> known = paths_in_node(profile);
    if (nvlink) {
        if (known.empty() || known.count(path(*nvlink)) != 0) return path(*nvlink);
        ask_for_path(table,
                     fmt::format("{} has {}NVLink, the base profile's curves are over {}", device,
                                 *nvlink ? "" : "no ", name(*known.begin())),
                     accepted);
    }
    if (known.size() == 1 && table.device.empty()) return *known.begin();
    ask_for_path(table, "nothing says whether its GPUs had NVLink", accepted);
}

// Rows of a MiB and more that the curve is off by more than 5 %: times that fall as sizes grow, or
// repeats that differ.
int rows_off(const NcclTable& table, const TimeCurve& curve) {
    constexpr double kFrom = 1 << 20, kOff = 0.05;
    int count = 0;
    for (std::size_t i = 0; i < table.size.size(); ++i) {
        if (table.size[i] < kFrom) continue;
        const double at = curve.at(curve_bytes(table, curve.path, table.size[i])).value;
        count += std::abs(at / table.seconds[i] - 1.0) > kOff;
    }
    return count;
}

std::string link_text(const TimeCurve& curve, const ImportOptions& options) {
    if (curve.link <= Bandwidth{}) {
        return "the link is not known (--link states it): the times are taken as they are on every "
               "cluster";
    }
    return fmt::format(
        "link {}, {}", human(curve.link),
        options.link > Bandwidth{} ? "as --link says" : "that of cluster " + options.cluster->name);
}

std::string sentence(const NcclTable& table, const TimeCurve& curve, bool replaces,
                     const ImportOptions& options) {
    std::string text = fmt::format(
        "{}, {} rows from {} to {}{}: fills {} over {} of {} ranks{}; {}", title(table),
        table.size.size(), human(*std::min_element(table.size.begin(), table.size.end()) * byte),
        human(*std::max_element(table.size.begin(), table.size.end()) * byte),
        table.num_runs > 1 ? fmt::format(" of {} runs", table.num_runs) : "",
        name(curve.collective), name(curve.path), curve.num_ranks,
        replaces ? " in the place of the base's" : "", link_text(curve, options));
    if (const int off = rows_off(table, curve); off > 0) {
        text += fmt::format(
            "; {} rows of 1 MiB or more are off the curve by more than 5 %: a time "
            "falls as the size grows, or repeats differ",
            off);
    }
    return text;
}

}  // namespace

std::optional<bool> has_nvlink(std::string_view device) {
    const auto has = [&](std::string_view word) {
        return device.find(word) != std::string_view::npos;
    };
    // A bridge between two such cards is an option.
    if (has("PCIe") || has("PCIE") || has("NVL")) return std::nullopt;
    for (const char* word : {"SXM", "H100", "H200", "H20", "H800", "B200", "B300", "GH200",
                             "Instinct MI2", "Instinct MI3"}) {
        if (has(word)) return true;
    }
    for (const char* word : {"RTX 40", "RTX 50", "RTX PRO", "Ada Generation", "GTX 10", "GTX 16"}) {
        if (has(word)) return false;
    }
    const std::vector<std::string> words = split_words(device);
    return std::any_of(words.begin(), words.end(),
                       [](const std::string& word) {
                           constexpr std::string_view kWithout[] = {"L4",  "L20", "L40", "L40S",
                                                                    "T4",  "A2",  "A10", "A10G",
                                                                    "A16", "P4",  "P40"};
                           return std::find(std::begin(kWithout), std::end(kWithout), word) !=
                                  std::end(kWithout);
                       })
               ? std::optional(false)
               : std::nullopt;
}

PathClass path_of(const NcclTable& table, const ImportOptions& options, const Profile& profile) {
    if (options.path) {
        check_asked(table, *options.path, options);
        return *options.path;
    }
    if (table.num_hosts == 0) {
        ask_for_path(table, "nothing says on how many hosts it ran",
                     "--nodes N, or --path nvlink, pcie, nic or spine");
    }
    return table.num_hosts > 1 ? path_between_nodes(table, options)
                               : path_in_node(table, options, profile);
}

std::vector<std::string> import_tables(const std::vector<NcclTable>& tables,
                                       const ImportOptions& options, Profile& profile) {
    const Profile base = profile;
    std::vector<std::string> sentences;
    std::set<std::tuple<Collective, PathClass, int>> filled;
    for (const NcclTable& table : tables) {
        const PathClass path = path_of(table, options, base);
        TimeCurve curve = to_time_curve(table, path);
        curve.link = options.link > Bandwidth{} ? options.link
                     : options.cluster          ? link_bandwidth(*options.cluster, path)
                                                : Bandwidth{};
        if (!filled.insert({curve.collective, path, curve.num_ranks}).second) {
            throw InputError({.where = title(table),
                              .found = "another log fills the same curve, and is not of the same "
                                       "hosts and device",
                              .accepted = "one of them"});
        }
        const auto replaced = std::erase_if(profile.communication, [&](const TimeCurve& c) {
            return c.collective == curve.collective && c.path == curve.path &&
                   c.num_ranks == curve.num_ranks;
        });
        sentences.push_back(sentence(table, curve, replaced > 0, options));
        profile.communication.push_back(std::move(curve));
    }
    if (options.link > Bandwidth{} &&
        std::any_of(filled.begin(), filled.end(), [&](const auto& key) {
            return std::get<PathClass>(key) != std::get<PathClass>(*filled.begin());
        })) {
        throw InputError({.where = "--link",
                          .found = "one link for logs over several paths",
                          .accepted = "logs of one path; the others in a calibration of their own, "
                                      "with this profile as --base"});
    }
    return sentences;
}

}  // namespace headway::inline measurements
