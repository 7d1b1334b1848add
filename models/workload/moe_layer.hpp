// What the workload asks of a kind of MoE layer, one alternative of Plan::layer. A new kind is its
// struct in vocab/plan.hpp, its keys in scenario/moe_keys.cpp, a file with these functions in
// workload/layers, and its name at the end of this one.
#pragma once

#include <array>
#include <string>
#include <variant>

#include "models/workload/layout.hpp"
#include "models/workload/phases.hpp"

namespace headway::inline workload {

// One MoE layer without its shared experts, in elements.
struct MoeParameters {
    double router = 0, experts = 0;  // of all ranks of a group
    double projections = 0;          // that the kind adds, on every rank
    double chosen = 1.0;             // share of the experts that a token uses
};

struct MoeLayerKind {
    // Why so many ranks cannot share the layer; empty: they can.
    std::string (*why_not)(const ModelSpec&, const Plan&, int group_size);
    // Where tokens choose experts on other ranks.
    ExpertLayout (*layout)(const Scenario&, const Plan&);
    MoeParameters (*parameters)(const ModelSpec&, const Plan&);
    // Forward, as published "model FLOPs" count them.
    double (*flops_per_token)(const ModelSpec&, const Plan&);
    // The phases of a pass, shared experts included; they set the pipeline range to [in exchange,
    // out exchange].
    void (*forward)(const StepShape&, const GroupLoad&, LayerWork&);
    void (*backward)(const StepShape&, const GroupLoad&, LayerWork&);
    // What the code released with arXiv 2602.04870 does besides; null: it has no such layer.
    void (*add_unfused)(const StepShape&, const GroupLoad&, LayerWork&);
    // Which curves of whole phases are this layer's, and what they are read at.
    void (*set_shape)(const StepShape&, PhaseShape&);
};
// A file of workload/layers each.
extern const MoeLayerKind kExpertParallelLayer, kHeadParallelLayer;

inline const MoeLayerKind& moe_layer_kind(const Plan& plan) {
    // In the order of MoeLayerSplit.
    constexpr std::array kinds = {&kExpertParallelLayer, &kHeadParallelLayer};
    static_assert(kinds.size() == std::variant_size_v<MoeLayerSplit>);
    return *kinds[plan.layer.index()];
}

}  // namespace headway::inline workload
