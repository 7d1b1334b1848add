// What a call costs the host, as a step makes it: transformer layers of EP and of HP, so small that
// the device is done before the host is, enqueued by the runtime's own code, phase after phase. A
// loop of one call would find its code and data in the caches, which a layer does not.
#pragma once

#include <vector>

#include "runtime/cuda/overheads.hpp"

namespace headway::runtime {

// Collective. For each repeat the mean time of a call of each kind (models/vocab/host_call.hpp), of
// the rank that is last in a layer: "host_product", from the phases whose calls are all of that
// kind; and the medians of all phases, "host ep_naive route forward", for the reader. One rank
// exchanges nothing.
std::vector<OverheadSample> measure_host_calls(DeviceContext& context);

}  // namespace headway::runtime
