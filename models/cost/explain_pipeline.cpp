#include "models/cost/explain_pipeline.hpp"

#include <fmt/format.h>

#include <cstddef>

#include "models/cost/pipeline_result.hpp"
#include "models/cost/pipeline_step.hpp"

namespace headway::inline cost {
namespace {

std::string ms_text(Seconds time) {
    return fmt::format("{:.3f} ms", time.in(ms));
}

std::string lies_on(const PipelineRank& rank) {
    const std::string mtp =
        rank.mtp_layers > 0 ? fmt::format(", {} of them MTP", rank.mtp_layers) : "";
    return fmt::format("{}{} layer{}{}{}", rank.embedding ? "embedding, " : "", rank.layers,
                       rank.layers == 1 ? "" : "s", mtp,
                       rank.head_and_loss ? ", head and loss" : "");
}

}  // namespace

Explanation explain_pipeline(const Scenario& scenario, const Plan& plan, const Profile& profile,
                             const Workload& workload) {
    PriceBook book(profile, scenario.cluster, scenario.model.dtype);
    const StepTime step =
        price_step({workload, workload, compute_speeds(scenario.cluster)}, profile, book);
    const PlanPipeline pipeline = pipeline_of(*workload.pipeline, *step.pipeline);
    Explanation out;
    const auto line = [&](std::string label, std::string text) {
        out.lines.emplace_back(std::move(label), std::move(text));
    };
    line("schedule",
         fmt::format("{} of plan {}: {} ranks x {} chunks, {} micro-batches", pipeline.schedule,
                     plan.name, pipeline.ranks.size(), pipeline.chunks, pipeline.micro_batches));
    line("makespan",
         fmt::format("{} of a step of {}", ms_text(pipeline.makespan), ms_text(step.total)));
    if (!pipeline.path.empty())
        line("message",
             fmt::format("{:.2f} MiB a micro-batch and boundary, {} over {} at most",
                         pipeline.message.in(MiB), ms_text(pipeline.hop), pipeline.path));
    for (std::size_t r = 0; r < pipeline.ranks.size(); ++r) {
        const PipelineRank& rank = pipeline.ranks[r];
        line(fmt::format("rank {}{}", r, r == pipeline.shown ? ", the busiest" : ""),
             lies_on(rank));
        line("  a micro-batch",
             fmt::format("forward {}, backward {}", ms_text(rank.forward), ms_text(rank.backward)));
        line("  a step",
             fmt::format("busy {}, bubble {} ({:.1f} %), waits for messages {}", ms_text(rank.busy),
                         ms_text(rank.bubble), 100.0 * (rank.bubble / pipeline.makespan),
                         ms_text(rank.message_wait)));
        line("  in flight", fmt::format("{:.0f} chunks at most", rank.in_flight));
    }
    return out;
}

}  // namespace headway::inline cost
