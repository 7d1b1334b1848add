// The recorded job under Head Parallel: its MoE layers out, headway's HP layers of equal parameters
// in. What the rest of the script does stays as it was recorded.
#pragma once

#include "models/recorded/recording.hpp"
#include "models/vocab/cluster.hpp"
#include "models/vocab/profile.hpp"

namespace headway::inline recorded {

// Out are the kernels that the script's annotation of its MoE layers covers
// (RecordedRouter::annotation), a router's exchanges, what runs between them, and the counts and
// the host's waits before them. In their place stand the phases of an HP layer with `num_heads`
// heads on the ranks of that exchange: kernels take what `profile` says, exchanges are even, the
// host takes for each what it takes for a kernel and an exchange of the script, and a reduction of
// the two projections' bf16 gradients over all ranks follows backward, hidden by nothing.
// InputError where the program does not say what its layers are, or where they are recomputed.
Recording under_head_parallel(const Recording& recording, int num_heads, const Cluster& cluster,
                              const Profile& profile);

}  // namespace headway::inline recorded
