#include "models/sweep/plan_search.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>

#include "models/cost/memory.hpp"
#include "models/cost/predict.hpp"
#include "models/scenario/check_scenario.hpp"
#include "models/scenario/divisors.hpp"
#include "models/scenario/head_parallel_twin.hpp"
#include "models/sweep/layouts.hpp"
#include "models/vocab/jobs.hpp"

namespace headway::inline sweep {
namespace {

constexpr std::array kChunks = {1, 2, 4, 8};

template <class Layer>
void add_layer(const Plan& like, const Layer& layer, std::vector<Plan>& plans) {
    Plan plan = like;
    plan.layer = layer;
    plan.overlap_grad_all_reduce = true;
    const std::string name = variant_name(plan);
    const bool is_known = std::any_of(plans.begin(), plans.end(),
                                      [&](const Plan& p) { return variant_name(p) == name; });
    if (!is_known) plans.push_back(plan);
}

// Every MoE layer that the scenario's plans allow, with group_size still open.
std::vector<Plan> layers_of(const Scenario& scenario, const std::vector<int>& heads) {
    Plan like = scenario.plans.front();
    for (const Plan& plan : scenario.plans) {
        if (plan.name == scenario.baseline) like = plan;
    }
    like.group_size = 2;  // so that names tell layers apart
    // The scenario's come first: of two that differ only in how they are run (dispatcher), these.
    std::vector<ExpertParallel> bases;
    std::vector<HeadParallel> twins;
    if (const auto* ep = std::get_if<ExpertParallel>(&like.layer)) bases.push_back(*ep);
    for (const Plan& plan : scenario.plans) {
        if (const auto* ep = std::get_if<ExpertParallel>(&plan.layer)) bases.push_back(*ep);
        const auto* hp = std::get_if<HeadParallel>(&plan.layer);
        if (hp && heads.empty()) twins.push_back(*hp);
    }
    bases.push_back({});
    for (const int h : heads) {
        if (scenario.model.hidden % h == 0) {
            twins.push_back(head_parallel_twin(scenario.model, {.num_heads = h}));
        }
    }
    std::vector<Plan> plans;
    const bool has_islands = scenario.cluster.island_size() < scenario.cluster.num_ranks();
    for (const ExpertParallel& base : bases) {
        for (const Dedup dedup : {Dedup::none, Dedup::rank, Dedup::node}) {
            if (dedup == Dedup::node && !has_islands) continue;
            ExpertParallel ep = base;
            ep.dedup = dedup;
            // Frameworks send a copy a rank or node through flex, others through none; all tokens
            // that go to all ranks are no copies.
            const bool gathers = base.dispatcher == TokenDispatcher::allgather;
            if (dedup == Dedup::none)
                ep.dispatcher = gathers ? TokenDispatcher::allgather : TokenDispatcher::alltoall;
            else if (launches_eagerly(like.implementation))
                ep.dispatcher = TokenDispatcher::flex;
            else if (gathers)
                ep.dispatcher = TokenDispatcher::alltoall;
            add_layer(like, ep, plans);
        }
    }
    for (const HeadParallel& hp : twins) add_layer(like, hp, plans);
    return plans;
}

// Micro-batches of every size that divides the sequences of a data-parallel rank and step;
// `sequences_of_step` in all.
std::vector<Batch> batches_of(const Scenario& scenario, const Plan& plan,
                              std::int64_t sequences_of_step) {
    Batch batch = scenario.batch;
    batch.sequences_per_rank = 1;
    batch.num_micro_batches = static_cast<int>(sequences_of_step / mesh_of(scenario, plan).dp);
    batch.global_batch_size.reset();
    const std::int64_t sequences = std::int64_t{batch.sequences_per_rank} * batch.num_micro_batches;
    constexpr std::int64_t kMost = 1 << 20;
    if (sequences > kMost) return {batch};
    std::vector<Batch> batches;
    for (const int at_once : divisors(static_cast<int>(sequences))) {
        Batch b = batch;
        b.sequences_per_rank = at_once;
        b.num_micro_batches = static_cast<int>(sequences / at_once);
        batches.push_back(b);
    }
    return batches;
}

// The baseline's sequences, which set what the others must do too.
std::int64_t sequences_of_step(const Scenario& scenario) {
    const auto baseline = std::ranges::find(scenario.plans, scenario.baseline, &Plan::name);
    return sequences_of(scenario,
                        baseline != scenario.plans.end() ? *baseline : scenario.plans.front());
}

// One layer, group and batch: its loads serve all that is varied besides.
struct SearchUnit {
    Plan plan;
    Batch batch;
};

// At most so many sequences in one micro-batch where layouts are tried: more need more memory
// than any layout has.
constexpr int kMostAtOnce = 8;

std::vector<SearchUnit> legal_units(const Scenario& scenario, const SearchOptions& options) {
    std::vector<SearchUnit> units;
    Scenario probe = scenario;
    probe.profile.reset();
    const std::int64_t sequences = sequences_of_step(scenario);
    for (const Plan& layer : layers_of(scenario, options.heads)) {
        const std::vector<Parallel> layouts =
            options.layouts ? layouts_of(scenario, layer) : std::vector<Parallel>{layer.parallel};
        for (const int size : divisors(scenario.cluster.num_ranks())) {
            Plan plan = layer;
            plan.group_size = size;
            const auto* ep = std::get_if<ExpertParallel>(&plan.layer);
            // Alone, EP has nothing to deduplicate.
            if (size == 1 && ep && ep->dedup != Dedup::none) continue;
            // Within one island a copy a node is a copy a rank.
            const bool is_inside = size <= scenario.cluster.island_size();
            if (is_inside && ep && ep->dedup == Dedup::node) continue;
            plan.name = variant_name(plan);
            plan.overlap_chunks = 1;
            probe.baseline = plan.name;
            for (const Parallel& layout : layouts) {
                plan.parallel = layout;
                if (sequences % mesh_of(scenario, plan).dp != 0) continue;
                probe.plans = {plan};
                for (const Batch& batch : batches_of(scenario, plan, sequences)) {
                    if (options.layouts && batch.sequences_per_rank > kMostAtOnce) break;
                    probe.batch = batch;
                    if (check_plans(probe).empty()) units.push_back({plan, batch});
                }
            }
        }
    }
    return units;
}

bool is_better(const Candidate& a, const std::optional<Candidate>& b) {
    return !b || a.prediction.step < b->prediction.step;
}

struct UnitResult {
    std::size_t num_legal = 0, num_fitting = 0;
    std::optional<Candidate> fastest, smallest;
    std::optional<InputProblem> unpriced;
};

// FSDP beside a pipeline gathers all of a stage's parameters for every micro-batch: not tried.
std::vector<DataParallelSharding> shardings_of(const Plan& plan, bool layouts) {
    using enum DataParallelSharding;
    if (!layouts) return {no_shard, optim};
    if (plan.parallel.has_pipeline()) return {optim};
    return {optim, optim_grads_params};
}

// With layouts, the modules that published recipes recompute; else the levels.
std::vector<Recompute> recomputes_of(const ModelSpec& model, bool layouts) {
    if (!layouts) return {kRecomputeLevels.begin(), kRecomputeLevels.end()};
    using enum RecomputeModule;
    Recompute cheap, more;
    cheap.granularity = more.granularity = RecomputeGranularity::selective;
    cheap.modules = modules(moe_act, layernorm);
    more.modules = modules(moe_act, layernorm, mlp, shared_experts);
    if (model.attention.latent) more.modules |= modules(mla_up_proj);
    return {RecomputeLevel::none, cheap, more, RecomputeLevel::full};
}

// A group of one rank communicates nothing that could be overlapped, an order of pairs overlaps
// already, and no framework cuts a layer's tokens.
bool can_chunk(const Plan& plan) {
    return plan.group_size > 1 && !plan.parallel.executes_order() &&
           !launches_eagerly(plan.implementation);
}

template <class Visit>
void for_each_knob(Plan plan, const ModelSpec& model, std::int64_t tokens, bool layouts,
                   Visit visit) {
    for (const Recompute& recompute : recomputes_of(model, layouts)) {
        for (const DataParallelSharding sharding : shardings_of(plan, layouts)) {
            for (const int chunks : kChunks) {
                if (chunks > tokens || (chunks > 1 && !can_chunk(plan))) continue;
                plan.recompute = recompute;
                plan.parallel.data_parallel_sharding_strategy = sharding;
                plan.overlap_param_gather = gathers_once(sharding);
                plan.overlap_chunks = chunks;
                visit(plan);
            }
        }
    }
}

UnitResult search_unit(Scenario& scenario, const SearchUnit& unit, bool layouts) {
    UnitResult result;
    scenario.batch = unit.batch;
    const PredictOptions options{.timeline = false};
    try {
        const std::vector<GroupLoad> loads = plan_loads(scenario, unit.plan, options);
        const std::int64_t tokens = rank_tokens(scenario, unit.plan).own;
        for_each_knob(unit.plan, scenario.model, tokens, layouts, [&](const Plan& plan) {
            scenario.plans = {plan};
            scenario.baseline = plan.name;
            if (!check_plans(scenario).empty()) return;
            ++result.num_legal;
            // What does not fit needs no price, unless it is the smallest that there is.
            if (result.smallest && layouts) {
                const PlanMemory memory = predict_memory(scenario, plan, loads);
                if (memory.peak > memory.capacity &&
                    memory.peak >= result.smallest->prediction.memory.peak)
                    return;
            }
            Candidate candidate{plan, unit.batch,
                                predict_plan(scenario, plan, *scenario.profile, options, loads)};
            const PlanPrediction& p = candidate.prediction;
            const auto& least = result.smallest;
            if (!least || p.memory.peak < least->prediction.memory.peak) {
                result.smallest = candidate;
            }
            if (!p.feasible || !p.step.is_finite()) return;
            ++result.num_fitting;
            if (is_better(candidate, result.fastest)) result.fastest = std::move(candidate);
        });
    } catch (const InputError& error) {
        result.unpriced = error.problems().front();
    }
    return result;
}

std::vector<UnitResult> search_units(const Scenario& scenario, const std::vector<SearchUnit>& units,
                                     const SearchOptions& options) {
    std::vector<UnitResult> results(units.size());
    std::vector<Scenario> own(num_workers(units.size(), options.threads), scenario);
    std::atomic<std::size_t> done{0};
    for_each_job_of_worker(units.size(), options.threads, [&](std::size_t i, std::size_t worker) {
        results[i] = search_unit(own[worker], units[i], options.layouts);
        ++done;
        if (worker == 0 && options.progress) options.progress(done, units.size());
    });
    return results;
}

const char* sharding_text(const Plan& plan) {
    constexpr std::array kTexts = {"no ZeRO", "ZeRO-1", "ZeRO-2", "FSDP"};
    return kTexts[static_cast<std::size_t>(plan.parallel.data_parallel_sharding_strategy)];
}

}  // namespace

PlanKind kind_of(const Plan& plan) {
    if (const auto* hp = std::get_if<HeadParallel>(&plan.layer)) {
        return plan.group_size > hp->num_heads ? PlanKind::head_and_expert_parallel
                                               : PlanKind::head_parallel;
    }
    return plan.group_size == 1 ? PlanKind::data_parallel : PlanKind::expert_parallel;
}

std::string variant_name(const Plan& plan) {
    std::string ranks = plan.group_size == 1 ? "1 rank" : fmt::format("{} ranks", plan.group_size);
    if (const auto* hp = std::get_if<HeadParallel>(&plan.layer)) {
        return fmt::format(
            "{}, {} heads, {}{}", kind_of(plan) == PlanKind::head_parallel ? "HP" : "HP x EP",
            hp->num_heads, ranks, hp->dedup == Dedup::none ? ", a copy an expert" : "");
    }
    const auto& ep = std::get<ExpertParallel>(plan.layer);
    if (plan.group_size == 1 && ep.dedup == Dedup::none && !ep.latent_width) {
        return "data parallel, all experts on every rank";
    }
    constexpr std::array kCopies = {"a copy an expert", "a copy a rank", "a copy a node"};
    const bool gathers = ep.dispatcher == TokenDispatcher::allgather;
    std::string text = fmt::format(
        "EP, {}, {}", gathers ? "all tokens" : kCopies[static_cast<std::size_t>(ep.dedup)], ranks);
    if (ep.node_limit) text += fmt::format(", at most {} nodes", *ep.node_limit);
    if (ep.latent_width) text += fmt::format(", width {}", *ep.latent_width);
    if (ep.hide_count_exchange) text += ", counts hidden";
    return text;
}

std::string knobs_text(const Plan& plan, const Batch& batch) {
    const std::string layout = layout_text(plan.parallel);
    return (layout.empty() ? "" : layout + ", ") +
           fmt::format("recompute {}, {} chunk{}, {}, {} x {} sequences",
                       recompute_text(plan.recompute), plan.overlap_chunks,
                       plan.overlap_chunks == 1 ? "" : "s", sharding_text(plan),
                       batch.num_micro_batches, batch.sequences_per_rank);
}

SearchResult search_plans(const Scenario& scenario, const SearchOptions& options) {
    const std::vector<SearchUnit> units = legal_units(scenario, options);
    SearchResult result;
    std::map<std::string, std::optional<Candidate>> fastest;
    std::map<std::string, InputProblem> unpriced;
    for (UnitResult& unit : search_units(scenario, units, options)) {
        result.num_legal += unit.num_legal;
        result.num_fitting += unit.num_fitting;
        if (unit.unpriced) unpriced.emplace(unit.unpriced->to_string(), *unit.unpriced);
        if (unit.smallest && (!result.smallest || unit.smallest->prediction.memory.peak <
                                                      result.smallest->prediction.memory.peak)) {
            result.smallest = unit.smallest;
        }
        if (!unit.fastest) continue;
        auto& best = fastest[unit.fastest->plan.name];
        if (is_better(*unit.fastest, best)) best = std::move(unit.fastest);
    }
    for (auto& [name, candidate] : fastest) result.best.push_back(std::move(*candidate));
    std::stable_sort(result.best.begin(), result.best.end(),
                     [](const Candidate& a, const Candidate& b) {
                         return a.prediction.step < b.prediction.step;
                     });
    for (const auto& [text, problem] : unpriced) result.unpriced.push_back(problem);
    return result;
}

std::vector<Alternative> alternatives(const Scenario& scenario, const Candidate& chosen) {
    std::vector<Alternative> result;
    Scenario own = scenario;
    const auto add = [&](std::string choice, const Plan& plan, const Batch& batch) {
        own.batch = batch;
        own.plans = {plan};
        own.baseline = plan.name;
        if (!check_plans(own).empty()) return;
        result.push_back(
            {std::move(choice),
             {plan, batch, predict_plan(own, plan, *own.profile, {.timeline = false})}});
    };
    Plan plan = chosen.plan;
    for (const RecomputeLevel r : kRecomputeLevels) {
        plan.recompute = r;
        if (plan.recompute == chosen.plan.recompute) continue;
        add("recompute " + recompute_text(plan.recompute), plan, chosen.batch);
    }
    plan = chosen.plan;
    for (const int chunks : kChunks) {
        plan.overlap_chunks = chunks;
        if (chunks == chosen.plan.overlap_chunks || (chunks > 1 && !can_chunk(plan))) continue;
        add(fmt::format("{} chunk{}", chunks, chunks == 1 ? "" : "s"), plan, chosen.batch);
    }
    plan = chosen.plan;
    plan.parallel.data_parallel_sharding_strategy =
        shards_optimizer(plan) ? DataParallelSharding::no_shard : DataParallelSharding::optim;
    plan.overlap_param_gather = shards_optimizer(plan);
    add(shards_optimizer(plan) ? "ZeRO-1" : "no ZeRO", plan, chosen.batch);
    for (const Batch& batch : batches_of(scenario, chosen.plan, sequences_of_step(scenario))) {
        if (batch.sequences_per_rank == chosen.batch.sequences_per_rank) continue;
        add(fmt::format("{} x {} sequences", batch.num_micro_batches, batch.sequences_per_rank),
            chosen.plan, batch);
    }
    return result;
}

}  // namespace headway::inline sweep
