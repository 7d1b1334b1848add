// Parallel: how a plan cuts model and tokens beside its expert or head parallelism. Keys carry
// Megatron's names.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace headway {

// Orders of a pipelined step (models/schedule/pipeline_order.cpp has each rule and its source).
enum class PipelineSchedule {
    gpipe,          // all forwards, then all backwards
    one_f_one_b,    // 1F1B, Megatron's order without virtual stages
    interleaved,    // 1F1B over v chunks a rank, Megatron's order with virtual stages
    combined_1f1b,  // interleaved; a forward and a backward of a pair run as one step (EP overlap)
    zb_h1,          // zero bubble: backward split into input and weight gradient, memory of 1F1B
    zb_h2,          // the same, with more forwards in flight
    zb_v,           // two chunks a rank, laid out as a V
    dualpipe,       // two directions, two copies of every stage
    dualpipe_v,     // DualPipe cut in half: two chunks a rank, laid out as a V
};
inline constexpr std::array kPipelineScheduleNames = {
    std::string_view("gpipe"),       std::string_view("1f1b"),
    std::string_view("interleaved"), std::string_view("combined_1f1b"),
    std::string_view("zb_h1"),       std::string_view("zb_h2"),
    std::string_view("zb_v"),        std::string_view("dualpipe"),
    std::string_view("dualpipe_v")};
constexpr std::string_view name(PipelineSchedule s) {
    return kPipelineScheduleNames[static_cast<std::size_t>(s)];
}

// Whether weight gradients run apart from those of inputs.
constexpr bool splits_backward(PipelineSchedule s) {
    return s == PipelineSchedule::zb_h1 || s == PipelineSchedule::zb_h2 ||
           s == PipelineSchedule::zb_v || s == PipelineSchedule::dualpipe ||
           s == PipelineSchedule::dualpipe_v;
}

// How a sequence that is cut over the context-parallel ranks meets its keys and values.
enum class CpCommType { p2p, all_gather, a2a, a2a_p2p };
inline constexpr std::array kCpCommTypeNames = {
    std::string_view("p2p"), std::string_view("all_gather"), std::string_view("a2a"),
    std::string_view("a2a+p2p")};

// What the data-parallel ranks share out: nothing; optimizer states (ZeRO-1); gradients too
// (ZeRO-2); parameters too (ZeRO-3, FSDP).
enum class DataParallelSharding { no_shard, optim, optim_grads, optim_grads_params };
inline constexpr std::array kDataParallelShardingNames = {
    std::string_view("no_shard"), std::string_view("optim"), std::string_view("optim_grads"),
    std::string_view("optim_grads_params")};

struct Parallel {
    int tensor_model_parallel_size = 1;  // t
    bool sequence_parallel = false;      // norms, router and MoE layer on T/t tokens of a TP rank
    bool tp_comm_overlap = false;        // exchanges of q k v, output, dense MLP beside their GEMMs
    int context_parallel_size = 1;       // c
    CpCommType cp_comm_type = CpCommType::p2p;
    // With a2a+p2p: ranks of the all-to-alls, neighbours, and of the ring over those groups.
    std::array<int, 2> hierarchical_context_parallel_sizes{};
    int pipeline_model_parallel_size = 1;          // p
    int virtual_pipeline_model_parallel_size = 1;  // v, chunks of layers on one pipeline rank
    // Megatron's string: stages in the order of the forward pass separated by '|', E embedding,
    // t decoder layer, m MTP layer, L head and loss; "Et|(tt|)*3L". Empty: layers evenly.
    std::string pipeline_model_parallel_layout;
    std::optional<PipelineSchedule> pipeline_schedule;  // absent: 1f1b; interleaved where v > 1
    int microbatch_group_size_per_vp_stage = 0;         // 0: p
    // Exchanges of a forward beside the compute of a backward and the other way round: the pairs of
    // combined_1f1b, which is the schedule then.
    bool overlap_moe_expert_parallel_comm = false;
    bool delay_wgrad_compute = false;     // weight gradients of a pair behind its exchanges
    int expert_tensor_parallel_size = 1;  // e
    DataParallelSharding data_parallel_sharding_strategy = DataParallelSharding::no_shard;
    int num_distributed_optimizer_instances = 1;  // replicas of the shards (HSDP)

    friend bool operator==(const Parallel&, const Parallel&) = default;

    // Context-parallel ranks that give each other heads for tokens; the rest meet in a ring of such
    // groups, or gather.
    constexpr int heads_for_tokens() const {
        if (cp_comm_type == CpCommType::a2a) return context_parallel_size;
        return cp_comm_type == CpCommType::a2a_p2p ? hierarchical_context_parallel_sizes[0] : 1;
    }

    bool has_pipeline() const { return pipeline_model_parallel_size > 1; }
    PipelineSchedule schedule() const {
        if (pipeline_schedule) return *pipeline_schedule;
        if (overlap_moe_expert_parallel_comm) return PipelineSchedule::combined_1f1b;
        return virtual_pipeline_model_parallel_size > 1 ? PipelineSchedule::interleaved
                                                        : PipelineSchedule::one_f_one_b;
    }
    // Steps that are executed as an order of chunks: pairs have one without a pipeline too.
    bool executes_order() const {
        return has_pipeline() || schedule() == PipelineSchedule::combined_1f1b;
    }
};

}  // namespace headway
