// The HP twin of an EP model: with H heads of width d_h = d / H and the same E, k, f in every head,
// the expert parameters (E m d f, m matrices an expert) and the active expert FLOPs per token
// (2 m k d f) equal those of the EP layer: H E m d_h f = E m d f. HP adds two d x H d_h
// projections. Source: Multi-Head LatentMoE, arXiv 2602.04870.
#pragma once

#include <string>

#include "models/vocab/model_spec.hpp"
#include "models/vocab/plan.hpp"

namespace headway::inline scenario {

// Fills the fields of `partial` that are zero; num_heads must be given. Without an explicit
// head_width num_heads must divide the hidden width (checked by the caller).
HeadParallel head_parallel_twin(const ModelSpec& model, const HeadParallel& partial);

// One sentence on what was derived and what stays equal.
std::string describe_twin(const ModelSpec& model, const HeadParallel& twin,
                          const std::string& plan_name);

}  // namespace headway::inline scenario
