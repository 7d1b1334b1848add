#include "models/cost/memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "models/cost/fused_experts.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/parameters.hpp"
#include "models/workload/recompute.hpp"
#include "models/workload/saved_tensors.hpp"
#include "models/workload/stages.hpp"

namespace headway::inline cost {
namespace {

constexpr std::size_t kNumParts = 3;

// What is counted once per plan and read for every stage.
struct PlanCounts {
    const Scenario& scenario;
    const Plan& plan;
    Mesh mesh;
    ExpertLayout layout;
    RankTokens tokens;
    double b = 2.0;                       // bytes of an element
    std::vector<LayerMemory> layers;      // of every layer of the model
    std::vector<const GroupLoad*> loads;  // the same; null: dense
};

PlanCounts plan_counts(const Scenario& scenario, const Plan& plan,
                       const std::vector<GroupLoad>& loads) {
    const ModelSpec& model = scenario.model;
    PlanCounts counts{.scenario = scenario,
                      .plan = plan,
                      .mesh = mesh_of(scenario, plan),
                      .layout = expert_layout(scenario, plan),
                      .tokens = rank_tokens(scenario, plan),
                      .b = bytes_per_element(model.dtype),
                      .layers = {},
                      .loads = {}};
    using Tensors = std::vector<SavedTensor>;
    const Tensors dense =
        model.has_dense_layers() ? saved_tensors(scenario, plan, nullptr) : Tensors{};
    std::vector<Tensors> sparse;
    if (model.num_moe_layers() > 0)
        for (const GroupLoad& load : loads) sparse.push_back(saved_tensors(scenario, plan, &load));
    // Each list, kept whole and offloaded as a whole layer.
    const auto both = [&](const Tensors& tensors) {
        return std::array{layer_memory(tensors, plan, false), layer_memory(tensors, plan, true)};
    };
    const auto of_dense = both(dense);
    std::vector<std::array<LayerMemory, 2>> of_sparse;
    for (const Tensors& tensors : sparse) of_sparse.push_back(both(tensors));
    std::size_t next = 0;
    for (int layer = 0; layer < model.all_layers(); ++layer) {
        const bool moe = model.is_moe_layer(layer);
        const std::size_t i = moe ? next++ % loads.size() : 0;
        const std::size_t whole = layer < plan.offload.cpu_offloading_num_layers ? 1 : 0;
        counts.loads.push_back(moe ? &loads[i] : nullptr);
        if (model.is_mtp_layer(layer))
            counts.layers.push_back(layer_memory(
                saved_tensors(scenario, plan, counts.loads.back(), true), plan, false));
        else
            counts.layers.push_back((moe ? of_sparse[i] : of_dense)[whole]);
    }
    return counts;
}

// Activations of one micro-batch in one chunk of layers.
struct ChunkActivations {
    std::array<double, kNumParts> kept{};
    double inputs = 0.0;   // of layers that are recomputed in full
    double again = 0.0;    // what is there again while the layer in work is recomputed
    double on_host = 0.0;  // in host memory
    double moved = 0.0;    // the most of it of one layer

    double sum() const { return kept[0] + kept[1] + kept[2] + inputs; }
};

ChunkActivations chunk_activations(const PlanCounts& counts, const PipelineStage& chunk) {
    const Recompute& recompute = counts.plan.recompute;
    const bool uniform = recompute.method == RecomputeMethod::uniform;
    const int group = uniform ? recompute.num_layers : 1;  // layers behind one kept input
    ChunkActivations sum;
    double of_group = 0.0;
    for (int i = 0; i < chunk.num_layers; ++i) {
        const int layer = chunk.first_layer + i;
        const LayerMemory& memory = counts.layers[static_cast<std::size_t>(layer)];
        if (recomputes_layer(counts.scenario.model, counts.plan, layer)) {
            const bool begins = i % group == 0;
            if (begins) sum.inputs += memory.input;
            of_group = (begins ? -memory.input : of_group) + memory.all;
            sum.again = std::max(sum.again, of_group);
            continue;
        }
        for (std::size_t part = 0; part < kNumParts; ++part) sum.kept[part] += memory.kept[part];
        sum.on_host += memory.offloaded;
        sum.moved = std::max(sum.moved, memory.offloaded);
        sum.again = std::max(sum.again, memory.again);
    }
    return sum;
}

// A stage as its ranks see it: its chunks, and how many micro-batches of each are in flight when
// they weigh the most.
struct RankChunk {
    PipelineStage stage;
    int number = 0;  // of the stage
    int direction = 0;
    int message_rows = 1;  // of a token, in the widest message to or from it
    ChunkActivations activations;
    int in_flight = 1;
};

// The pairs of combined 1F1B run layer by layer: what a layer of the backward frees serves one of
// the forward, so that a pair holds what first the backward and then the forward would.
std::vector<PipelineStep> without_pairs(const std::vector<PipelineStep>& steps) {
    std::vector<PipelineStep> apart;
    for (const PipelineStep& step : steps) {
        const bool forward_first = step.beside && step.item.part == PipelinePart::forward;
        if (forward_first) apart.push_back({*step.beside, {}});
        apart.push_back({step.item, {}});
        if (step.beside && !forward_first) apart.push_back({*step.beside, {}});
    }
    return apart;
}

std::vector<std::vector<RankChunk>> chunks_of_ranks(const PlanCounts& counts,
                                                    const PipelineOrder* known) {
    const ModelSpec& model = counts.scenario.model;
    const Parallel& parallel = counts.plan.parallel;
    const std::vector<PipelineStage> stages = pipeline_stages(model, parallel);
    if (!parallel.has_pipeline() && !parallel.pipeline_schedule) {
        std::vector<RankChunk> chunks;
        for (const PipelineStage& stage : stages)
            chunks.push_back({.stage = stage, .activations = chunk_activations(counts, stage)});
        return {chunks};
    }
    std::optional<PipelineOrder> written;
    if (known == nullptr)
        written = pipeline_order(parallel.schedule(),
                                 {.ranks = parallel.pipeline_model_parallel_size,
                                  .chunks = parallel.virtual_pipeline_model_parallel_size,
                                  .micro_batches = num_micro_batches(counts.scenario, counts.plan),
                                  .group = parallel.microbatch_group_size_per_vp_stage});
    const PipelineOrder& order = known != nullptr ? *known : *written;
    std::vector<ChunkActivations> activations;
    for (const PipelineStage& stage : stages)
        activations.push_back(chunk_activations(counts, stage));
    const std::vector<int> sent = rows_sent(stages);
    std::vector<std::vector<RankChunk>> ranks(order.steps.size());
    for (int direction = 0; direction < order.directions; ++direction) {
        for (int s = 0; s < order.stages; ++s) {
            const auto i = static_cast<std::size_t>(s);
            ranks[static_cast<std::size_t>(order.rank_of(direction, s))].push_back(
                {.stage = stages[i],
                 .number = s,
                 .direction = direction,
                 .message_rows = sent[stages[i].head_and_loss && s > 0 ? i - 1 : i],
                 .activations = activations[i],
                 .in_flight = 0});
        }
    }
    const bool by_layer = parallel.schedule() == PipelineSchedule::combined_1f1b;
    const auto weight = [&](int, int stage) {
        const ChunkActivations& chunk = activations[static_cast<std::size_t>(stage)];
        return chunk.sum() + chunk.on_host;
    };
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
        const std::vector<PipelineStep>& steps = order.steps[rank];
        const InFlight most = most_in_flight(by_layer ? without_pairs(steps) : steps, true, weight);
        for (RankChunk& chunk : ranks[rank]) {
            for (const InFlight::Chunk& held : most.chunks) {
                if (held.direction == chunk.direction && held.stage == chunk.number)
                    chunk.in_flight = held.micro_batches;
            }
        }
    }
    return ranks;
}

class Items {
  public:
    void add(std::string name, double bytes) {
        if (!(bytes > 0.0)) return;
        stage_.items.push_back({std::move(name), bytes * byte});
        stage_.peak += bytes * byte;
    }
    void add(std::string name, Bytes bytes) { add(std::move(name), bytes.in(byte)); }
    void add_on_host(std::string name, double bytes) {
        if (!(bytes > 0.0)) return;
        stage_.host_items.push_back({std::move(name), bytes * byte});
        stage_.host += bytes * byte;
    }
    void end_of_tensors() { stage_.allocated = stage_.peak; }
    Bytes allocated() const { return stage_.allocated; }
    StageMemory take() { return std::move(stage_); }

  private:
    StageMemory stage_;
};

// Parameters, gradients and optimizer states in what data-parallel ranks share out of them: the
// dense part over DP x CP, the experts over EDP. What is sharded and in work is there as two units
// of a layer, the one computed with and the one on its way.
void add_states(const PlanCounts& counts, const std::vector<RankChunk>& chunks, Items& items) {
    const ModelSpec& model = counts.scenario.model;
    const Plan& plan = counts.plan;
    const Mesh& mesh = counts.mesh;
    const DataParallelSharding sharding = plan.parallel.data_parallel_sharding_strategy;
    const double instances = plan.parallel.num_distributed_optimizer_instances;
    const double n_dense = std::max(1.0, mesh.dp * mesh.cp / instances),
                 n_experts = std::max(1.0, mesh.edp / instances);
    RankParameters unit;  // the largest of each part in a layer
    std::vector<PipelineStage> stages;
    for (const RankChunk& chunk : chunks) {
        stages.push_back(chunk.stage);
        for (int i = 0; i < chunk.stage.num_layers; ++i) {
            const RankParameters layer = layer_parameters(model, plan, chunk.stage.first_layer + i);
            if (layer.dense() > unit.dense()) unit.cut = layer.dense();
            unit.experts = std::max(unit.experts, layer.experts);
        }
    }
    const RankParameters whole = rank_parameters(model, plan, stages);
    const auto held = [&](DataParallelSharding since) {
        if (sharding < since) return whole.dense() + whole.experts;
        const double share = whole.dense() / n_dense + whole.experts / n_experts;
        if (since == DataParallelSharding::optim) return share;
        const double units =
            2.0 * ((n_dense > 1.0 ? unit.dense() : 0.0) + (n_experts > 1.0 ? unit.experts : 0.0));
        return std::min(whole.dense() + whole.experts, share + units);
    };
    items.add("parameters", counts.b * held(DataParallelSharding::optim_grads_params));
    const std::size_t type = static_cast<std::size_t>(plan.main_grads_dtype);
    items.add(fmt::format("gradients ({})", kDtypeNames[type]),
              bytes_per_element(plan.main_grads_dtype) * held(DataParallelSharding::optim_grads));
    const double optimized = held(DataParallelSharding::optim),
                 offloaded = plan.offload.optimizer_share() * optimized;
    const double masters =
        optimized - (plan.offload.use_precision_aware_optimizer ? offloaded : 0.0);
    items.add("optimizer states",
              master_bytes(plan) * masters + moment_bytes(plan) * (optimized - offloaded));
    items.add_on_host("optimizer states", kHostStateBytes * offloaded);
}

void add_activations(const std::vector<RankChunk>& chunks, Items& items) {
    std::array<double, kNumParts> kept{};
    double inputs = 0.0, again = 0.0, on_host = 0.0, moved = 0.0;
    for (const RankChunk& chunk : chunks) {
        const ChunkActivations& a = chunk.activations;
        for (std::size_t part = 0; part < kNumParts; ++part)
            kept[part] += chunk.in_flight * a.kept[part];
        inputs += chunk.in_flight * a.inputs;
        again = std::max(again, a.again);
        on_host += chunk.in_flight * a.on_host;
        moved = std::max(moved, a.moved);
    }
    items.add("activations: attention and norms", kept[0]);
    items.add("activations: MoE", kept[1]);
    items.add("activations: dense feed-forward", kept[2]);
    items.add("activations: layer inputs", inputs);
    items.add("recomputed: the layer in work", again);
    // The layer in work, and the one before it or behind it whose copy is on its way.
    items.add("offloaded: two layers on their way", std::min(2.0 * moved, on_host));
    items.add_on_host("activations", on_host);
}

// What the backward of one layer's experts works in: gradients of `rows` and of their hidden rows.
double expert_workspace(const PlanCounts& counts, double rows) {
    const ExpertLayout& layout = counts.layout;
    const auto* hp = std::get_if<HeadParallel>(&counts.plan.layer);
    const double pre = is_gated(counts.scenario.model.moe.activation) ? 2.0 : 1.0;
    const double f = layout.expert_width, row = layout.width * counts.b;
    if (hp == nullptr || layout.group_size > 1 || rows == 0.0)
        return rows * (f * (pre + 1.0) * counts.b + row);
    // Alone, the gradients of the sub-tokens are in no buffer of an exchange.
    const double sub_tokens =
        counts.plan.group_size == 1 ? static_cast<double>(counts.tokens.own) * hp->num_heads : 0.0;
    const double groups = double{1} * layout.router.num_experts * layout.routers_per_rank;
    return fused_expert_workspace({.rows = rows,
                                   .groups = groups,
                                   .w1_rows = pre * f,
                                   .expert_width = f,
                                   .width = static_cast<double>(layout.width)}) +
           (rows + sub_tokens) * row;
}

// What the backward of headway's attention core works in, cuDNN's deterministic kernel: a score of
// each head for every two tokens of a sequence, 2 B, a sum a row, 4 B, and under grouped queries
// gradients of k and v for every head of q.
double attention_workspace(const PlanCounts& counts) {
    if (counts.plan.implementation != Implementation::headway) return 0.0;
    const Attention& a = counts.scenario.model.attention;
    const double rows = static_cast<double>(counts.tokens.own) * a.num_heads,
                 length = counts.scenario.batch.sequence_length,
                 of_shared = a.num_kv_heads < a.num_heads ? 4.0 * a.head_width : 0.0;
    return rows * (2.0 * length + 4.0 + of_shared);
}

// Elements of a column in the buffers of the exchange that has the most, in the model's type: what
// a rank sends and gets of the all-to-all; of the sum of a part's rows, when their copies are not
// there yet; or of that of all tokens.
double exchanged_rows(const PlanCounts& counts, const GroupLoad& load) {
    const ExpertLayout& layout = counts.layout;
    const double summed = summed_element(counts.scenario.model, counts.plan) / counts.b;
    if (layout.gathers_tokens)
        return summed * (layout.ranks() + 1.0) * static_cast<double>(counts.tokens.own);
    const double exchanged = layout.exchanges() ? load.copies_received + load.copies_sent : 0.0;
    if (!layout.gathers_rows()) return exchanged;
    return std::max(exchanged, summed * (load.copies_received + load.rows_max));
}

// Buffers of one exchange at the busiest rank, and of messages to the stages before and after: one
// that comes and one that goes each way.
void add_buffers(const PlanCounts& counts, const std::vector<RankChunk>& chunks, Items& items) {
    const Plan& plan = counts.plan;
    const ExpertLayout& layout = counts.layout;
    double arrival = 0.0, rows = 0.0;
    bool moe = false;
    int neighbours = 0, rows_of_message = 1;
    for (const RankChunk& chunk : chunks) {
        rows_of_message = std::max(rows_of_message, chunk.message_rows);
        neighbours += (chunk.stage.embedding ? 0 : 1) + (chunk.stage.head_and_loss ? 0 : 1);
        for (int i = 0; i < chunk.stage.num_layers; ++i) {
            const GroupLoad* load =
                counts.loads[static_cast<std::size_t>(chunk.stage.first_layer + i)];
            if (load == nullptr) continue;
            moe = true;
            arrival = std::max(arrival, exchanged_rows(counts, *load));
            rows = std::max(rows, load->rows_max);
        }
    }
    const auto* hp = std::get_if<HeadParallel>(&plan.layer);
    const double width = layout.width * counts.b;
    const double sub_tokens =
        hp != nullptr ? static_cast<double>(counts.tokens.own) * hp->num_heads : 0.0;
    if (moe && std::max(plan.group_size, layout.ranks()) > 1) {
        // Gradients of the own sub-tokens and of those held; a rank of several heads gets them by
        // source first.
        const double blocks = hp != nullptr && hp->num_heads > plan.group_size ? 3.0 : 2.0;
        items.add("communication buffers", (blocks * sub_tokens + arrival) * width);
    }
    if (plan.parallel.has_pipeline())
        items.add("pipeline messages", 2.0 * std::min(neighbours, 2) * rows_of_message *
                                           static_cast<double>(counts.tokens.own) *
                                           counts.scenario.model.hidden * counts.b);
    items.add("workspace", expert_workspace(counts, rows) + attention_workspace(counts));
}

// NCCL communicators of a rank. Those of the same ranks are one.
int num_communicators(const PlanCounts& counts) {
    const Mesh& m = counts.mesh;
    const ModelSpec& model = counts.scenario.model;
    const bool copies = m.pp > 1 && (model.tied_embeddings || model.mtp_num_layers > 0);
    const bool same_replicas = m.ep * m.etp == 1 && m.tp == 1;  // EDP is DP x CP
    const bool sharers =
        counts.layout.group_size > 1 && counts.layout.group_size < counts.plan.group_size;
    const bool two_levels = m.cp_inner > 1 && m.cp_inner < m.cp;  // of CP: both besides
    const std::array exists = {m.tp > 1,
                               m.cp > 1 && m.dp > 1,
                               two_levels,
                               two_levels,
                               m.dp * m.cp > 1,
                               m.pp > 1,
                               copies,                // of the embedding
                               m.tp > 1 && m.pp > 1,  // norm of the gradients
                               m.etp > 1 && (m.etp != m.tp || m.tp == 1),
                               m.ep > 1,
                               m.etp > 1 && m.ep > 1,  // counts of rows
                               m.edp > 1 && !same_replicas,
                               sharers};
    return static_cast<int>(std::count(exists.begin(), exists.end(), true));
}

void add_reserve(const PlanCounts& counts, Items& items) {
    const Reserve& reserve = counts.scenario.cluster.reserve;
    items.end_of_tensors();
    items.add("reserve: context", reserve.context);
    items.add("reserve: communicators", num_communicators(counts) * reserve.communicator);
    const double gaps = reserve.fragmentation / (1.0 - reserve.fragmentation);
    items.add("reserve: fragmentation", gaps * items.allocated());
}

StageMemory stage_memory(const PlanCounts& counts, const std::vector<RankChunk>& chunks) {
    const ModelSpec& model = counts.scenario.model;
    Items items;
    add_states(counts, chunks, items);
    add_activations(chunks, items);
    // Logits and their gradient share a buffer; the loss works in fp32 on slices of it. The losses
    // of multi-token prediction keep theirs until backward too.
    const bool has_head = std::any_of(chunks.begin(), chunks.end(),
                                      [](const RankChunk& c) { return c.stage.head_and_loss; });
    if (has_head)
        items.add("logits", static_cast<double>(counts.tokens.group) * model.vocab_size /
                                counts.mesh.tp * counts.b * 2.0 * (1 + model.mtp_num_layers));
    add_buffers(counts, chunks, items);
    add_reserve(counts, items);
    return items.take();
}

// Stages are blocks of equally many consecutive ranks.
HostMemory host_memory(const Cluster& cluster, const std::vector<StageMemory>& stages) {
    HostMemory host;
    const int ranks = cluster.num_ranks() / static_cast<int>(stages.size());
    for (int first = 0; first < cluster.num_ranks(); first += cluster.gpus_per_node) {
        Bytes node;
        for (int rank = first; rank < first + cluster.gpus_per_node; ++rank)
            node += stages[static_cast<std::size_t>(rank / ranks)].host;
        host.node = max(host.node, node);
    }
    if (!(host.node > Bytes{})) return host;
    host.items = std::ranges::max_element(stages, {}, &StageMemory::host)->host_items;
    if (cluster.host) host.capacity = cluster.host->memory;
    return host;
}

}  // namespace

PlanMemory predict_memory(const Scenario& scenario, const Plan& plan,
                          const std::vector<GroupLoad>& loads, const PipelineOrder* order) {
    const PlanCounts counts = plan_counts(scenario, plan, loads);
    PlanMemory memory{.capacity = scenario.cluster.device.memory};
    for (const std::vector<RankChunk>& chunks : chunks_of_ranks(counts, order))
        memory.stages.push_back(stage_memory(counts, chunks));
    const auto worst = std::max_element(
        memory.stages.begin(), memory.stages.end(),
        [](const StageMemory& a, const StageMemory& b) { return a.peak < b.peak; });
    memory.stage = static_cast<int>(worst - memory.stages.begin());
    memory.peak = worst->peak;
    memory.allocated = worst->allocated;
    memory.items = worst->items;
    memory.host = host_memory(scenario.cluster, memory.stages);
    return memory;
}

}  // namespace headway::inline cost
