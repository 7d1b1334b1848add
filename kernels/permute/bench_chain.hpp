// The way of rank-dedup from end to end on one device, every rank's part in one buffer:
// keys, sort, records, one copy per distinct rank, expansion to its experts there, gated sum there,
// sum at the source.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/bench/registry.hpp"

namespace headway::kernels::bench {

Case make_dedup_chain(const Shape& shape, int num_ranks, std::vector<std::int32_t> index);

}  // namespace headway::kernels::bench
