// Where the gradients of weights go in every micro-batch: docs/reference/model.md, section 4.
#include <variant>

#include "models/workload/phases.hpp"

namespace headway::inline workload {

void add_gradient_traffic(const StepShape& s, std::span<PhaseWork> phases) {
    const Plan& plan = s.plan;
    // What the released code moves is counted in unfused.cpp.
    if (plan.implementation == Implementation::unfused) return;
    const double main = bytes_per_element(plan.main_grads_dtype);
    // Gradients that are scattered in every micro-batch are written, others added to.
    const bool scattered =
        plan.parallel.data_parallel_sharding_strategy >= DataParallelSharding::optim_grads;
    const double added = scattered ? main : 2.0 * main;
    const double by_product = plan.gradient_accumulation_fusion ? added : s.element;
    const int batches = num_micro_batches(s.scenario, plan);
    // The first micro-batch writes; a kernel of its own adds in each.
    const double read_again =
        plan.gradient_accumulation_fusion ? (added - main) * (batches - 1.0) / batches : 0.0;
    for (PhaseWork& phase : phases) {
        auto* compute = std::get_if<ComputeWork>(&phase.work);
        if (compute == nullptr || phase.kernel_pass() == Pass::forward) continue;
        double parameters = 0.0;
        for (int i = 0; i < compute->num_kernels; ++i) {
            KernelWork& work = compute->kernels[static_cast<std::size_t>(i)];
            if (work.parameters == 0.0) continue;
            work.weight_bytes =
                0.5 * work.bytes + work.parameters * (by_product - s.element) * byte;
            work.bytes = 0.5 * work.bytes + work.weight_bytes;
            parameters += work.parameters;
        }
        compute->added_to = parameters * read_again * byte;
        if (plan.gradient_accumulation_fusion || parameters == 0.0) continue;
        KernelWork add = move(Kernel::streaming, parameters * (s.element + added));
        add.weight_bytes = add.bytes;
        compute->add(add);
    }
}

}  // namespace headway::inline workload
