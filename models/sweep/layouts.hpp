// Layouts: the ways to cut a model over a cluster that `headway best --layouts` tries, and a plan
// written as the flags of the training frameworks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/vocab/scenario.hpp"

namespace headway::inline sweep {

// Every (t, c, p, v, schedule) that fits the cluster's nodes and the model's layers, in the order
// of t, c, p, v; the plan `like` gives what is not varied. Illegal ones with a plan's group and
// batch are left to check_plans. Context parallelism is tried from 16,384 tokens a sequence on.
std::vector<Parallel> layouts_of(const Scenario& scenario, const Plan& like);

// Megatron's layout string of layers spread as evenly as they go, embedding and head counted as
// one layer each; empty where layers alone divide evenly.
std::string even_layout(const ModelSpec& model, int stages);

// "TP 2, PP 8 x 4 chunks, EP overlap"; empty without any.
std::string layout_text(const Parallel& parallel);

// A line of arguments for Megatron-LM; what it has no argument for is left out (HP).
std::string megatron_flags(const Plan& plan, const Batch& batch, std::int64_t global_batch_size);
// The same for torchtitan; a layout with what torchtitan lacks has a remark in place of a flag.
std::string torchtitan_flags(const Plan& plan, const Batch& batch, const Mesh& mesh);

}  // namespace headway::inline sweep
