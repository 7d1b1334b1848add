// The tensors that one layer keeps from forward for backward, one micro-batch on one rank: the
// table of docs/reference/model.md, "Memory".
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "models/vocab/recompute.hpp"
#include "models/vocab/scenario.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

enum class LayerPart { attention, moe, dense };

struct SavedTensor {
    std::string_view name;
    LayerPart part = LayerPart::attention;
    double bytes = 0.0;
    RecomputeModules unless = 0u;  // not kept when one of these is recomputed
};

// What an MoE layer with this load on its busiest rank keeps, or a dense layer (null); `mtp`: with
// what multi-token prediction keeps around it.
std::vector<SavedTensor> saved_tensors(const Scenario& scenario, const Plan& plan,
                                       const GroupLoad* load, bool mtp = false);

// What they come to, in bytes.
struct LayerMemory {
    std::array<double, 3> kept{};  // by LayerPart, under the selected modules
    double all = 0.0;              // without recompute
    double input = 0.0;            // what a full recompute starts from
    double again = 0.0;            // there again while the module that drops the most is recomputed
};
LayerMemory layer_memory(const std::vector<SavedTensor>& tensors, RecomputeModules selected);

}  // namespace headway::inline cost
