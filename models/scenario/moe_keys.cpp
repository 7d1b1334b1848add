#include "models/scenario/moe_keys.hpp"

#include <fmt/format.h>

#include <cstdint>

#include "models/scenario/check_scenario.hpp"
#include "models/scenario/describe.hpp"
#include "models/scenario/divisors.hpp"

namespace headway::inline scenario {
namespace {

// HP x EP never sends by node.
constexpr std::array kHeadDedupNames = {kDedupNames[0], kDedupNames[1]};

void describe_expert_parallel(Fields& f, ExpertParallel& ep) {
    f.choice("dedup", ep.dedup, kDedupNames,
             "what dispatch sends: a copy per expert (none), per destination rank, or per "
             "destination node",
             optional);
    f.choice("moe_token_dispatcher_type", ep.dispatcher, kTokenDispatcherNames,
             "flex: the exchange reads and sums rows at their source itself, as DeepEP and "
             "HybridEP do; alltoall: passes of their own before and after it; allgather: all "
             "tokens go to all ranks of EP x ETP, each of which takes the rows of its experts",
             optional);
    f.integer("node_limit", ep.node_limit, {1, 1 << 20},
              "a token's experts lie on at most this many nodes of the group");
    f.integer("latent_width", ep.latent_width, {1, 1 << 20},
              "LatentMoE: tokens travel and experts work at this width, below hidden");
    f.flag("hide_count_exchange", ep.hide_count_exchange,
           "counts travel behind the permute instead of before it", optional);
}

void describe_head_parallel(Fields& f, HeadParallel& hp) {
    f.integer("num_heads", hp.num_heads, {1, 65536}, "heads H, each with its router and experts");
    f.derived_integer("head_width", hp.head_width, {1, 1 << 20},
                      "width d_h of a head; left out: hidden / num_heads");
    f.derived_integer("num_experts", hp.num_experts, {1, 65536},
                      "experts of one head E; left out: the model's");
    f.derived_integer("top_k", hp.top_k, {1, 1024},
                      "experts per sub-token k; left out: the model's");
    f.derived_integer("expert_width", hp.expert_width, {1, 1 << 20},
                      "hidden width of one expert f; left out: the model's");
    f.choice("dedup", hp.dedup, kHeadDedupNames,
             "dispatch inside a head when it spans ranks: a copy per expert (none), or per rank",
             optional);
}

void check_node_limit(const Scenario& scenario, const Plan& plan, int limit,
                      const std::string& where, std::vector<InputProblem>& problems) {
    const std::int64_t num_nodes =
        ranks_of_group(plan.group_size, plan) / scenario.cluster.island_size();
    if (num_nodes <= 1) {
        problems.push_back({where, fmt::format("node_limit {} for a group within one node", limit),
                            "no node_limit, or a group_size of several nodes", ""});
        return;
    }
    const std::int64_t experts_per_node = scenario.model.moe.num_experts / num_nodes,
                       top_k = scenario.model.moe.top_k;
    const std::int64_t least = (top_k + experts_per_node - 1) / experts_per_node;
    if (limit < least || limit > num_nodes) {
        problems.push_back(
            {where,
             fmt::format("node_limit {} for top_k {} and groups of {} nodes with {} experts each",
                         limit, top_k, num_nodes, experts_per_node),
             fmt::format("{} to {}", least, num_nodes), ""});
    }
}

// What is sent once to a node must find all its ranks in the group.
bool check_whole_nodes(const Scenario& scenario, const Plan& plan, const std::string& where,
                       std::vector<InputProblem>& problems) {
    const int island = scenario.cluster.island_size();
    const std::int64_t ranks = ranks_of_group(plan.group_size, plan);
    if (ranks > island && island % plan.parallel.expert_tensor_parallel_size != 0) {
        problems.push_back(
            {where,
             fmt::format("experts cut over {} ranks lie on several NVLink domains of {}, which "
                         "dedup: node and node_limit take for nodes",
                         plan.parallel.expert_tensor_parallel_size, island),
             fmt::format("an expert_tensor_parallel_size that divides {}", island), ""});
        return false;
    }
    if (ranks <= island || ranks % island == 0) return true;
    problems.push_back(
        {where,
         fmt::format("groups of {} ranks do not fill NVLink domains of {}, which dedup: node "
                     "and node_limit take for nodes",
                     ranks, island),
         fmt::format("a group_size of at most {} or a multiple of it", island), ""});
    return false;
}

void check_layer(const Scenario& scenario, const Plan& plan, const ExpertParallel& ep,
                 const std::string& where, std::vector<InputProblem>& problems) {
    bool fits = check_group_size(scenario, plan, where, problems);
    if (fits && (ep.dedup == Dedup::node || ep.node_limit))
        fits = check_whole_nodes(scenario, plan, where + ".group_size", problems);
    if (fits && ep.node_limit) {
        check_node_limit(scenario, plan, *ep.node_limit, where + ".expert_parallel.node_limit",
                         problems);
    }
    if (ep.latent_width && *ep.latent_width >= scenario.model.hidden) {
        problems.push_back({where + ".expert_parallel.latent_width",
                            fmt::format("latent_width {} is not below hidden {}", *ep.latent_width,
                                        scenario.model.hidden),
                            fmt::format("1 to {}", scenario.model.hidden - 1), ""});
    }
}

void check_layer(const Scenario& scenario, const Plan& plan, const HeadParallel& hp,
                 const std::string& where, std::vector<InputProblem>& problems) {
    if (hp.head_width == 0) {
        problems.push_back(
            {where + ".head_parallel.num_heads",
             fmt::format("num_heads {} does not divide hidden {}", hp.num_heads,
                         scenario.model.hidden),
             "head_width, or num_heads one of: " + divisor_list(scenario.model.hidden), ""});
        return;
    }
    check_group_size(scenario, plan, where, problems);
    if (hp.top_k > hp.num_experts) {
        problems.push_back(
            {where + ".head_parallel.top_k",
             fmt::format("top_k {} exceeds num_experts {}", hp.top_k, hp.num_experts),
             fmt::format("1 to {}", hp.num_experts), ""});
    }
}

}  // namespace

void describe_moe_layer(Fields& f, MoeLayerSplit& layer) {
    MoeLayerSplit given = layer;
    std::vector<std::string_view> names;
    const auto kind = [&](auto keys, std::string_view meaning, auto describe_keys) {
        using Keys = decltype(keys);
        bool is_set = std::holds_alternative<Keys>(layer);
        if (is_set) keys = std::get<Keys>(layer);
        names.push_back(kLayerSplitNames[MoeLayerSplit(keys).index()]);
        f.map_if(names.back(), is_set, keys, meaning, describe_keys);
        if (is_set) given = keys;
    };
    kind(ExpertParallel{}, "the MoE layer is split by experts; {} for all defaults",
         describe_expert_parallel);
    kind(HeadParallel{}, "the MoE layer is split by heads (Multi-Head LatentMoE)",
         describe_head_parallel);
    f.exactly_one_of(names);
    layer = given;
}

void check_moe_layer(const Scenario& scenario, const Plan& plan, const std::string& where,
                     std::vector<InputProblem>& problems) {
    std::visit([&](const auto& keys) { check_layer(scenario, plan, keys, where, problems); },
               plan.layer);
}

// Exchanges that move rows themselves send a copy a rank or a node.
void check_dispatcher(const Plan& plan, const std::string& where,
                      std::vector<InputProblem>& problems) {
    const auto* ep = std::get_if<ExpertParallel>(&plan.layer);
    if (ep == nullptr || ep->dispatcher == TokenDispatcher::alltoall) return;
    if (ep->dispatcher == TokenDispatcher::allgather) {
        if (ep->dedup != Dedup::none)
            problems.push_back({where + ".expert_parallel.moe_token_dispatcher_type",
                                fmt::format("allgather with dedup: {}",
                                            kDedupNames[static_cast<std::size_t>(ep->dedup)]),
                                "dedup: none", "all tokens go to all ranks of the group"});
        return;
    }
    if (ep->dedup != Dedup::none) return;
    problems.push_back({where + ".expert_parallel.moe_token_dispatcher_type",
                        "flex with dedup: none", "dedup: rank or node",
                        "DeepEP and HybridEP send a token once to each rank or node"});
}

// The released code has neither deduplication nor latent experts under EP, nor HP over more ranks
// than heads.
void check_implementation(const Plan& plan, const std::string& where,
                          std::vector<InputProblem>& problems) {
    if (plan.implementation != Implementation::unfused) return;
    const auto* ep = std::get_if<ExpertParallel>(&plan.layer);
    const auto* hp = std::get_if<HeadParallel>(&plan.layer);
    const bool can = ep != nullptr
                         ? ep->dedup == Dedup::none && !ep->latent_width && !ep->node_limit &&
                               ep->dispatcher != TokenDispatcher::allgather
                         : plan.group_size <= hp->num_heads;
    if (can) return;
    problems.push_back(
        {where + ".implementation",
         "unfused with dedup, node_limit, latent_width, allgather or HP over more ranks than heads",
         "fused, or expert_parallel: {}, or a group_size of at most num_heads", ""});
}

}  // namespace headway::inline scenario
