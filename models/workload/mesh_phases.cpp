// What the axes of a plan exchange: activations over tensor- and context-parallel ranks, parameters
// and gradients over data-parallel ones. docs/reference/model.md, section 5, has the volumes.
#include <algorithm>

#include "models/workload/phases.hpp"

namespace headway::inline workload {
PhaseWork reduce_phase(Phase phase, Pass pass, Collective collective, const RankGroup& group,
                       double bytes, Beside beside) {
    return {phase, pass,
            ReduceWork{.collective = collective,
                       .group_size = group.size,
                       .stride = group.stride,
                       .bytes = bytes * byte},
            false, beside};
}

bool overlaps_tp(const StepShape& s) {
    return s.plan.parallel.tp_comm_overlap && s.scenario.model.attention.has_user_buffers();
}

void gather_rows(const StepShape& s, Pass pass, double width, std::vector<PhaseWork>& phases,
                 bool buffered) {
    if (s.mesh.tp == 1 || !s.plan.parallel.sequence_parallel) return;
    phases.push_back(reduce_phase(Phase::tp_all_gather, pass, Collective::all_gather,
                                  s.mesh.tp_group(), s.group_tokens * width * s.element,
                                  buffered ? Beside::next_phase : Beside::nothing));
}

void scatter_sum(const StepShape& s, Pass pass, double width, std::vector<PhaseWork>& phases,
                 bool buffered) {
    if (s.mesh.tp == 1) return;
    const bool scatters = s.plan.parallel.sequence_parallel;
    phases.push_back(reduce_phase(scatters ? Phase::tp_reduce_scatter : Phase::tp_all_reduce, pass,
                                  scatters ? Collective::reduce_scatter : Collective::all_reduce,
                                  s.mesh.tp_group(), s.group_tokens * width * s.element,
                                  buffered ? Beside::previous_phase : Beside::nothing));
}

void add_cut_phase(const StepShape& s, Pass pass, double width, std::vector<PhaseWork>& phases,
                   PhaseWork cut, bool buffered) {
    gather_rows(s, pass, width, phases, buffered);
    // Backward: of the output's gradient, and of the input again, for the weights' gradient.
    if (pass == Pass::backward) gather_rows(s, pass, width, phases, buffered);
    phases.push_back(std::move(cut));
    scatter_sum(s, pass, width, phases, buffered);
}

void add_loss_sums(const StepShape& s, std::vector<PhaseWork>& phases) {
    if (s.mesh.tp == 1) return;
    // Maximum, sum of exponentials, and the target's logit, in fp32.
    for (int i = 0; i < 3; ++i)
        phases.push_back(reduce_phase(Phase::tp_all_reduce, Pass::forward, Collective::all_reduce,
                                      s.mesh.tp_group(), 4.0 * s.group_tokens));
}

namespace {

// The heads of all ranks of the inner level for the tokens of one become some heads for all tokens,
// or back.
void exchange_heads(const StepShape& s, Pass pass, double width, std::vector<PhaseWork>& phases) {
    const RankGroup group = s.mesh.cp_inner_group();
    if (group.size == 1) return;
    phases.push_back({Phase::cp_exchange, pass,
                      equal_exchange(s.scenario.cluster, group.stride * group.size, group.stride,
                                     s.group_tokens * width / group.size * s.element * byte)});
}

// All ranks of the outer level: the tokens of each of its groups, with the heads that it has.
double keys_and_values(const StepShape& s, const CoreWidths& widths) {
    return s.mesh.cp_outer_group().size * s.group_tokens * widths.key_value * s.element;
}

}  // namespace

void exchange_into_core(const StepShape& s, Pass pass, const CoreWidths& widths,
                        std::vector<PhaseWork>& phases) {
    const bool forward = pass == Pass::forward;
    exchange_heads(s, pass, forward ? widths.query + widths.key_value : widths.out, phases);
    const RankGroup group = s.mesh.cp_outer_group();
    if (group.size == 1) return;
    // The ring of the backward pass takes their gradients along.
    const bool ring = s.plan.parallel.cp_comm_type != CpCommType::all_gather;
    const double whole = keys_and_values(s, widths);
    phases.push_back(reduce_phase(Phase::cp_exchange, pass, Collective::all_gather, group,
                                  ring && !forward ? 2.0 * whole : whole,
                                  ring ? Beside::next_phase : Beside::nothing));
}

void exchange_out_of_core(const StepShape& s, Pass pass, const CoreWidths& widths,
                          std::vector<PhaseWork>& phases) {
    const bool forward = pass == Pass::forward;
    exchange_heads(s, pass, forward ? widths.out : widths.query + widths.key_value, phases);
    if (s.plan.parallel.cp_comm_type != CpCommType::all_gather || forward || s.mesh.cp == 1) return;
    phases.push_back(reduce_phase(Phase::cp_exchange, pass, Collective::reduce_scatter,
                                  s.mesh.cp_outer_group(), keys_and_values(s, widths)));
}

}  // namespace headway::inline workload
