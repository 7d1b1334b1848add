#include "models/cost/exchange_stages.hpp"

#include <cstddef>

namespace headway::inline cost {

ExchangeStages exchange_stages(const ExchangeWork& work, double own) {
    ExchangeStages stages{.over_nic = {.group_size = work.group_size},
                          .inside = {.group_size = work.group_size}};
    const auto split = [&](PathBytes ExchangeWork::*field, PathBytes ExchangeWork::*forward) {
        for (std::size_t c = 0; c < work.mean.size(); ++c) {
            (stages.over_nic.*field)[c] = (work.*field)[c] + own * (work.*forward)[c];
            (stages.inside.*field)[c] = (1.0 - own) * (work.*forward)[c];
        }
    };
    split(&ExchangeWork::mean, &ExchangeWork::forward_mean);
    split(&ExchangeWork::busiest, &ExchangeWork::forward_busiest);
    split(&ExchangeWork::on_curve, &ExchangeWork::forward_on_curve);
    split(&ExchangeWork::links, &ExchangeWork::forward_links);
    return stages;
}

}  // namespace headway::inline cost
