// Multi-token prediction: what stands around the transformer layer that predicts a further token,
// as Megatron-LM runs it (core/transformer/multi_token_prediction.py). Its logits and its loss are
// the head's.
#include "models/workload/phases.hpp"

namespace headway::inline workload {
namespace {

// Every rank has a part of the product's columns and needs whole rows, whether or not it keeps its
// tokens alone of them.
void gather_columns(const StepShape& s, std::vector<PhaseWork>& phases) {
    if (s.mesh.tp > 1)
        phases.push_back(reduce_phase(Phase::tp_all_gather, Pass::forward, Collective::all_gather,
                                      s.mesh.tp_group(), s.group_tokens * s.hidden * s.element));
}

// A norm for the rows of `count` tensors: read and written; backward reads the gradient and the
// input twice, and writes one.
PhaseWork norms(const StepShape& s, Pass pass, int count) {
    const double row = s.tokens * s.hidden * s.element;
    return compute_phase(
        Phase::norm, pass,
        {move(Kernel::streaming, (pass == Pass::forward ? 2.0 : 4.0) * count * row, count)});
}

}  // namespace

void add_mtp_input(const StepShape& s, Pass pass, std::vector<PhaseWork>& phases) {
    std::vector<PhaseWork> embedding;
    add_embedding(s, embedding);
    const auto embed = of_pass(embedding, pass);
    const bool forward = pass == Pass::forward;
    // Both normed rows are copied beside each other; backward, their gradients apart.
    const PhaseWork project = compute_phase(
        Phase::mtp_project, pass,
        {move(Kernel::streaming, 4.0 * s.tokens * s.hidden * s.element),
         gemm(s.group_tokens, s.hidden / s.mesh.tp, 2.0 * s.hidden, s.element, forward ? 1 : 2)});
    if (forward) {
        phases.insert(phases.end(), embed.begin(), embed.end());
        phases.push_back(norms(s, pass, 2));
        gather_rows(s, pass, 2.0 * s.hidden, phases);
        phases.push_back(project);
        gather_columns(s, phases);
        return;
    }
    gather_rows(s, pass, s.hidden, phases);
    gather_rows(s, pass, 2.0 * s.hidden, phases);  // the input again, for the weights' gradient
    phases.push_back(project);
    scatter_sum(s, pass, 2.0 * s.hidden, phases);
    phases.push_back(norms(s, pass, 2));
    phases.insert(phases.end(), embed.begin(), embed.end());
}

void add_mtp_output(const StepShape& s, Pass pass, std::vector<PhaseWork>& phases) {
    phases.push_back(norms(s, pass, 1));
}

}  // namespace headway::inline workload
