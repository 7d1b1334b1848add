// TaskPricer: phases of a Workload -> tasks of a Program: compute priced rank by rank, exchanges
// with their byte matrices and the link efficiencies that the profile's curves imply. Private to
// models/cost.
#pragma once

#include <vector>

#include "models/cost/price.hpp"
#include "models/vocab/program.hpp"
#include "models/vocab/scenario.hpp"
#include "models/workload/exchange_bytes.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

ComputeTask scaled(ComputeTask task, double share);

class TaskPricer {
  public:
    TaskPricer(const Scenario& scenario, const Plan& plan, const Profile& profile,
               const Workload& workload);

    const ExpertLayout& layout() const { return bytes_.layout(); }

    // The same phase on every rank, or one entry where all ranks are alike. `fraction`: one of c
    // chunks.
    ComputeTask compute_task(const std::vector<const PhaseWork*>& ranks, double fraction) const;
    // As ExchangeBytes::task, with the latency and the efficiency of every stage.
    ExchangeTask exchange_task(const PhaseWork& phase, const std::vector<DrawnGroup>& groups,
                               double fraction);
    void forget_draws() { bytes_.forget_draws(); }
    ExchangeTask count_exchange_task(const CountExchangeWork& counts) const;
    ReduceTask reduce_task(const ReduceWork& work, double share);
    HostTask host_task(const std::vector<const PhaseWork*>& ranks, double share) const;
    // To the rank with the same place in another block of as many ranks.
    SendTask send_task(Bytes bytes, int from_block, int to_block, int ranks_of_block) const;
    Seconds launch_time(const PhaseWork& phase) const { return book_.launch_time(phase); }
    double weight_gradient_share(const PhaseWork& phase) const {
        return book_.weight_gradient_share(phase);
    }

  private:
    Seconds compute_time(const ComputeWork& work, Pass pass, double fraction) const;
    void fit_stage(ExchangeStage& stage, const PathBytes& mean, int group_size, int stride = 1,
                   Collective collective = Collective::all_to_all) const;
    PathBytes mean_bytes(bool second_stage) const;
    const LayerWork& moe_layer_of_workload() const;

    const Scenario& scenario_;
    const Workload& workload_;
    ExchangeBytes bytes_;
    Cluster cluster_;  // without overrides, which the simulator applies
    PriceBook book_;
};

}  // namespace headway::inline cost
