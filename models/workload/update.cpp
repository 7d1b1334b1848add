// Gradients, optimizer and sharded parameters: what data-parallel ranks move, in every micro-batch
// and at the end of a step. docs/reference/model.md, section 5.
#include <algorithm>
#include <numeric>
#include <utility>
#include <variant>

#include "models/workload/phases.hpp"

namespace headway::inline workload {
namespace {

// Ranks that hold the same parameters, of which `shard` share them out and `replicas` hold equal
// shards (Megatron-LM's num_distributed_optimizer_instances: consecutive parts of the group).
struct Sharing {
    RankGroup all, shard, replicas;
};

Sharing sharing(const RankGroup& all, int instances) {
    const int size = std::max(1, all.size / instances);
    return {.all = all,
            .shard = {0, size, all.stride},
            .replicas = {0, all.size / size, all.stride * size}};
}

struct Sharings {
    Sharing dense, experts;
};

Sharings sharings(const StepShape& s) {
    const int instances = s.plan.parallel.num_distributed_optimizer_instances;
    return {sharing(s.mesh.dp_cp_group(), instances), sharing(s.mesh.edp_group(), instances)};
}

bool at_least(const StepShape& s, DataParallelSharding strategy) {
    return s.plan.parallel.data_parallel_sharding_strategy >= strategy;
}

double gradient_bytes(const StepShape& s) {
    return bytes_per_element(s.plan.main_grads_dtype);
}

// AdamW bytes per parameter: gradient read; master and both moments read and written; bf16
// parameter written, and read where the master is its remainder; its narrow copies for both
// directions of a GEMM, written.
double optimizer_bytes(const Plan& plan) {
    const double copies = plan.precision.recipe == Recipe::none
                              ? 0.0
                              : 2.0 * bytes_per_element(plan.precision.linear(Dtype::bf16));
    return copies + bytes_per_element(plan.main_grads_dtype) +
           2.0 * (master_bytes(plan) + moment_bytes(plan)) +
           2.0 * (plan.store_param_remainders ? 2.0 : 1.0);
}

double sum(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
}

std::vector<double> shares_of(std::vector<double> values) {
    const double all = sum(values);
    for (double& v : values) v /= all;
    return values;
}

struct Overlapped {
    HiddenBy hidden_by = HiddenBy::nothing;
    std::vector<double> buckets{};  // parameters
    NeededBy needed_by = NeededBy::layers;
};

class Update {
  public:
    Update(const StepShape& s, std::vector<PhaseWork>& phases) : s_(s), phases_(phases) {}

    // `parameters` of each bucket.
    void reduce_gradients(Phase phase, const Sharing& ranks,
                          const std::vector<double>& parameters) {
        const Overlapped overlap{
            s_.plan.overlap_grad_all_reduce ? HiddenBy::last_backward : HiddenBy::nothing,
            parameters};
        const double bytes = gradient_bytes(s_) * sum(parameters);
        if (!shards_optimizer(s_.plan))
            return add(phase, Collective::all_reduce, ranks.all, bytes, overlap);
        // ZeRO-2 and beyond have scattered them in every micro-batch.
        if (!at_least(s_, DataParallelSharding::optim_grads))
            add(phase, Collective::reduce_scatter, ranks.shard, bytes, overlap);
        add(phase, Collective::all_reduce, ranks.replicas, bytes / ranks.shard.size, overlap);
    }

    // Each tensor-parallel rank has seen its own tokens: gradients of what all of them hold.
    void sum_over_tensor_ranks(double parameters) {
        if (s_.plan.parallel.sequence_parallel)
            add(Phase::tp_all_reduce, Collective::all_reduce, s_.mesh.tp_group(),
                gradient_bytes(s_) * parameters);
    }

    // The embedding's copies, on the first stage of a pipeline and on another one.
    void sum_embedding(std::span<const PipelineStage> stages) {
        const ModelSpec& model = s_.scenario.model;
        if (s_.mesh.pp == 1 || (!model.tied_embeddings && model.mtp_num_layers == 0)) return;
        const auto has_copy = [&](const PipelineStage& stage) {
            return stage.mtp_layers > 0 || (model.tied_embeddings && stage.head_and_loss);
        };
        // On one rank (a V) they are one table.
        if (std::ranges::any_of(stages, &PipelineStage::embedding) ==
            std::ranges::any_of(stages, has_copy))
            return;
        const std::vector<PipelineStage> all = pipeline_stages(model, s_.plan.parallel);
        const auto copy = static_cast<int>(std::ranges::find_if(all, has_copy) - all.begin());
        const Parallel& parallel = s_.plan.parallel;
        const PipelineOrder places = pipeline_places(
            parallel.schedule(),
            {.ranks = s_.mesh.pp, .chunks = parallel.virtual_pipeline_model_parallel_size});
        add(Phase::grad_all_reduce, Collective::all_reduce,
            s_.mesh.embedding_group(places.rank_of(0, copy)),
            gradient_bytes(s_) * vocabulary_parameters(model, s_.plan).cut);
    }

    // `pieces`: that copies to and from the host are cut into where they overlap its work.
    void optimize(double held, double own, int pieces) {
        const double offloaded = s_.plan.offload.optimizer_share() * own;
        const int cut = s_.plan.offload.overlap_cpu_optimizer_d2h_h2d ? pieces : 1;
        const auto on_host = [&](Phase phase, HostPart part, double bytes) {
            if (offloaded > 0.0)
                phases_.push_back({.phase = phase,
                                   .pass = Pass::update,
                                   .work = HostWork{part, offloaded * bytes * byte, cut}});
        };
        on_host(Phase::offload, HostPart::down, kOffloadedParameterBytes);
        on_host(Phase::host_optimizer, HostPart::optimizer, kHostOptimizerBytes);
        optimize_on_gpu(held, own, own - offloaded);
        on_host(Phase::reload, HostPart::up, kOffloadedParameterBytes);
    }

    // `dense`, `experts`: parameters of each layer; `table`, `head`: of the dense ones besides.
    void gather_parameters(const Sharings& ranks, const std::vector<double>& dense,
                           const std::vector<double>& experts, double table, double head) {
        if (!gathers_once(s_.plan.parallel.data_parallel_sharding_strategy)) return;
        const HiddenBy overlap =
            s_.plan.overlap_param_gather ? HiddenBy::first_forward : HiddenBy::nothing;
        const auto gather = [&](const Sharing& of, double parameters, Overlapped overlapped) {
            add(Phase::param_all_gather, Collective::all_gather, of.shard, s_.element * parameters,
                overlapped);
        };
        const bool apart = overlap != HiddenBy::nothing;
        if (apart) gather(ranks.dense, table, {overlap, {}, NeededBy::table});
        gather(ranks.dense, sum(dense) + (apart ? 0.0 : table + head), {overlap, dense});
        gather(ranks.experts, sum(experts), {overlap, experts});
        if (apart) gather(ranks.dense, head, {overlap, {}, NeededBy::head});
    }

  private:
    void optimize_on_gpu(double held, double own, double updated) {
        // Unfused: a pass of its own divides the gradients by the number of micro-batches.
        const bool unfused = s_.plan.implementation == Implementation::unfused;
        const double divide = unfused ? 2.0 * gradient_bytes(s_) : 0.0;
        PhaseWork phase = compute_phase(Phase::optimizer, Pass::update, {});
        auto& work = std::get<ComputeWork>(phase.work);
        if (updated > 0.0)
            work.add(move(Kernel::optimizer, updated * (optimizer_bytes(s_.plan) + divide)));
        if (const double besides = framework_update_bytes(s_, held, own); besides > 0.0)
            work.add(move(Kernel::streaming, besides, 5));
        if (work.num_kernels > 0) phases_.push_back(std::move(phase));
    }

    void add(Phase phase, Collective collective, const RankGroup& group, double bytes,
             const Overlapped& overlapped = {}) {
        if (group.size <= 1 || bytes <= 0.0) return;
        phases_.push_back(reduce_phase(phase, Pass::update, collective, group, bytes));
        auto& work = std::get<ReduceWork>(phases_.back().work);
        work.hidden_by = overlapped.hidden_by;
        work.needed_by = overlapped.needed_by;
        if (work.hidden_by != HiddenBy::nothing && !overlapped.buckets.empty())
            work.buckets = shares_of(overlapped.buckets);
    }

    const StepShape& s_;
    std::vector<PhaseWork>& phases_;
};

void add_collective(const StepShape& s, Phase phase, Pass pass, Collective collective,
                    const RankGroup& group, double bytes, Beside beside,
                    std::vector<PhaseWork>& phases) {
    if (group.size <= 1 || bytes <= 0.0) return;
    phases.push_back(reduce_phase(phase, pass, collective, group, bytes,
                                  s.plan.overlap_grad_all_reduce ? beside : Beside::nothing));
}

}  // namespace

void gather_parameters(const StepShape& s, const RankParameters& parameters, Pass pass,
                       Beside beside, std::vector<PhaseWork>& phases) {
    if (!at_least(s, DataParallelSharding::optim_grads_params)) return;
    const auto [dense, experts] = sharings(s);
    add_collective(s, Phase::param_all_gather, pass, Collective::all_gather, dense.shard,
                   s.element * parameters.dense(), beside, phases);
    add_collective(s, Phase::param_all_gather, pass, Collective::all_gather, experts.shard,
                   s.element * parameters.experts, beside, phases);
}

void scatter_gradients(const StepShape& s, const RankParameters& parameters, Beside beside,
                       std::vector<PhaseWork>& phases) {
    if (!at_least(s, DataParallelSharding::optim_grads)) return;
    const auto [dense, experts] = sharings(s);
    add_collective(s, Phase::grad_all_reduce, Pass::backward, Collective::reduce_scatter,
                   dense.shard, gradient_bytes(s) * parameters.dense(), beside, phases);
    add_collective(s, Phase::expert_grad_all_reduce, Pass::backward, Collective::reduce_scatter,
                   experts.shard, gradient_bytes(s) * parameters.experts, beside, phases);
}

void add_update(const StepShape& s, std::span<const PipelineStage> stages,
                std::vector<PhaseWork>& update) {
    const RankParameters count = rank_parameters(s.scenario.model, s.plan, stages);
    std::vector<double> in_layers, experts_in_layers;
    for (const PipelineStage& stage : stages) {
        for (int i = 0; i < stage.num_layers; ++i) {
            const RankParameters layer =
                layer_parameters(s.scenario.model, s.plan, stage.first_layer + i);
            in_layers.push_back(layer.dense());
            experts_in_layers.push_back(layer.experts);
        }
    }
    const double vocabulary = vocabulary_parameters(s.scenario.model, s.plan).dense();
    const double table = std::ranges::any_of(stages, &PipelineStage::embedding) ? vocabulary : 0.0;
    const double head = count.dense() - sum(in_layers) - table;
    // The head's gradients leave with those of the last layer, the table's when all is done.
    std::vector<double> buckets = in_layers;
    buckets.push_back(table);
    (in_layers.empty() ? buckets.back() : buckets[in_layers.size() - 1]) += head;
    const auto [dense, experts] = sharings(s);
    Update phases(s, update);
    phases.reduce_gradients(Phase::grad_all_reduce, dense, buckets);
    phases.reduce_gradients(Phase::expert_grad_all_reduce, experts, experts_in_layers);
    phases.sum_over_tensor_ranks(count.whole);
    phases.sum_embedding(stages);
    const bool sharded = shards_optimizer(s.plan);
    const double held = count.dense() + count.experts;
    phases.optimize(
        held,
        sharded ? count.dense() / dense.shard.size + count.experts / experts.shard.size : held,
        static_cast<int>(in_layers.size()) + 1);
    phases.gather_parameters({dense, experts}, in_layers, experts_in_layers, table, head);
}

}  // namespace headway::inline workload
