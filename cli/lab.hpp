// Programs of headway on every rank of a scenario's cluster, which headway-lab builds on this
// machine for as long as each of them runs.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "cli/scratch_folder.hpp"
#include "models/vocab/scenario.hpp"
#include "models/vocab/timeline.hpp"
#include "models/vocab/traffic_matrix.hpp"

namespace headway::cli {

using LinkBytes = std::map<std::string, double>;  // by the names of link_overrides

// All-to-alls of one matrix after another, again and again.
struct ExchangeRun {
    std::vector<double> seconds;  // of all matrices, [repeat]
    LinkBytes carried;            // a repeat, headers and all else included
};

class Lab {
  public:
    // `scenario`: with the lab's bandwidths.
    explicit Lab(const Scenario& scenario);

    ExchangeRun exchange(const std::vector<TrafficMatrix>& matrices, int repeats) const;
    // One MoE layer of every plan, forward and backward.
    std::vector<Timeline> run_layers(int repeats) const;

  private:
    LinkBytes run(const std::string& program, const std::vector<std::string>& options) const;
    std::filesystem::path file(const std::string& name) const { return folder_.path() / name; }

    const Scenario& scenario_;
    ScratchFolder folder_;
};

}  // namespace headway::cli
