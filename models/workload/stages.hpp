// What lies on each stage of a pipeline: the chunks of a model, in the order of the forward pass.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/model_spec.hpp"
#include "models/vocab/parallel.hpp"

namespace headway::inline workload {

// Layers [first_layer, first_layer + num_layers) of the model, of which the last `mtp_layers` are
// of multi-token prediction, and what stands around them.
struct PipelineStage {
    bool embedding = false, head_and_loss = false;
    int first_layer = 0, num_layers = 0;
    int mtp_layers = 0;
};

// p * v stages (PipelineOrder::rank_of has the rank of each). One for a plan without a pipeline.
// pipeline_layout_broken must be empty.
std::vector<PipelineStage> pipeline_stages(const ModelSpec& model, const Parallel& parallel);

// [stage] Hidden rows a token that it sends on: behind layers of multi-token prediction theirs go
// to the loss too.
std::vector<int> rows_sent(const std::vector<PipelineStage>& stages);

// Those of one pipeline rank where stage s lies on rank s mod p.
std::vector<PipelineStage> stages_of_rank(const ModelSpec& model, const Parallel& parallel,
                                          int rank);

// Why the layers do not lie on these stages, and what would fit; empty: they do.
std::string pipeline_layout_broken(const ModelSpec& model, const Parallel& parallel);

}  // namespace headway::inline workload
