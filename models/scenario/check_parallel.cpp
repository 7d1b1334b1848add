// What the parallel axes of a plan must fit: the world, the model, the batch, each other. Rules are
// Megatron-LM's (core/parallel_state.py, core/transformer/transformer_config.py) unless a message
// says that headway has no price for something.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "models/scenario/check_scenario.hpp"
#include "models/scenario/divisors.hpp"
#include "models/schedule/pipeline_order.hpp"
#include "models/workload/stages.hpp"

namespace headway::inline scenario {
namespace {

// The largest legal value below `found` and the least above it.
std::string nearest(const std::vector<int>& legal, int found) {
    const auto above = std::lower_bound(legal.begin(), legal.end(), found);
    std::string text;
    if (above != legal.begin()) text = std::to_string(*(above - 1));
    if (above != legal.end()) text += (text.empty() ? "" : " or ") + std::to_string(*above);
    return text;
}

class Checks {
  public:
    Checks(const Scenario& scenario, const Plan& plan, std::string where,
           std::vector<InputProblem>& problems)
        : s_(scenario), plan_(plan), where_(std::move(where)), problems_(problems) {}

    void run() {
        multi_token_prediction();
        if (p_ == Parallel{} && !s_.batch.global_batch_size) return;
        if (!world()) return;
        nodes();
        model();
        tokens();
        if (micro_batches()) pipeline();
        context();
        sharding();
        expert_tensor();
        not_priced();
    }

  private:
    void problem(const std::string& key, std::string found, std::string accepted,
                 std::string hint = "") {
        problems_.push_back(
            {where_ + ".parallel." + key, std::move(found), std::move(accepted), std::move(hint)});
    }

    // `size` must divide `number` of `what`.
    bool divides(const std::string& key, int size, int number, const std::string& what) {
        if (number % size == 0) return true;
        problem(key, fmt::format("{} {} does not divide {} {}", key, size, number, what),
                fmt::format("{} {}", key, nearest(divisors(number), size)));
        return false;
    }

    bool world() {
        const int world = s_.cluster.num_ranks();
        const auto fits = [&](std::int64_t ranks, const char* key, int size,
                              const std::string& product) {
            if (world % ranks == 0) return true;
            const std::int64_t others = ranks / size;
            std::vector<int> legal;
            for (const int d : divisors(world))
                if (world % (others * d) == 0) legal.push_back(d);
            problem(key, fmt::format("{} = {} does not divide {} ranks", product, ranks, world),
                    legal.empty() ? fmt::format("a product that divides {}", world)
                                  : fmt::format("{} {}", key, nearest(legal, size)));
            return false;
        };
        const std::int64_t t = t_, c = c_, pp = p_.pipeline_model_parallel_size, e = e_,
                           n = plan_.group_size;
        const bool dense = fits(t * c * pp,
                                t > 1   ? "tensor_model_parallel_size"
                                : c > 1 ? "context_parallel_size"
                                        : "pipeline_model_parallel_size",
                                static_cast<int>(t > 1   ? t
                                                 : c > 1 ? c
                                                         : pp),
                                fmt::format("tensor {} x context {} x pipeline {}", t, c, pp));
        // The rules of group_size have said it where e is 1.
        return dense && (e == 1 ||
                         fits(e * n * pp, "expert_tensor_parallel_size", e_,
                              fmt::format("expert tensor {} x expert {} x pipeline {}", e, n, pp)));
    }

    // Groups lie regularly on nodes: whole nodes, or whole fractions of one.
    void nodes() {
        const int gpus = s_.cluster.gpus_per_node;
        const auto fits = [&](const char* key, int size, int ranks, const char* what) {
            if (ranks % gpus == 0 || gpus % ranks == 0) return;
            problem(key, fmt::format("{} of {} ranks straddle nodes of {} GPUs", what, ranks, gpus),
                    fmt::format("{} {}", key, nearest(divisors(gpus), size)));
        };
        fits("tensor_model_parallel_size", t_, t_, "tensor-parallel groups");
        fits("expert_tensor_parallel_size", e_, e_, "expert-tensor-parallel groups");
        if (c_ > 1) fits("context_parallel_size", c_, t_ * c_, "context-parallel groups");
        if (p_.has_pipeline())
            fits("pipeline_model_parallel_size", p_.pipeline_model_parallel_size,
                 s_.cluster.num_ranks() / p_.pipeline_model_parallel_size, "pipeline stages");
    }

    void model() {
        const ModelSpec& m = s_.model;
        const char* key = "tensor_model_parallel_size";
        divides(key, t_, m.attention.num_heads, "attention heads");
        if (!m.attention.latent) divides(key, t_, m.attention.num_kv_heads, "key and value heads");
        if (m.has_dense_layers()) divides(key, t_, m.dense_width, "columns of the dense layers");
        if (m.moe.num_shared_experts > 0)
            divides(key, t_, m.moe.num_shared_experts * m.moe.shared_expert_width,
                    "columns of the shared experts");
        if (m.vocab_size % t_ != 0) {
            const int step = 128 * t_;
            problem(key,
                    fmt::format("{} {} does not divide a vocabulary of {}", key, t_, m.vocab_size),
                    fmt::format("model.vocab_size padded: {}", (m.vocab_size / step + 1) * step));
        }
        if (t_ > 1 && p_.tp_comm_overlap && !p_.sequence_parallel)
            problem("tp_comm_overlap", "tp_comm_overlap without sequence_parallel",
                    "sequence_parallel true, or tp_comm_overlap false");
        if (t_ > 1 && m.num_moe_layers() > 0 && !p_.sequence_parallel)
            problem("sequence_parallel",
                    fmt::format("MoE layers on tensor-parallel groups of {} without it: every rank "
                                "of a group would route all of its tokens",
                                t_),
                    "sequence_parallel true, or tensor_model_parallel_size 1");
    }

    void tokens() {
        const std::int64_t of_group = rank_tokens(s_.batch, p_).group;
        if (p_.sequence_parallel && of_group % t_ != 0)
            problem(
                "tensor_model_parallel_size",
                fmt::format("{} tokens of a micro-batch do not spread over {} ranks", of_group, t_),
                "a sequence_length that they divide");
    }

    // Whether the number of micro-batches is sound.
    bool micro_batches() {
        const Batch& batch = s_.batch;
        if (!batch.global_batch_size) return true;
        const std::int64_t at_once = std::int64_t{batch.sequences_per_rank} * mesh_of(s_, plan_).dp;
        if (*batch.global_batch_size % at_once == 0) return true;
        const std::int64_t below = *batch.global_batch_size / at_once * at_once;
        problems_.push_back(
            {"batch.global_batch_size",
             fmt::format(
                 "global_batch_size {} is no multiple of {} sequences of a micro-batch x {} "
                 "data-parallel ranks of plan {}",
                 *batch.global_batch_size, batch.sequences_per_rank, mesh_of(s_, plan_).dp,
                 plan_.name),
             below > 0 ? fmt::format("{} or {}", below, below + at_once)
                       : fmt::format("{}", at_once),
             ""});
        return false;
    }

    void pipeline() {
        const char* size = "pipeline_model_parallel_size";
        if (!p_.has_pipeline() && p_.virtual_pipeline_model_parallel_size > 1) {
            problem("virtual_pipeline_model_parallel_size",
                    "virtual stages without a pipeline: pipeline_model_parallel_size is 1", "1");
            return;
        }
        const std::string layout = pipeline_layout_broken(s_.model, p_);
        if (!layout.empty())
            problem(
                p_.pipeline_model_parallel_layout.empty() ? size : "pipeline_model_parallel_layout",
                layout, "a layout of all layers on all stages");
        const PipelineSchedule schedule = p_.schedule();
        const std::string rule =
            pipeline_rule_broken(schedule, {.ranks = p_.pipeline_model_parallel_size,
                                            .chunks = p_.virtual_pipeline_model_parallel_size,
                                            .micro_batches = num_micro_batches(s_, plan_),
                                            .group = p_.microbatch_group_size_per_vp_stage});
        if (!rule.empty())
            problem(p_.pipeline_schedule ? "pipeline_schedule" : size, rule,
                    "a schedule, micro-batches and stages that fit");
        if (p_.overlap_moe_expert_parallel_comm && schedule != PipelineSchedule::combined_1f1b)
            problem("overlap_moe_expert_parallel_comm",
                    fmt::format("exchanges that overlap in pairs beside pipeline_schedule {}",
                                name(schedule)),
                    "combined_1f1b, or no pipeline_schedule");
        if (splits_backward(schedule) && plan_.recompute != Recompute{})
            problem("pipeline_schedule",
                    fmt::format("{} runs weight gradients apart, which headway prices without "
                                "recompute only",
                                name(schedule)),
                    "recompute none, or 1f1b, interleaved or combined_1f1b");
        // Megatron-LM d98e8a6, core/transformer/transformer_config.py.
        const auto* ep = std::get_if<ExpertParallel>(&plan_.layer);
        if (schedule == PipelineSchedule::combined_1f1b && ep != nullptr &&
            ep->dispatcher == TokenDispatcher::allgather)
            problem(
                "pipeline_schedule",
                "combined_1f1b with moe_token_dispatcher_type allgather, whose exchanges no pair "
                "has a place for",
                "alltoall or flex, or 1f1b or interleaved");
        if (schedule == PipelineSchedule::combined_1f1b &&
            (plan_.recompute.is_full() || plan_.recompute.has(RecomputeModule::moe)))
            problem("pipeline_schedule",
                    fmt::format("combined_1f1b with recompute {}, whose exchanges no pair has a "
                                "place for",
                                recompute_text(plan_.recompute)),
                    "other recompute_modules than moe, or 1f1b or interleaved");
    }

    // Megatron-LM d98e8a6, core/transformer: transformer_config.py, multi_token_prediction.py.
    void multi_token_prediction() {
        const int layers = s_.model.mtp_num_layers;
        if (layers > 1 && p_.schedule() == PipelineSchedule::combined_1f1b)
            problem("overlap_moe_expert_parallel_comm",
                    fmt::format("pairs with {} layers of multi-token prediction", layers),
                    "model.mtp_num_layers 0 or 1, or no overlap in pairs");
        if (layers > 0 && plan_.implementation == Implementation::unfused)
            problems_.push_back(
                {where_ + ".implementation",
                 "unfused with multi-token prediction, which the released code has not", "fused",
                 ""});
        const Recompute& recompute = plan_.recompute;
        if (layers > 0 && recompute.is_full() && recompute.method == RecomputeMethod::uniform &&
            recompute.num_layers > 1)
            problems_.push_back(
                {where_ + ".recompute_num_layers",
                 fmt::format("{} layers behind one input beside layers of multi-token prediction",
                             recompute.num_layers),
                 "1, or recompute_method block", ""});
    }

    void context() {
        if (c_ == 1) return;
        const int length = s_.batch.sequence_length, chunks = 2 * c_;
        if (length % chunks != 0) {
            problem("context_parallel_size",
                    fmt::format("a sequence of {} tokens does not spread over 2 x {} chunks, two a "
                                "rank",
                                length, c_),
                    fmt::format("sequence_length {} or {}", length / chunks * chunks,
                                (length / chunks + 1) * chunks));
        }
        const int inner = p_.heads_for_tokens();
        if (p_.cp_comm_type == CpCommType::a2a_p2p) {
            const auto [of_heads, of_ring] = p_.hierarchical_context_parallel_sizes;
            if (of_heads < 1 || of_ring < 1 || of_heads * of_ring != c_)
                return problem("hierarchical_context_parallel_sizes",
                               of_heads < 1 || of_ring < 1
                                   ? std::string("other than two sizes")
                                   : fmt::format("[{}, {}] of {} context-parallel ranks", of_heads,
                                                 of_ring, c_),
                               fmt::format("two whole numbers whose product is {}", c_));
        }
        if (inner == 1) return;
        const Attention& a = s_.model.attention;
        const int kv = a.latent ? a.num_heads : a.num_kv_heads, most = std::gcd(a.num_heads, kv);
        if (most % (t_ * inner) != 0)
            problem("cp_comm_type",
                    fmt::format("a2a with {} heads and {} key and value heads over tensor {} x "
                                "context {} ranks",
                                a.num_heads, kv, t_, inner),
                    "p2p or all_gather, or sizes whose product divides both");
    }

    void sharding() {
        const int instances = p_.num_distributed_optimizer_instances;
        if (instances == 1) return;
        const char* key = "num_distributed_optimizer_instances";
        if (p_.data_parallel_sharding_strategy == DataParallelSharding::no_shard) {
            problem(key, "replicas of shards without data_parallel_sharding_strategy",
                    "1, or a strategy other than no_shard");
            return;
        }
        const Mesh mesh = mesh_of(s_, plan_);
        if (divides(key, instances, mesh.dp * mesh.cp, "data-parallel ranks, context included") &&
            s_.model.num_moe_layers() > 0)
            divides(key, instances, mesh.edp, "replicas of an expert");
    }

    void expert_tensor() {
        if (e_ == 1) return;
        const char* key = "expert_tensor_parallel_size";
        const ModelSpec& m = s_.model;
        const auto* ep = std::get_if<ExpertParallel>(&plan_.layer);
        if (ep == nullptr) {
            problem(key,
                    fmt::format("experts of heads cut over {} ranks: more ranks a head (group_size "
                                "above num_heads) share its experts out without an exchange of "
                                "their rows",
                                e_),
                    "1");
            return;
        }
        if (m.num_moe_layers() > 0) divides(key, e_, m.moe.expert_width, "columns of an expert");
        // Megatron-LM d98e8a6, core/transformer/transformer_config.py.
        if (m.moe.add_bias_linear)
            problem(key,
                    fmt::format("biases of experts (model.moe.add_bias_linear) that are cut over "
                                "{} ranks, each of which would add them",
                                e_),
                    "1");
    }

    void not_priced() {
        if (plan_.implementation == Implementation::unfused &&
            (t_ > 1 || c_ > 1 || p_.has_pipeline() || e_ > 1))
            problems_.push_back({where_ + ".implementation",
                                 "unfused with tensor, context or pipeline parallelism, which the "
                                 "released code has not",
                                 "fused", ""});
    }

    const Scenario& s_;
    const Plan& plan_;
    const Parallel& p_ = plan_.parallel;
    const std::string where_;
    std::vector<InputProblem>& problems_;
    const int t_ = p_.tensor_model_parallel_size, c_ = p_.context_parallel_size,
              e_ = p_.expert_tensor_parallel_size;
};

}  // namespace

void check_parallel(const Scenario& scenario, const Plan& plan, const std::string& where,
                    std::vector<InputProblem>& problems) {
    Checks(scenario, plan, where, problems).run();
}

}  // namespace headway::inline scenario
