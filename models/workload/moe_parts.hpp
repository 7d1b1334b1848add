// The parts that kinds of MoE layers are made of, on the busiest rank. Private to models/workload.
#pragma once

#include <vector>

#include "models/workload/phases.hpp"

namespace headway::inline workload {

// Bytes of an element on the wire: the plan's precision may narrow what experts are given, and the
// gradients that they are given.
double wire_element(const StepShape& s, bool to_experts, Pass pass);

KernelWork router(const StepShape& s, Pass pass, double tokens, double width, int routers);
// Experts on `rows` rows: up and down GEMMs; backward has a dgrad and a wgrad for each. `kernel`
// says who does it: grouped GEMMs with an activation kernel between, or the fused kernel that
// recomputes its hidden rows in backward.
PhaseWork experts(const StepShape& s, Pass pass, double rows, Kernel kernel);
void add_shared_expert(const StepShape& s, Pass pass, std::vector<PhaseWork>& phases);

// Sorting the (token, choice) pairs by expert: 4-byte ids and gates read and written, in three
// small kernels.
KernelWork group_choices(double choices);
PhaseWork permute_phase(const StepShape& s, Phase phase, Pass pass, double tokens, double copies);
// From arrived copies to expert rows and back.
void add_regroup(const StepShape& s, Phase phase, Pass pass, const MoeRows& rows,
                 std::vector<PhaseWork>& phases);

// Dispatch or combine of copies.
PhaseWork exchange_phase(const StepShape& s, Phase phase, Pass pass, const GroupLoad& load);
// What headway's runtime tells of every copy under dedup: k choices, 4 B each, once their experts
// and once their gates; in backward the gates' gradients travel back.
void add_records(const StepShape& s, Pass pass, const GroupLoad& load,
                 std::vector<PhaseWork>& phases);
// The range of phases that overlap_chunks splits.
void mark_pipeline(const std::vector<PhaseWork>& phases, Phase first, Phase last,
                   std::vector<PhaseRange>& pipelines);

}  // namespace headway::inline workload
