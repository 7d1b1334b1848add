#include "models/trace/name_rules.hpp"

#include <algorithm>
#include <array>

namespace headway::inline trace {
namespace {

struct Rule {
    std::string_view part;  // of plain_name(name)
    Phase phase;
};

// The first rule that fits counts: what is more special stands before.
template <std::size_t N>
std::optional<Phase> first_fitting(const std::array<Rule, N>& rules, std::string_view name) {
    const std::string text = plain_name(name);
    const auto found = std::ranges::find_if(
        rules, [&](const Rule& rule) { return text.find(rule.part) != text.npos; });
    return found == rules.end() ? std::optional<Phase>() : found->phase;
}

// Names of ATen, of TransformerEngine's autograd functions and of FlashAttention's package.
constexpr std::array kOperators = {
    Rule{"fusedadam", Phase::optimizer},
    Rule{"scaleddotproduct", Phase::attention_core},
    Rule{"flashattention", Phase::attention_core},
    Rule{"flashattn", Phase::attention_core},
    Rule{"fusedattn", Phase::attention_core},
    Rule{"efficientattention", Phase::attention_core},
    Rule{"rmsnorm", Phase::norm},
    Rule{"layernorm", Phase::norm},
    Rule{"embedding", Phase::embed},
    Rule{"crossentropy", Phase::loss},
    Rule{"nllloss", Phase::loss},
    Rule{"logsoftmax", Phase::loss},
    Rule{"groupedmm", Phase::expert},
    Rule{"groupedlinear", Phase::expert},
    Rule{"groupedgemm", Phase::expert},
    Rule{"moeunpermute", Phase::unpermute},
    Rule{"moepermute", Phase::permute},
    Rule{"topk", Phase::route},
    Rule{"bincount", Phase::route},
};

constexpr std::array kKernels = {
    Rule{"adam", Phase::optimizer},       Rule{"flash", Phase::attention_core},
    Rule{"fmha", Phase::attention_core},  Rule{"sdpa", Phase::attention_core},
    Rule{"fattn", Phase::attention_core}, Rule{"rmsnorm", Phase::norm},
    Rule{"layernorm", Phase::norm},       Rule{"embedding", Phase::embed},
    Rule{"nllloss", Phase::loss},         Rule{"crossentropy", Phase::loss},
    Rule{"groupedgemm", Phase::expert},   Rule{"gathertopk", Phase::route},
};

// Exchange libraries: their kernels have no record of PyTorch's collectives.
constexpr std::array kLibraries = {std::string_view("deepep"), std::string_view("hybridep"),
                                   std::string_view("nvshmem"), std::string_view("nccl")};

}  // namespace

std::string plain_name(std::string_view name) {
    std::string text;
    for (const char c : name) {
        if (c != '_') text += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    return text;
}

std::optional<Phase> phase_of_annotation(std::string_view name) {
    constexpr std::string_view prefix = "headway.";
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
    return phase_from_name(name);
}

bool is_optimizer_annotation(std::string_view name) {
    return name.starts_with("Optimizer.step#") || name.starts_with("Optimizer.zero_grad#");
}

std::optional<Phase> phase_of_operator(std::string_view name) {
    return first_fitting(kOperators, name);
}

std::optional<Phase> phase_of_kernel(std::string_view name) {
    if (is_communication_kernel(name)) {
        const std::string text = plain_name(name);
        if (text.find("nccl") != text.npos) return std::nullopt;
        if (text.find("dispatch") != text.npos) return Phase::dispatch;
        if (text.find("combine") != text.npos) return Phase::combine;
        return std::nullopt;
    }
    return first_fitting(kKernels, name);
}

bool is_communication_kernel(std::string_view name) {
    const std::string text = plain_name(name);
    return std::ranges::any_of(kLibraries,
                               [&](std::string_view part) { return text.find(part) != text.npos; });
}

}  // namespace headway::inline trace
