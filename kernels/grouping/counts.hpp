// The kernels before the scatter; shapes are checked by the callers.
#pragma once

#include "kernels/grouping/grouping.hpp"

namespace headway::kernels::grouping {

void launch_count(const GroupingShape& shape, const int32_t* index, int32_t* counts,
                  cudaStream_t stream);
/// counts [H, counts_per_head, E] become exclusive prefixes over the token blocks, in place;
/// group_size [H, E].
void launch_prefix(const GroupingShape& shape, int32_t* counts, int32_t* group_size,
                   cudaStream_t stream);

}  // namespace headway::kernels::grouping
