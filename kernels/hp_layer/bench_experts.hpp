// Internal to hp_layer/: the cases of the expert kernels, registered with the layer's.
#pragma once
#include "kernels/bench/registry.hpp"

namespace headway::kernels::bench {

void register_expert_cases(Registry& registry);

}  // namespace headway::kernels::bench
