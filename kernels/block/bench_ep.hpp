// The block with the EP layer: cases that register_block_cases adds.
#pragma once

#include "kernels/bench/registry.hpp"

namespace headway::kernels::bench {

void register_ep_block_cases(Registry& registry);

}  // namespace headway::kernels::bench
