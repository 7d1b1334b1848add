// The stages of node-dedup one after the other, each an exchange of its own. Private to
// models/cost.
#pragma once

#include "models/workload/workload.hpp"

namespace headway::inline cost {

struct ExchangeStages {
    ExchangeWork over_nic, inside;
};

// `own`: the share of the bytes inside nodes that travels beside the first stage.
ExchangeStages exchange_stages(const ExchangeWork& work, double own);

}  // namespace headway::inline cost
