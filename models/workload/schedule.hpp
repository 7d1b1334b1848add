// The order of a training step, coded once: which blocks of phases follow one another, and inside a
// pass of a layer which phase runs on which stream and after what, chunk by chunk where the plan
// overlaps. price_step executes it with mean times; build_program writes it out for the simulator.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "models/vocab/program.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline workload {

// bucket: the gradients of a layer are ready to be reduced.
enum class BlockKind { before, layer, after, bucket, update };

struct Block {
    BlockKind kind = BlockKind::before;
    Pass pass = Pass::forward;
    int layer = -1;  // of a layer and of a bucket
    int micro_batch = 0;
};

// All layers of a model, with what stands before and after them.
PipelineStage whole_model(int num_layers);
std::vector<Block> step_blocks(int num_layers, int num_micro_batches);
// One pass of a pipeline stage; `buckets`: the gradients of its layers are whole.
std::vector<Block> stage_blocks(const PipelineStage& stage, Pass pass, int micro_batch,
                                bool buckets = false);

// Which gradients of a backward: zero-bubble orders and delayed weight gradients run them apart.
enum class GradientPart { all, input, weight };

// One execution of a phase, or of one chunk of it. It starts when its stream is free and `after`
// has ended: a slot of the same list, or what a stream last did before the list.
struct Slot {
    int phase = 0;  // in the list of phases
    int chunk = 0, num_chunks = 1;
    Stream stream = Stream::compute;
    int after = 0;
    bool ring = false;
    std::optional<int> also_after{};  // another slot

    // Its time is `scale` times that of `fraction` of the phase's work: a chunk is the smaller work
    // that it is; the parts of a ring's compute, through which it goes without a pause, are shares
    // of the whole. The host enqueues a ring once.
    double fraction() const { return scale() < 1.0 ? 1.0 : 1.0 / num_chunks; }
    double scale() const { return ring && stream == Stream::compute ? 1.0 / num_chunks : 1.0; }
    double launches() const { return ring ? 1.0 / num_chunks : 1.0; }
};
constexpr int before_list(Stream stream) {
    return -1 - static_cast<int>(stream);
}
constexpr Stream stream_before(int after) {
    return static_cast<Stream>(-1 - after);
}

// The phases of one pass of a layer, of which `pipelines` run in `num_chunks` chunks. What runs
// beside the pass is on the gradient stream from its begin; the pass ends when it has ended.
std::vector<Slot> pass_slots(std::span<const PhaseWork> phases,
                             const std::vector<PhaseRange>& pipelines, int num_chunks);

// The phases of an update that an offloaded optimizer has: gradients down, the host's optimizer,
// the GPU's if it has any, parameters up. None: an empty range.
PhaseRange host_update(std::span<const PhaseWork> update);

// Their order (Megatron-LM d98e8a6, core/optimizer/cpu_offloading/hybrid_optimizer.py): the host
// works on a piece as soon as its gradients are there, and its parameters come up behind that and
// the GPU's optimizer. In one piece, without overlap, the copy down is on the GPU's own stream.
std::vector<Slot> host_update_slots(std::span<const PhaseWork> phases);

}  // namespace headway::inline workload
