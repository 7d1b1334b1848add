// The part of a Workload that only a plan with an order of chunks has.
#include <algorithm>
#include <cstdlib>
#include <utility>

#include "models/vocab/error.hpp"
#include "models/workload/phases.hpp"

namespace headway::inline workload {
namespace {

void refuse(const Plan& plan, std::string broken) {
    if (broken.empty()) return;
    throw InputError({.where = "plan " + plan.name, .found = std::move(broken)});
}

// DualPipe's rank `apart` of this one holds the same stages: what is left of their gradients to a
// rank once its own group has reduced them is summed with that one's.
void sum_copies(const StepShape& s, const RankParameters& count, int apart,
                std::vector<PhaseWork>& late) {
    const int instances = s.plan.parallel.num_distributed_optimizer_instances;
    const auto shards = [&](int size) {
        return shards_optimizer(s.plan) ? std::max(1, size / instances) : 1;
    };
    const double own =
        count.dense() / shards(s.mesh.dp * s.mesh.cp) + count.experts / shards(s.mesh.edp);
    late.push_back(reduce_phase(Phase::grad_all_reduce, Pass::update, Collective::all_reduce,
                                {0, 2, apart * s.mesh.ranks_of_stage()},
                                bytes_per_element(s.plan.main_grads_dtype) * own));
}

// What a pipeline rank with these stages does after its last step.
void add_rank(const StepShape& s, int rank, const std::vector<PipelineStage>& stages,
              PipelineWork& work) {
    std::vector<PhaseWork>& late = work.late_reductions.emplace_back();
    std::vector<PhaseWork>& update = work.updates.emplace_back();
    std::vector<PhaseWork> phases;
    add_update(s, stages, phases);
    for (PhaseWork& phase : phases) {
        if (leaves_early(phase) || comes_ahead(phase)) continue;
        const bool gradients = std::holds_alternative<ReduceWork>(phase.work) &&
                               phase.phase != Phase::param_all_gather;
        (gradients ? late : update).push_back(std::move(phase));
    }
    if (work.schedule == PipelineSchedule::dualpipe)
        sum_copies(s, rank_parameters(s.scenario.model, s.plan, stages),
                   std::abs(s.mesh.pp - 1 - 2 * rank), late);
}

std::vector<PhaseWork> gathers_ahead(const StepShape& s, const PipelineStage& stage) {
    std::vector<PhaseWork> phases;
    add_update(s, {&stage, 1}, phases);
    std::erase_if(phases, [](const PhaseWork& phase) { return !comes_ahead(phase); });
    return phases;
}

// Only the first chunk of the first rank is cut into buckets (Megatron-LM,
// core/distributed/distributed_data_parallel.py): no bubble follows its backward.
std::vector<PhaseWork> early_reductions(const StepShape& s, const PipelineStage& stage,
                                        bool in_buckets) {
    std::vector<PhaseWork> phases;
    add_update(s, {&stage, 1}, phases);
    std::erase_if(phases, [](const PhaseWork& phase) { return !leaves_early(phase); });
    if (!in_buckets)
        for (PhaseWork& phase : phases) std::get<ReduceWork>(phase.work).buckets.clear();
    return phases;
}

// The farthest pair of ranks of two pipeline ranks: a stage ends with the last of them.
PathClass farthest_path(const Cluster& cluster, const Mesh& mesh, int from, int to) {
    const int ranks = mesh.ranks_of_stage();
    PathClass farthest = PathClass::self;
    for (int i = 0; i < ranks; ++i)
        farthest = std::max(farthest, path_class(cluster, from * ranks + i, to * ranks + i));
    return farthest;
}

}  // namespace

PipelineWork build_pipeline(const Scenario& scenario, const Plan& plan) {
    const StepShape s = step_shape(scenario, plan);
    const Parallel& parallel = plan.parallel;
    PipelineWork work{.schedule = parallel.schedule(),
                      .shape = {.ranks = s.mesh.pp,
                                .chunks = parallel.virtual_pipeline_model_parallel_size,
                                .micro_batches = num_micro_batches(scenario, plan),
                                .group = parallel.microbatch_group_size_per_vp_stage},
                      .delay_wgrad = parallel.delay_wgrad_compute};
    refuse(plan, pipeline_rule_broken(work.schedule, work.shape));
    refuse(plan, pipeline_layout_broken(scenario.model, parallel));
    if (plan.overlap_chunks > 1 && has_pairs(work.schedule))
        refuse(plan, "overlap_chunks beside pairs of a forward and a backward (" +
                         std::string(name(work.schedule)) + "), which hide the exchanges");
    work.stages = pipeline_stages(scenario.model, parallel);
    work.rows = rows_sent(work.stages);
    work.message = s.tokens * s.hidden * s.element * byte;
    for (int rank = 0; rank < s.mesh.pp; ++rank)
        work.paths.push_back(farthest_path(scenario.cluster, s.mesh, rank, (rank + 1) % s.mesh.pp));
    std::vector<std::vector<PipelineStage>> stages_of_rank(static_cast<std::size_t>(s.mesh.pp));
    const PipelineOrder lies = pipeline_places(work.schedule, work.shape);
    for (int i = 0; i < lies.stages; ++i) {
        const PipelineStage& stage = work.stages[static_cast<std::size_t>(i)];
        for (int direction = 0; direction < lies.directions; ++direction)
            stages_of_rank[static_cast<std::size_t>(lies.rank_of(direction, i))].push_back(stage);
        work.reductions.push_back(early_reductions(s, stage, i == 0));
        work.gathers.push_back(gathers_ahead(s, stage));
    }
    for (int rank = 0; rank < s.mesh.pp; ++rank)
        add_rank(s, rank, stages_of_rank[static_cast<std::size_t>(rank)], work);
    return work;
}

}  // namespace headway::inline workload
