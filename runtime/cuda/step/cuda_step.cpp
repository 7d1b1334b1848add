#include "runtime/cuda/step/cuda_step.hpp"

#include <utility>

#include "kernels/adamw/adamw.hpp"
#include "kernels/check.hpp"
#include "runtime/cuda/step/attention_phases.hpp"

namespace headway::runtime {

void CudaStep::start(int step) {
    step_ = step;
    inputs_.load(step, context_.stream);
}

void CudaStep::run(const std::vector<Block>& order) {
    marks_.clear();
    run_step(*this, order);
}

void CudaStep::finish() {
    const int batches = setup_.num_micro_batches;
    HEADWAY_CUDA_CHECK(cudaMemcpyAsync(losses_ + step_ * batches, loss_,
                                       sizeof(float) * static_cast<std::size_t>(batches),
                                       cudaMemcpyDeviceToDevice, context_.stream));
}

void CudaStep::begin_block(const Block& block) {
    micro_batch_ = block.micro_batch;
    marks_.begin(block, context_.clock != nullptr ? context_.clock->num_phases() : 0);
}

kernels::AttentionHalfParameters CudaStep::half_parameters(int index) const {
    const Section& s = parameters_.layer(index);
    return {master(s["norm1"]), master(s["norm2"]), rounded(s["qkv"]), rounded(s["output"])};
}

kernels::AttentionHalfGradients CudaStep::half_gradients(int index) const {
    const Section& s = parameters_.layer(index);
    return {gradient(s["norm1"]), gradient(s["norm2"]), gradient(s["qkv"]), gradient(s["output"]),
            accumulates()};
}

kernels::EpExperts CudaStep::dense_experts(int index) const {
    const ModelSpec& model = setup_.model;
    const Section& s = parameters_.layer(index);
    return {.num_experts = 1,
            .model_dim = model.hidden,
            .expert_dim = model.dense_width,
            .capacity_rows = setup_.tokens(),
            .offsets = all_rows_,
            .w1 = rounded(s["w1"]),
            .w2 = rounded(s["w2"]),
            .activation = model.dense_activation == Activation::gelu
                              ? kernels::GroupedActivation::gelu_erf
                              : kernels::GroupedActivation::gelu_tanh};
}

void CudaStep::before(Pass pass) {
    const DevicePhase phase(context_, {Phase::embed, pass});
    const WeightTensor& table = parameters_.before()["embedding"];
    const RowTable shape{setup_.tokens(), setup_.model.hidden};
    const StepBatch& batch = inputs_.of(micro_batch_);
    const cudaStream_t stream = context_.stream;
    if (pass == Pass::forward) return embed_rows(shape, batch.input, rounded(table), x_, stream);
    if (!accumulates())
        HEADWAY_CUDA_CHECK(cudaMemsetAsync(
            gradient(table), 0, sizeof(float) * static_cast<std::size_t>(table.count()), stream));
    embed_gradient(shape, batch.runs, batch.input, dy_, gradient(table), stream);
}

void CudaStep::layer(int index, Pass pass) {
    pass == Pass::forward ? forward(index) : backward(index);
}

void CudaStep::forward(int index) {
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    const bool first = index == 0;
    half_forward(index, first ? x_ : layers_[static_cast<std::size_t>(index) - 1].h,
                 first ? nullptr : delta_);
    feed_forward(index);
    if (layer.feeds_again() && layer.ep) layer.ep->release();
}

void CudaStep::half_forward(int index, const bf16* x, const bf16* delta) {
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    std::optional<DevicePhase> phase;
    half_.forward(half_parameters(index), x, delta, layer.h, layer.saved, workspace_,
                  context_.stream, attention_phases(context_, Pass::forward, phase), layer.sum);
}

// What it adds to the residual stream is left in delta_.
void CudaStep::feed_forward(int index) {
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    const bf16* normed = half_.normed(layer.saved);
    if (layer.ep) return layer.ep->forward(normed, delta_, layer.forced);
    if (layer.hp) return layer.hp->forward(normed, delta_, layer.forced);
    const DevicePhase phase(context_, {Phase::dense_mlp, Pass::forward});
    kernels::ep_experts_forward(kernels::GroupedImpl::hopper, dense_experts(index),
                                {normed, layer.pre, layer.act, delta_}, context_.stream);
}

// (Experts that run again are their layer's matter.)
void CudaStep::compute_again(int index) {
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    const RepeatedForward repeated(context_);
    if (layer.again == Again::layer) half_forward(index, layer.sum, nullptr);
    if (layer.feeds_again()) feed_forward(index);
}

void CudaStep::backward(int index) {
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    compute_again(index);
    feed_backward(index);
    std::optional<DevicePhase> phase;
    half_.backward(half_parameters(index), layer.h, normed_, dy_, dx_, half_gradients(index),
                   layer.saved, workspace_, context_.stream,
                   attention_phases(context_, Pass::backward, phase), layer.sum);
    std::swap(dy_, dx_);
}

// The gradient of what it reads is left in normed_.
void CudaStep::feed_backward(int index) {
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    DeviceArena& arena = context_.arena;
    const bf16* normed = half_.normed(layer.saved);
    if (layer.ep) return layer.ep->backward(normed, dy_, normed_, accumulates());
    if (layer.hp) return layer.hp->backward(normed, dy_, normed_, accumulates());
    const DevicePhase phase(context_, {Phase::dense_mlp, Pass::backward});
    const ArenaScope scope(arena);
    const Section& s = parameters_.layer(index);
    kernels::ep_experts_backward(
        kernels::GroupedImpl::hopper, dense_experts(index),
        {.x = normed,
         .pre = layer.pre,
         .act = layer.act,
         .dy = dy_,
         .dpre = arena.take<bf16>(setup_.tokens() * setup_.model.dense_width),
         .dx = normed_,
         .dw1 = gradient(s["w1"]),
         .dw2 = gradient(s["w2"]),
         .accumulate = accumulates()},
        context_.stream);
}

void CudaStep::after() {
    const Section& section = parameters_.after();
    const WeightTensor &norm = section["final_norm"], &head = section["head"];
    const kernels::RmsNormShape shape{setup_.tokens(), setup_.model.hidden,
                                      static_cast<float>(kNormEpsilon)};
    const cudaStream_t stream = context_.stream;
    {
        const DevicePhase phase(context_, {Phase::norm, Pass::forward});
        kernels::rms_norm_forward(shape,
                                  {.x = layers_.back().h,
                                   .delta = delta_,
                                   .weight = master(norm),
                                   .sum = sum_,
                                   .y = normed_,
                                   .inverse = inverse_},
                                  stream);
    }
    head_.run({.x = normed_,
               .weight = rounded(head),
               .target = inputs_.of(micro_batch_).target,
               .loss = loss_ + micro_batch_,
               .dx = normed_,
               .dweight = gradient(head),
               .accumulate = accumulates()});
    const DevicePhase phase(context_, {Phase::norm, Pass::backward});
    kernels::rms_norm_backward(shape,
                               {.sum = sum_,
                                .weight = master(norm),
                                .inverse = inverse_,
                                .dy = normed_,
                                .dx = dy_,
                                .dweight = gradient(norm),
                                .accumulate = accumulates()},
                               workspace_, stream);
}

// On the stream of reductions, once what is enqueued so far is done.
void CudaStep::reduce(const Section& section) {
    HEADWAY_CUDA_CHECK(cudaEventRecord(whole_.event, context_.stream));
    HEADWAY_CUDA_CHECK(cudaStreamWaitEvent(reduction_stream_.stream, whole_.event));
    reductions_->all_reduce_sum(gradient_ + section.begin, section.own - section.begin,
                                reduction_stream_.stream);
}

void CudaStep::bucket(int layer) {
    if (reductions_ == nullptr || !setup_.overlap_reductions) return;
    if (layer + 1 == setup_.model.num_layers) reduce(parameters_.after());
    reduce(parameters_.layer(layer));
}

void CudaStep::update() {
    const cudaStream_t stream = context_.stream;
    if (reductions_ != nullptr) {
        const DevicePhase phase(context_, {Phase::grad_all_reduce, Pass::update});
        if (setup_.overlap_reductions)
            reduce(parameters_.before());
        else
            for (const Section& section : parameters_.sections) reduce(section);
        HEADWAY_CUDA_CHECK(cudaEventRecord(reduced_.event, reduction_stream_.stream));
        HEADWAY_CUDA_CHECK(cudaStreamWaitEvent(stream, reduced_.event));
    }
    const DevicePhase phase(context_, {Phase::optimizer, Pass::update});
    kernels::adamw_step(inputs_.factors(),
                        {parameters_.total(), master_, first_, second_, rounded_}, gradient_,
                        stream);
}

std::vector<double> CudaStep::losses() const {
    const auto batches = static_cast<std::size_t>(setup_.num_micro_batches);
    std::vector<float> parts(static_cast<std::size_t>(step_ + 1) * batches);
    HEADWAY_CUDA_CHECK(
        cudaMemcpy(parts.data(), losses_, parts.size() * sizeof(float), cudaMemcpyDeviceToHost));
    std::vector<double> sums(static_cast<std::size_t>(step_ + 1));
    for (std::size_t i = 0; i < parts.size(); ++i) sums[i / batches] += double{parts[i]};
    return sums;
}

std::vector<float> CudaStep::gradients() const {
    std::vector<float> values(static_cast<std::size_t>(parameters_.total()));
    HEADWAY_CUDA_CHECK(cudaMemcpy(values.data(), gradient_, values.size() * sizeof(float),
                                  cudaMemcpyDeviceToHost));
    return values;
}

}  // namespace headway::runtime
