// Programs of headway on every rank of a cluster, which headway-lab builds on this machine for as
// long as each of them runs.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cli/options.hpp"
#include "cli/scratch_folder.hpp"
#include "models/vocab/scenario.hpp"
#include "models/vocab/timeline.hpp"
#include "models/vocab/traffic_matrix.hpp"

namespace headway::cli {

using LinkBytes = std::map<std::string, double>;  // by the names of link_overrides

// The layers of the scenario as ranks run them, with the bandwidths of --scale.
Scenario scenario_in_lab(const po::variables_map& values, std::string_view verb);

// InputError for layers that ranks in the lab do not run: one group of fp32 is what they do.
void check_layers(const Scenario& scenario, const std::string& hint);

// The InputError of a scenario whose plans send nothing to another rank.
[[noreturn]] void no_exchanges(const Scenario& scenario);

struct ExchangeRun {
    std::vector<std::vector<double>> seconds;  // [matrix][repeat]
    LinkBytes carried;  // in one repeat of all matrices, headers and all else included
};

class Lab {
  public:
    // With the lab's bandwidths.
    explicit Lab(const Cluster& cluster);

    // All-to-alls of one matrix after another.
    ExchangeRun exchange(const std::vector<TrafficMatrix>& matrices, int repeats) const;
    // One MoE layer of every plan of a scenario on this cluster, forward and backward.
    std::vector<Timeline> run_layers(const Scenario& scenario, int repeats) const;

  private:
    LinkBytes run(const std::string& program, const std::vector<std::string>& options) const;
    std::filesystem::path file(const std::string& name) const { return folder_.path() / name; }

    ScratchFolder folder_;
};

}  // namespace headway::cli
