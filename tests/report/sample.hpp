// A small hand-made Prediction for the report tests: two plans, EP as the baseline, in round
// numbers.
#pragma once

#include "models/vocab/prediction.hpp"

namespace headway {

inline PlanPrediction sample_plan(const char* plan_name, double step_ms, Phase exchange) {
    PlanPrediction plan;
    plan.name = plan_name;
    plan.layer_split = exchange == Phase::head_scatter ? "head_parallel" : "expert_parallel";
    plan.step = step_ms * ms;
    plan.step_interval = {0.9 * plan.step, 1.1 * plan.step};
    plan.tokens_per_second_per_gpu = 4096.0 / plan.step.in(second);
    plan.model_flop_rate_per_gpu = 200.0 * TFLOP / second;
    plan.moe_forward = 2.0 * ms;
    plan.moe_backward = 4.0 * ms;
    plan.phases = {{.phase = exchange,
                    .pass = Pass::forward,
                    .count = 12,
                    .time = 0.5 * plan.step,
                    .interval = {0.4 * plan.step, 0.6 * plan.step},
                    .bytes = 64.0 * MiB,
                    .bottleneck = "nvlink"},
                   {.phase = Phase::expert,
                    .pass = Pass::forward,
                    .count = 12,
                    .time = 0.5 * plan.step,
                    .hidden = 1.0 * ms,
                    .interval = {0.4 * plan.step, 0.6 * plan.step},
                    .flops = 2.0 * TFLOP,
                    .bottleneck = "flops"}};
    plan.traffic = {.sent_mean = 8.0 * MiB, .sent_max = 9.0 * MiB, .imbalance = 1.125};
    plan.traffic.by_path[static_cast<std::size_t>(PathClass::nvlink)] = 8.0 * MiB;
    plan.memory = {
        .peak = 40.0 * GiB, .capacity = 80.0 * GiB, .items = {{"parameters", 40.0 * GiB}}};
    plan.timeline.spans = {{.layer = 0,
                            .pass = Pass::forward,
                            .phase = exchange,
                            .count = 12,
                            .duration = plan.step / 24.0,
                            .low = plan.step / 30.0,
                            .high = plan.step / 20.0,
                            .bytes = 64.0 * MiB,
                            .bottleneck = "nvlink"}};
    return plan;
}

inline Prediction sample_prediction() {
    return {.scenario = "sample",
            .model = "small",
            .cluster = "two nodes",
            .device = "GPU",
            .profile = "public",
            .version = "0.1.0",
            .seed = 7,
            .baseline = "ep",
            .plans = {sample_plan("ep", 100.0, Phase::dispatch),
                      sample_plan("hp", 50.0, Phase::head_scatter)},
            .notes = {"HP twin: H * d_h = d"}};
}

}  // namespace headway
