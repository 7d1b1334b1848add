// The phase of everything that a GPU ran, and by what it was told.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "models/trace/host_tree.hpp"
#include "models/trace/torch_trace.hpp"
#include "models/vocab/model_spec.hpp"
#include "models/vocab/phase.hpp"
#include "models/vocab/plan.hpp"
#include "models/vocab/prediction.hpp"

namespace headway::inline trace {

// In order of trust. position: between two that were told otherwise, in the order of a layer; of
// the backward pass: of what it differentiates.
enum class How { annotation, collective, shape, name, position, nothing };
inline constexpr std::array kHowNames = {
    std::string_view("annotation"), std::string_view("collective"), std::string_view("shape"),
    std::string_view("name"),       std::string_view("position"),   std::string_view("nothing")};

struct Joined {
    Phase phase = Phase::embed;
    Pass pass = Pass::forward;
    How how = How::nothing;

    bool is_joined() const { return how != How::nothing; }
};

// One for each of TorchTrace::gpu.
std::vector<Joined> attribute(const TorchTrace& trace, const HostTree& host, const ModelSpec& model,
                              const Plan& plan, const PlanPrediction& prediction);

}  // namespace headway::inline trace
