#include "runtime/cuda/step/step_head.hpp"

#include <algorithm>

#include "runtime/cuda/step/step_kernels.hpp"

namespace headway::runtime {
namespace {

constexpr std::size_t kGemmWorkspace = std::size_t{32} << 20;
constexpr std::int64_t kLogitBytes = std::int64_t{2} << 30;  // of a chunk

std::int64_t chunk_rows(const HeadShape& shape) {
    const std::int64_t fit = kLogitBytes / (std::int64_t{2} * shape.vocabulary);
    return std::min(shape.tokens, std::max<std::int64_t>(128, fit / 128 * 128));
}

}  // namespace

StepHead::StepHead(DeviceContext& context, const HeadShape& shape)
    : context_(context), shape_(shape), chunk_(plans_of(chunk_rows(shape))) {
    if (shape.tokens % chunk_.rows != 0) rest_.emplace(plans_of(shape.tokens % chunk_.rows));
}

StepHead::Plans StepHead::plans_of(std::int64_t rows) const {
    const int m = static_cast<int>(rows), d = shape_.width, v = shape_.vocabulary;
    const auto plan = [&](const kernels::DenseGemmShape& shape) {
        return kernels::DenseGemm(context_.blas, shape, kGemmWorkspace);
    };
    return {rows, plan({.m = m, .n = v, .k = d, .transpose_b = true}),
            plan({.m = m, .n = d, .k = v}),
            plan({.m = v, .n = d, .k = m, .transpose_a = true, .fp32_out = true})};
}

std::size_t StepHead::workspace_bytes() const {
    std::size_t bytes = 0;
    for (const Plans* plans : {&chunk_, rest_ ? &*rest_ : &chunk_}) {
        for (const kernels::DenseGemm* one : {&plans->logits, &plans->dgrad, &plans->wgrad})
            bytes = std::max(bytes, one->workspace_bytes());
    }
    return bytes;
}

void StepHead::run(const HeadCall& call) {
    DeviceArena& arena = context_.arena;
    const ArenaScope scope(arena);
    bf16* logits = arena.take<bf16>(chunk_.rows * shape_.vocabulary);
    float* log_sum = arena.take<float>(chunk_.rows);
    float* losses = arena.take<float>(shape_.tokens);
    void* workspace = arena.take_bytes(workspace_bytes());
    for (std::int64_t begin = 0; begin < shape_.tokens; begin += chunk_.rows) {
        const bool whole = shape_.tokens - begin >= chunk_.rows;
        run_chunk(whole ? chunk_ : *rest_, call, begin, logits, log_sum, losses, workspace);
    }
    const DevicePhase phase(context_, {Phase::loss, Pass::backward});
    sum_values(losses, shape_.tokens, call.loss, context_.stream);
}

void StepHead::run_chunk(const Plans& plans, const HeadCall& call, std::int64_t begin, bf16* logits,
                         float* log_sum, float* losses, void* workspace) {
    const cudaStream_t stream = context_.stream;
    const LogitRows rows{plans.rows, shape_.vocabulary, shape_.scale};
    const bf16* x = call.x + begin * shape_.width;
    const std::int32_t* target = call.target + begin;
    {
        const DevicePhase phase(context_, {Phase::lm_head, Pass::forward});
        plans.logits.run(x, call.weight, logits, workspace, stream);
    }
    {
        const DevicePhase phase(context_, {Phase::loss, Pass::forward});
        loss_forward(rows, logits, target, log_sum, losses + begin, stream);
    }
    {
        const DevicePhase phase(context_, {Phase::loss, Pass::backward});
        loss_backward(rows, logits, target, log_sum, stream);
    }
    const DevicePhase phase(context_, {Phase::lm_head, Pass::backward});
    // The first chunk writes the weights' gradient, the others add to it.
    plans.wgrad.write(logits, x, call.dweight, workspace, stream, call.accumulate || begin > 0);
    plans.dgrad.run(logits, call.weight, call.dx + begin * shape_.width, workspace, stream);
}

}  // namespace headway::runtime
