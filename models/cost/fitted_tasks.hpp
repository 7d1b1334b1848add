// What a simulated collective needs so that, alone on its links, it takes the time that the curves
// of a profile say: latencies, and achieved fractions of link bandwidths.
#pragma once

#include "models/cost/price.hpp"
#include "models/vocab/cluster.hpp"
#include "models/vocab/program.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

// As links and ranks are but for what overrides say, which a simulation applies itself.
Cluster without_overrides(Cluster cluster);

// The exchange in which the mean rank sends these bytes, on every path class. `cluster`: as the
// book prices it.
void fit_stage(ExchangeStage& stage, const PathBytes& mean, int group_size, Collective collective,
               const PriceBook& book, const Cluster& cluster, int stride = 1);

ReduceTask fitted_reduction(const ReduceWork& work, const PriceBook& book);

}  // namespace headway::inline cost
