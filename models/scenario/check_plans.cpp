#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <set>

#include "models/scenario/check_scenario.hpp"
#include "models/scenario/divisors.hpp"
#include "models/scenario/moe_keys.hpp"
#include "models/workload/moe_layer.hpp"

namespace headway::inline scenario {
namespace {

// Groups lie regularly on nodes: whole nodes, or whole fractions of one.
bool fits_nodes(int group_size, const Plan& plan, const Cluster& cluster) {
    const std::int64_t ranks = ranks_of_group(group_size, plan);
    return ranks % cluster.gpus_per_node == 0 || cluster.gpus_per_node % ranks == 0;
}

// Ranks of a pipeline stage, which a group lies in; all ranks where there is none, or no whole one.
int ranks_of_stage(const Scenario& scenario, const Plan& plan) {
    const int world = scenario.cluster.num_ranks(),
              stages = plan.parallel.pipeline_model_parallel_size;
    return world % stages == 0 ? world / stages : world;
}

std::vector<int> valid_group_sizes(const Scenario& scenario, const Plan& plan) {
    std::vector<int> valid;
    const int ranks = ranks_of_stage(scenario, plan), e = plan.parallel.expert_tensor_parallel_size;
    if (ranks % e != 0) return valid;
    for (const int size : divisors(ranks / e)) {
        if (fits_nodes(size, plan, scenario.cluster) &&
            moe_layer_kind(plan).why_not(scenario.model, plan, size).empty()) {
            valid.push_back(size);
        }
    }
    return valid;
}

}  // namespace

bool check_group_size(const Scenario& scenario, const Plan& plan, const std::string& where,
                      std::vector<InputProblem>& problems) {
    const int ranks = ranks_of_stage(scenario, plan);
    std::string found;
    if (ranks % plan.group_size != 0) {
        found = fmt::format("group_size {} does not divide {} ranks{}", plan.group_size, ranks,
                            ranks < scenario.cluster.num_ranks() ? " of a pipeline stage" : "");
    } else if (!fits_nodes(plan.group_size, plan, scenario.cluster)) {
        found = fmt::format("groups of {} ranks straddle nodes of {} GPUs",
                            ranks_of_group(plan.group_size, plan), scenario.cluster.gpus_per_node);
    } else {
        found = moe_layer_kind(plan).why_not(scenario.model, plan, plan.group_size);
        if (found.empty()) return true;
    }
    const std::vector<int> valid = valid_group_sizes(scenario, plan);
    problems.push_back({where + ".group_size", std::move(found),
                        valid.empty() ? "another parallel.expert_tensor_parallel_size"
                                      : "group_size one of: " + value_list(valid),
                        ""});
    return false;
}

namespace {

// Those of frameworks are of a layer and pass or of the step; headway's own is of the step.
void check_graphs(const Plan& plan, const std::string& where, std::vector<InputProblem>& problems) {
    if (plan.cuda_graph_scope == 0u || launches_eagerly(plan.implementation)) return;
    const auto refuse = [&](std::string found, std::string accepted, std::string hint = "") {
        problems.push_back(
            {where + ".cuda_graph_scope", std::move(found), std::move(accepted), std::move(hint)});
    };
    constexpr GraphScopes kStep = bits_of(GraphScope::full_iteration);
    if (plan.implementation != Implementation::headway)
        refuse(fmt::format("graphs of implementation: {}, whose launches cost nothing",
                           kImplementationNames[static_cast<std::size_t>(plan.implementation)]),
               "implementation: torch, megatron or headway");
    else if (plan.cuda_graph_scope != kStep)
        refuse("parts of a step of implementation: headway", "full_iteration");
    else if (waits_for_counts(plan))
        refuse(fmt::format("a graph of {} on {} ranks, whose host waits for counts in every layer",
                           plan.is_head_parallel() ? "HP x EP" : "EP", plan.group_size),
               "HP of at most num_heads ranks, or EP on one",
               "the counts say what the next exchange sends; a graph is captured before");
}

void check_precision(const Plan& plan, const std::string& where,
                     std::vector<InputProblem>& problems) {
    const Precision& p = plan.precision;
    if (p.recipe == Recipe::none) {
        const char* key = !p.experts           ? "experts: false"
                          : p.dispatch_forward ? "moe_dispatch_fwd: true"
                          : p.combine_backward ? "moe_combine_bwd: true"
                          : p.attention        ? "fp8_dot_product_attention: true"
                                               : nullptr;
        if (key == nullptr) return;
        problems.push_back({where + ".precision", fmt::format("{} without a recipe", key),
                            "a recipe, or none of these keys", ""});
    } else if (plan.implementation == Implementation::unfused) {
        problems.push_back({where + ".precision.recipe",
                            fmt::format("{} with implementation: unfused, which computes in bf16",
                                        kRecipeNames[static_cast<std::size_t>(p.recipe)]),
                            "recipe: none, or implementation: fused", ""});
    }
}

void check_optimizer(const Scenario& scenario, const Plan& plan, const std::string& where,
                     std::vector<InputProblem>& problems) {
    if (plan.optimizer == Optimizer::adamw_8bit &&
        (plan.exp_avg_dtype != Dtype::fp32 || plan.exp_avg_sq_dtype != Dtype::fp32)) {
        problems.push_back({where + ".optimizer", "adamw_8bit with a dtype of its moments",
                            "adamw_fp32, or no exp_avg_dtype and exp_avg_sq_dtype", ""});
    }
    const bool fits = scenario.model.dtype == Dtype::bf16 && plan.main_params_dtype == Dtype::fp32;
    if (plan.store_param_remainders && !fits) {
        problems.push_back({where + ".store_param_remainders",
                            "remainders of parameters that are not bf16 beside an fp32 master",
                            "model.dtype bf16 and main_params_dtype fp32", ""});
    }
}

// What combinations of offloaded activations Megatron-LM d98e8a6 refuses
// (core/transformer/transformer_config.py), and those that headway does not price.
class ActivationOffload {
  public:
    ActivationOffload(const Scenario& scenario, const Plan& plan, const std::string& where,
                      std::vector<InputProblem>& problems)
        : scenario_(scenario), plan_(plan), where_(where), problems_(problems) {}

    void check() const {
        if (offload_.fine_grained_activation_offloading && offload_.modules == 0)
            refuse(kModules, "offload of no modules", "one or more offload_modules");
        if (!offload_.has_activations()) return;
        const char* key = offload_.modules != 0 ? kModules : kLayers;
        if (!scenario_.cluster.host)
            refuse(key, "activations in the host memory of a cluster without `host`",
                   "cluster.host with bandwidth and memory_bandwidth");
        if (plan_.implementation == Implementation::unfused ||
            plan_.implementation == Implementation::headway)
            refuse(
                key,
                fmt::format("offload under implementation: {}, which has none",
                            kImplementationNames[static_cast<std::size_t>(plan_.implementation)]),
                "implementation: fused, torch or megatron");
        if (splits_backward(plan_.parallel.schedule()))
            refuse(key,
                   fmt::format("offload beside {}, whose weight gradients need their inputs later",
                               name(plan_.parallel.schedule())),
                   "1f1b, interleaved or combined_1f1b");
        if (offload_.modules != 0) modules();
        if (offload_.cpu_offloading_num_layers > 0) layers();
    }

  private:
    static constexpr const char *kModules = "offload_modules",
                                *kLayers = "cpu_offloading_num_layers";

    void refuse(const char* key, std::string found, std::string accepted) const {
        problems_.push_back({where_ + '.' + key, std::move(found), std::move(accepted), ""});
    }
    bool has_graph(GraphScope scope) const { return has_scope(plan_.cuda_graph_scope, scope); }

    void modules() const {
        using enum OffloadModule;
        const bool experts = offload_.has(expert_fc1) || offload_.has(moe_act),
                   fused = offload_.has(fused_group_mlp);
        if (offload_.has(attn_proj) && !offload_.has(core_attn))
            refuse(kModules, "attn_proj without core_attn, whose backward needs the same tensor",
                   "core_attn and attn_proj");
        if (fused && experts)
            refuse(kModules, "fused_group_mlp beside parts of it", "no expert_fc1 and no moe_act");
        if (fused && !fuses_expert_operators(plan_))
            refuse(kModules, "fused_group_mlp of experts that are not fused",
                   "use_transformer_engine_op_fuser under implementation: megatron");
        if (plan_.recompute.is_full())
            refuse(kModules, "offload of what a full recompute does not keep",
                   "another recompute_granularity");
        if (plan_.recompute.has(RecomputeModule::moe) && (fused || experts))
            refuse(kModules, "offload of the inside of experts beside recompute of the whole moe",
                   "no moe in recompute_modules, or no expert_fc1, moe_act and fused_group_mlp");
        if (offload_.has(attn_norm) && has_graph(GraphScope::attn))
            refuse(kModules, "attn_norm beside a CUDA graph of attention",
                   "no attn_norm, or no attn in cuda_graph_scope");
        if (offload_.has(mlp_norm) &&
            (has_graph(GraphScope::attn) || has_graph(GraphScope::moe_router)))
            refuse(kModules, "mlp_norm beside a CUDA graph of attention or the router",
                   "no mlp_norm, or neither of them in cuda_graph_scope");
    }

    void layers() const {
        const int most = scenario_.model.num_layers - 1;
        if (offload_.cpu_offloading_num_layers > most)
            refuse(kLayers,
                   fmt::format("{} of {} layers", offload_.cpu_offloading_num_layers, most + 1),
                   fmt::format("at most {}", most));
        if (offload_.modules != 0)
            refuse(kLayers, "offload of whole layers beside offload_modules", "one of them");
        if (plan_.parallel.has_pipeline())
            refuse(kLayers, "offload of whole layers in a pipeline", "offload_modules");
        if (plan_.recompute != Recompute{})
            refuse(kLayers, "offload of whole layers beside recompute", "no recompute");
        if (plan_.cuda_graph_scope != 0 && !has_graph(GraphScope::full_iteration))
            refuse(kLayers, "offload of whole layers beside CUDA graphs of their parts",
                   "no cuda_graph_scope, or full_iteration");
    }

    const Scenario& scenario_;
    const Plan& plan_;
    const std::string& where_;
    std::vector<InputProblem>& problems_;
    const Offload& offload_ = plan_.offload;
};

// Megatron-LM d98e8a6, core/optimizer/__init__.py and cpu_offloading/hybrid_optimizer.py.
void check_offload(const Scenario& scenario, const Plan& plan, const std::string& where,
                   std::vector<InputProblem>& problems) {
    if (!plan.offload.optimizer_cpu_offload) return;
    const auto refuse = [&](std::string found, std::string accepted, std::string hint = "") {
        problems.push_back({where + ".optimizer_cpu_offload", std::move(found), std::move(accepted),
                            std::move(hint)});
    };
    if (!scenario.cluster.host)
        refuse("an optimizer on the host of a cluster without `host`",
               "cluster.host with bandwidth and memory_bandwidth", "presets of clusters have it");
    if (plan.parallel.data_parallel_sharding_strategy != DataParallelSharding::optim)
        refuse("an optimizer on the host without the distributed optimizer",
               "parallel.data_parallel_sharding_strategy optim");
    if (plan.optimizer == Optimizer::adamw_8bit)
        refuse("an optimizer on the host beside adamw_8bit", "optimizer adamw_fp32");
    const bool fp32 = plan.main_params_dtype == Dtype::fp32 && !plan.store_param_remainders &&
                      plan.exp_avg_dtype == Dtype::fp32 && plan.exp_avg_sq_dtype == Dtype::fp32;
    if (!fp32)
        refuse("an optimizer on the host beside narrower states",
               "main_params_dtype, exp_avg_dtype and exp_avg_sq_dtype fp32, no "
               "store_param_remainders",
               "the hybrid optimizer keeps parameters and moments in fp32");
    if (plan.implementation == Implementation::unfused ||
        plan.implementation == Implementation::headway)
        refuse(fmt::format("an optimizer on the host under implementation: {}, which has none",
                           kImplementationNames[static_cast<std::size_t>(plan.implementation)]),
               "implementation: fused, torch or megatron");
}

void check_names(const Scenario& scenario, std::vector<InputProblem>& problems) {
    std::vector<std::string> names;
    std::set<std::string> seen;
    for (std::size_t i = 0; i < scenario.plans.size(); ++i) {
        const std::string& name = scenario.plans[i].name;
        if (!seen.insert(name).second) {
            problems.push_back({fmt::format("plans[{}].name", i),
                                fmt::format("a second plan '{}'", name), "unique names", ""});
        }
        names.push_back(name);
    }
    if (seen.count(scenario.baseline) == 0) {
        std::string list;
        for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
        const std::string near = did_you_mean(scenario.baseline, names);
        problems.push_back({"baseline", fmt::format("no plan '{}'", scenario.baseline),
                            "one of: " + list, near.empty() ? "" : "did you mean '" + near + "'?"});
    }
}

}  // namespace

std::vector<InputProblem> check_plans(const Scenario& scenario) {
    std::vector<InputProblem> problems;
    constexpr std::int64_t max_tokens = std::int64_t{1} << 30;
    const std::int64_t tokens = scenario.batch.tokens_per_rank();
    if (tokens > max_tokens) {
        problems.push_back({"batch.sequences_per_rank",
                            fmt::format("{} tokens in one micro-batch on one rank", tokens),
                            fmt::format("at most {}", max_tokens), ""});
    }
    for (std::size_t i = 0; i < scenario.plans.size(); ++i) {
        const Plan& plan = scenario.plans[i];
        const std::string where = fmt::format("plans[{}]", i);
        check_moe_layer(scenario, plan, where, problems);
        check_graphs(plan, where, problems);
        check_implementation(plan, where, problems);
        check_dispatcher(plan, where, problems);
        check_precision(plan, where, problems);
        check_optimizer(scenario, plan, where, problems);
        check_offload(scenario, plan, where, problems);
        ActivationOffload(scenario, plan, where, problems).check();
        check_parallel(scenario, plan, where, problems);
        const std::int64_t own = std::max<std::int64_t>(1, rank_tokens(scenario, plan).own);
        if (plan.overlap_chunks > own) {
            problems.push_back({where + ".overlap_chunks",
                                fmt::format("{} chunks of {} tokens", plan.overlap_chunks, own),
                                fmt::format("1 to {}", own), ""});
        }
    }
    check_names(scenario, problems);
    return problems;
}

std::vector<InputProblem> check_scenario(const Scenario& scenario, ProfileCheck profile) {
    std::vector<InputProblem> all;
    const auto add = [&all](const std::string& prefix, std::vector<InputProblem> problems) {
        for (InputProblem& problem : problems) {
            if (!prefix.empty()) {
                problem.where = problem.where.empty() ? prefix : prefix + '.' + problem.where;
            }
            all.push_back(std::move(problem));
        }
    };
    add("model", check_model(scenario.model));
    add("cluster", check_cluster(scenario.cluster));
    if (scenario.profile && profile == ProfileCheck::full)
        add("profile", check_profile(*scenario.profile));
    if (!all.empty()) return all;  // the plans are checked against sound parts only
    add("", check_plans(scenario));
    add("", check_routing(scenario));
    return all;
}

}  // namespace headway::inline scenario
