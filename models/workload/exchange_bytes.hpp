// The bytes that exchanges send between ranks, as the matrices of their stages: a matter of the
// workload and of a draw of the routing, not of any rate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "models/vocab/program.hpp"
#include "models/vocab/scenario.hpp"
#include "models/workload/drawn_group.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline workload {

class ExchangeBytes {
  public:
    ExchangeBytes(const Scenario& scenario, const Plan& plan);

    const ExpertLayout& layout() const { return layout_; }

    // The exchange of a phase, without latency and at full efficiency. `groups`: the draw of every
    // group of the world or role; unused for equal splits. `fraction`: one of c chunks.
    // Tasks of the same draw share its matrices: `groups` must live until forget_draws().
    ExchangeTask task(const PhaseWork& phase, const std::vector<DrawnGroup>& groups,
                      double fraction = 1.0);
    void forget_draws() { drawn_.clear(); }

  private:
    using Matrix = std::shared_ptr<const TrafficMatrix>;

    Matrix bytes_of(const TrafficMatrix& copies, double fraction);
    ExchangeStage head_stage(const ExchangeWork& work, double fraction);
    ExchangeStage equal_stage(const ExchangeWork& work, double fraction);

    const Scenario& scenario_;
    const Plan& plan_;
    ExpertLayout layout_;
    std::map<double, Matrix> heads_;         // by fraction
    std::map<std::int64_t, Matrix> equals_;  // by bytes a peer
    std::map<std::pair<const TrafficMatrix*, double>, Matrix> drawn_;
};

// The forward exchange of this phase in a layer, between all ranks of the cluster; nothing where
// the layer has no such one. InputError for a plan whose layers lie on stages of a pipeline.
std::optional<ExchangeTask> layer_exchange(const Scenario& scenario, const Plan& plan, int layer,
                                           Phase phase, int sample = 0);

// [source, destination], whichever way the stage reads its matrices: in one group of the exchange,
// or between all ranks.
TrafficMatrix group_matrix(const ExchangeTask& exchange, std::size_t stage, int group);
TrafficMatrix world_matrix(const ExchangeTask& exchange, std::size_t stage, int num_ranks);

}  // namespace headway::inline workload
