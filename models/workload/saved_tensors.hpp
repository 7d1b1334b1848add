// The tensors that one layer keeps from forward for backward, one micro-batch on one rank: the
// table of docs/reference/model.md, "Memory".
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "models/vocab/offload.hpp"
#include "models/vocab/recompute.hpp"
#include "models/vocab/scenario.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline workload {

enum class LayerPart { attention, moe, dense };

struct SavedTensor {
    std::string_view name;
    LayerPart part = LayerPart::attention;
    double bytes = 0.0;
    RecomputeModules unless = 0u;  // not kept when one of these is recomputed
    OffloadModules by = 0u;        // these take it to the host
    bool by_layers = true;         // so does the offload of whole layers
};

// What an MoE layer with this load on its busiest rank keeps, or a dense layer (null); `mtp`: with
// what multi-token prediction keeps around it.
std::vector<SavedTensor> saved_tensors(const Scenario& scenario, const Plan& plan,
                                       const GroupLoad* load, bool mtp = false);

// Whether the plan takes it to the host; `whole`: of a layer that is offloaded as one.
bool is_offloaded(const SavedTensor& tensor, const Plan& plan, bool whole);
// Bytes that a layer moves each way: copies of whole layers spread over all of their kind.
double offloaded_by_layer(const std::vector<SavedTensor>& tensors, const ModelSpec& model,
                          const Plan& plan, bool moe);

// What they come to, in bytes.
struct LayerMemory {
    std::array<double, 3> kept{};  // by LayerPart, under the selected modules
    double offloaded = 0.0;        // besides, in host memory
    double all = 0.0;              // without recompute
    double input = 0.0;            // what a full recompute starts from
    double again = 0.0;            // there again while the module that drops the most is recomputed
};
LayerMemory layer_memory(const std::vector<SavedTensor>& tensors, RecomputeModules selected);
// The same under the plan's recompute, less what it offloads.
LayerMemory layer_memory(const std::vector<SavedTensor>& tensors, const Plan& plan, bool whole);

}  // namespace headway::inline workload
