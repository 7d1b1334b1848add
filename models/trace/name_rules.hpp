// Phases by the names that kernels, operators and annotations bear.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "models/vocab/phase.hpp"

namespace headway::inline trace {

// In lower case and without underscores, as names are compared.
std::string plain_name(std::string_view name);

// record_function("dispatch"), or "headway.dispatch": named as headway's phases.
std::optional<Phase> phase_of_annotation(std::string_view name);

// An annotation that PyTorch's optimizers make: "Optimizer.step#AdamW.step".
bool is_optimizer_annotation(std::string_view name);

// "ProfilerStep#12", of the profiler's schedule.
inline constexpr std::string_view kStepAnnotation = "ProfilerStep#";
inline bool is_step_annotation(std::string_view name) {
    return name.starts_with(kStepAnnotation);
}

std::optional<Phase> phase_of_operator(std::string_view name);
std::optional<Phase> phase_of_kernel(std::string_view name);

// Whether a kernel moves data between ranks, NCCL's or an exchange library's.
bool is_communication_kernel(std::string_view name);

}  // namespace headway::inline trace
