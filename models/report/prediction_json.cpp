#include "models/report/prediction_json.hpp"

#include <cstddef>
#include <nlohmann/json.hpp>

namespace headway::inline report {
namespace {

using Json = nlohmann::ordered_json;

Json interval_json(const Interval& interval) {
    return Json::array({interval.low.in(second), interval.high.in(second)});
}

Json phase_json(const PhaseCost& p) {
    return {{"phase", name(p.phase)},
            {"pass", name(p.pass)},
            {"time_s", p.time.in(second)},
            {"bytes_per_rank_max", p.bytes.in(byte)},
            {"flops_per_rank_max", p.flops.in(flop)},
            {"bottleneck", p.bottleneck},
            {"count", p.count},
            {"hidden_s", p.hidden.in(second)},
            {"launch_wait_s", p.launch_wait.in(second)},
            {"time_interval_s", interval_json(p.interval)}};
}

// Path classes that carry nothing are left out.
Json traffic_json(const PlanTraffic& traffic) {
    Json by_link = Json::object();
    for (std::size_t i = 0; i < traffic.by_path.size(); ++i) {
        if (traffic.by_path[i] > Bytes{}) {
            by_link[std::string(kPathClassNames[i])] = traffic.by_path[i].in(byte);
        }
    }
    return {{"sent_bytes_per_rank_mean", traffic.sent_mean.in(byte)},
            {"sent_bytes_per_rank_max", traffic.sent_max.in(byte)},
            {"by_link", by_link},
            {"imbalance", traffic.imbalance}};
}

Json items_json(const std::vector<MemoryItem>& items) {
    Json json = Json::object();
    for (const MemoryItem& item : items) json[item.name] = item.bytes.in(byte);
    return json;
}

Json memory_json(const PlanMemory& memory) {
    Json json = {{"peak_bytes", memory.peak.in(byte)},
                 {"allocated_bytes", memory.allocated.in(byte)},
                 {"reserve_bytes", memory.reserve().in(byte)},
                 {"items", items_json(memory.items)},
                 {"capacity_bytes", memory.capacity.in(byte)}};
    if (memory.host.node > Bytes{}) {
        json["host"] = {{"node_bytes", memory.host.node.in(byte)},
                        {"items", items_json(memory.host.items)}};
        if (memory.host.capacity > Bytes{})
            json["host"]["capacity_bytes"] = memory.host.capacity.in(byte);
    }
    if (memory.stages.size() < 2) return json;
    json["stage"] = memory.stage;
    for (const StageMemory& stage : memory.stages)
        json["stages"].push_back({{"peak_bytes", stage.peak.in(byte)},
                                  {"allocated_bytes", stage.allocated.in(byte)},
                                  {"items", items_json(stage.items)}});
    return json;
}

Json pipeline_json(const PlanPipeline& pipeline) {
    Json ranks = Json::array();
    for (const PipelineRank& rank : pipeline.ranks)
        ranks.push_back({{"layers", rank.layers},
                         {"embedding", rank.embedding},
                         {"mtp_layers", rank.mtp_layers},
                         {"head_and_loss", rank.head_and_loss},
                         {"forward_s", rank.forward.in(second)},
                         {"backward_s", rank.backward.in(second)},
                         {"busy_s", rank.busy.in(second)},
                         {"message_wait_s", rank.message_wait.in(second)},
                         {"bubble_s", rank.bubble.in(second)},
                         {"chunks_in_flight", rank.in_flight}});
    return {{"schedule", pipeline.schedule},
            {"chunks_per_rank", pipeline.chunks},
            {"micro_batches", pipeline.micro_batches},
            {"makespan_s", pipeline.makespan.in(second)},
            {"message_bytes", pipeline.message.in(byte)},
            {"message_s", pipeline.hop.in(second)},
            {"message_path", pipeline.path},
            {"busiest_rank", pipeline.shown},
            {"ranks", ranks}};
}

Json plan_json(const PlanPrediction& plan) {
    Json phases = Json::array();
    for (const PhaseCost& phase : plan.phases) phases.push_back(phase_json(phase));
    Json json = {{"name", plan.name},
                 {"layer", plan.layer_split},
                 {"feasible", plan.feasible},
                 {"infeasible_because", plan.infeasible_because},
                 {"step_time_s", plan.step.in(second)},
                 {"step_time_interval_s", interval_json(plan.step_interval)},
                 {"launch_wait_s", plan.launch_wait.in(second)},
                 {"tokens_per_s_per_gpu", plan.tokens_per_second_per_gpu},
                 {"model_tflops_per_gpu", plan.model_flop_rate_per_gpu.in(TFLOP / second)},
                 {"tokens_per_s", plan.tokens_per_second()},
                 {"tokens_per_day", plan.tokens_per_day()},
                 {"gpu_hours_per_1e12_tokens", plan.gpu_hours_per_trillion_tokens()},
                 {"mfu", plan.mfu()},
                 {"parameters", plan.parameters},
                 {"active_parameters", plan.active_parameters},
                 {"speedup_vs_baseline", plan.speedup},
                 {"undecided", plan.undecided},
                 {"moe_layer",
                  {{"forward_s", plan.moe_forward.in(second)},
                   {"backward_s", plan.moe_backward.in(second)},
                   {"forward_interval_s", interval_json(plan.moe_forward_interval)},
                   {"backward_interval_s", interval_json(plan.moe_backward_interval)}}},
                 {"phases", phases},
                 {"traffic", traffic_json(plan.traffic)},
                 {"memory", memory_json(plan.memory)},
                 {"warnings", plan.warnings}};
    if (plan.pipeline) json["pipeline"] = pipeline_json(*plan.pipeline);
    return json;
}

Json rival_json(const Rival& rival) {
    Json answers = Json::array();
    for (const Rival::Answer& answer : rival.answers)
        answers.push_back(
            {{"plan", answer.plan}, {"speedup", answer.speedup}, {"undecided", answer.undecided}});
    return {{"scenario", rival.scenario},
            {"plan", rival.plan},
            {"tokens_per_s", rival.tokens_per_second},
            {"feasible", rival.feasible},
            {"plans", answers}};
}

}  // namespace

std::string prediction_to_json(const Prediction& prediction) {
    Json plans = Json::array();
    for (const PlanPrediction& plan : prediction.plans) plans.push_back(plan_json(plan));
    Json unpriced = Json::array();
    for (const UnpricedPlan& plan : prediction.unpriced)
        unpriced.push_back({{"name", plan.name}, {"because", plan.because}});
    Json json = {{"scenario", prediction.scenario},
                 {"model", prediction.model},
                 {"cluster", prediction.cluster},
                 {"device", prediction.device},
                 {"profile", prediction.profile},
                 {"seed", prediction.seed},
                 {"version", prediction.version},
                 {"baseline", prediction.baseline},
                 {"num_ranks", prediction.size.num_ranks},
                 {"sequence_length", prediction.size.sequence_length},
                 {"global_batch_sequences", prediction.size.sequences},
                 {"tokens_per_step", prediction.size.tokens()},
                 {"notes", prediction.notes},
                 {"unpriced", unpriced},
                 {"plans", plans}};
    if (prediction.rival) json["against"] = rival_json(*prediction.rival);
    // Names come from files of any encoding: what is not UTF-8 is replaced, not an exception.
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace headway::inline report
