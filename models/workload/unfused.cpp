// The MoE layers as released with arXiv 2602.04870 (kerner-lab/Sparse-GPT-Pretraining, e9ea58c):
// what they move beyond the phases of workload/layers. Counted from the code, not fitted;
// docs/reference/model.md, section 4, has the table. Notation there and here: row = T d elements
// (HP: T H d_h), c copies of a token, b bytes an element, 4 bytes in fp32.
#include <algorithm>
#include <stdexcept>
#include <variant>

#include "models/vocab/model_spec.hpp"
#include "models/workload/phases.hpp"

namespace headway::inline workload {
namespace {

PhaseWork& find(std::vector<PhaseWork>& phases, Phase wanted) {
    const auto found = std::find_if(phases.begin(), phases.end(),
                                    [&](const PhaseWork& p) { return p.phase == wanted; });
    if (found == phases.end()) throw std::logic_error("unfused layer without an expected phase");
    return *found;
}

void add_move(std::vector<PhaseWork>& phases, Phase phase, double bytes, int launches) {
    std::get<ComputeWork>(find(phases, phase).work).add(move(Kernel::streaming, bytes, launches));
}

double expert_parameters_on_rank(const StepShape& s) {
    const double experts = static_cast<double>(s.layout.router.num_experts) *
                           s.layout.routers_per_rank / s.layout.group_size;
    return experts * matrices_per_expert(s.scenario.model.moe.activation) * s.layout.width *
           s.layout.expert_width;
}

// fp32 parameters are cast for every forward pass, their gradients back to fp32 in backward.
constexpr double kCast = 4.0;

}  // namespace

void add_unfused_ep(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    const double b = s.element, row = s.tokens * s.layout.width;
    const double copies = load.copies_sent * s.layout.width, weights = expert_parameters_on_rank(s);
    // An fp32 token is cast and duplicated before the permute moves the copies.
    add_move(layer.forward, Phase::permute, kCast * row + b * copies, 1);
    // Three .tolist(): sizes to send, to receive, and, behind the exchange, of the experts.
    if (s.layout.group_size > 1)
        std::get<CountExchangeWork>(find(layer.forward, Phase::count_exchange).work).num_syncs = 3;
    // One cast a weight matrix; the casts of one linear layer run back to back.
    add_move(layer.forward, Phase::expert, (kCast + b) * weights, 1);
    add_move(layer.backward, Phase::expert, (kCast + b) * weights, 1);
    // Unpermute writes the copies in token order, another kernel weighs and sums them into fp32.
    add_move(layer.forward, Phase::unpermute, 2.0 * b * copies + (kCast - b) * row, 1);
    add_move(layer.backward, Phase::unpermute, b * copies + (kCast - b) * row, 1);
    add_move(layer.backward, Phase::permute, 2.0 * b * copies + (kCast - b) * row, 1);
}

void add_unfused_hp(const StepShape& s, const GroupLoad& load, LayerWork& layer) {
    const auto& hp = std::get<HeadParallel>(s.plan.layer);
    const double b = s.element, row = s.tokens * hp.num_heads * hp.head_width;
    const double choices = load.rows_max, pool = choices * s.layout.width;
    const double weights = expert_parameters_on_rank(s);
    // Dense block lists, one int32 a tile of 128 rows and 128 hidden columns, four of them.
    const double tiles =
        choices / 128.0 * s.layout.router.num_experts * s.layout.expert_width / 128.0;
    // Two layout copies around the scatter; duplication; stable sort of int64 keys with int64
    // values (8 radix passes that read and write 16 bytes) and its inverse; gather of the copies.
    add_move(layer.forward, Phase::permute,
             4.0 * b * row + b * (row + pool) + (8.0 * 32.0 + 16.0) * choices + 2.0 * b * pool +
                 16.0 * tiles,
             30);
    // Casts of both matrices, fp32 row sums of the second; scaling by exp(lse) and the subtraction
    // of gathered sums.
    add_move(layer.forward, Phase::expert,
             (kCast + b) * weights + 0.5 * kCast * weights + 3.0 * b * pool, 5);
    // Copies in token order, sum in fp32, cast, two layout copies around the gather.
    add_move(layer.forward, Phase::unpermute,
             2.0 * b * pool + (kCast - b) * row + (kCast + b) * row + 2.0 * b * row, 4);
    // The host reads the padding to the longest head.
    const auto permute = std::find_if(layer.forward.begin(), layer.forward.end(),
                                      [](const PhaseWork& p) { return p.phase == Phase::permute; });
    const int at = static_cast<int>(permute - layer.forward.begin());
    layer.forward.insert(permute, {Phase::count_exchange, Pass::forward,
                                   CountExchangeWork{s.plan.group_size, true, 1}});
    for (PhaseRange& range : layer.forward_pipelines) {
        range.begin += range.begin > at ? 1 : 0;
        range.end += range.end > at ? 1 : 0;
    }
    add_move(layer.backward, Phase::expert, (kCast + b) * weights + 4.0 * b * pool, 5);
    // Gradients of the sum (fp32 in, copies out, saved copies for the gates), of both gathers and
    // of the duplication; four layout copies.
    add_move(layer.backward, Phase::permute,
             kCast * row + 4.0 * b * pool + 2.0 * b * pool + 8.0 * b * row, 10);
}

void widen_residual_stream(const StepShape& s, LayerWork& layer) {
    const double row = s.tokens * s.hidden;
    add_move(layer.forward, Phase::norm, 8.0 * row * (kCast - s.element), 1);
    add_move(layer.backward, Phase::norm, 10.0 * row * (kCast - s.element), 1);
}

void widen_head(const StepShape& s, std::vector<PhaseWork>& phases) {
    // No autocast around the language head and the loss: fp32 operands, logits and gradients,
    // multiplied as TF32, for which a tensor core takes twice the time of bf16 (datasheets of A100,
    // H100 and H200).
    for (PhaseWork& phase : phases) {
        if (phase.phase != Phase::lm_head && phase.phase != Phase::loss) continue;
        auto& compute = std::get<ComputeWork>(phase.work);
        for (int i = 0; i < compute.num_kernels; ++i) {
            KernelWork& work = compute.kernels[static_cast<std::size_t>(i)];
            const double wider = kCast / s.element;
            work.bytes = work.bytes * wider;
            if (work.kernel == Kernel::dense_gemm)
                work.flops = work.flops * 2.0;
            else
                work.size *= wider;
        }
    }
}

}  // namespace headway::inline workload
