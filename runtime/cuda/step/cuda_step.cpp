#include "runtime/cuda/step/cuda_step.hpp"

#include <algorithm>
#include <utility>

#include "kernels/adamw/adamw.hpp"
#include "kernels/check.hpp"
#include "models/vocab/error.hpp"
#include "runtime/cuda/row_kernels.hpp"

namespace headway::runtime {
namespace {

kernels::AttentionShape attention_shape(const StepSetup& setup) {
    const Attention& a = setup.model.attention;
    return {setup.num_sequences, setup.sequence_length, a.num_heads, a.head_width};
}

std::unique_ptr<kernels::Attention> make_attention(DeviceContext& context, const StepSetup& setup) {
    using kernels::AttentionImpl;
    const bool fused = kernels::attention_available(AttentionImpl::cudnn);
    return kernels::make_attention(fused ? AttentionImpl::cudnn : AttentionImpl::cublaslt,
                                   context.blas, attention_shape(setup));
}

void refuse(const std::string& found, const std::string& accepted) {
    throw InputError({.where = "a step on CUDA", .found = found, .accepted = accepted});
}

// What the kernels of a step cannot do; its layers refuse by themselves.
const StepSetup& checked(const StepSetup& setup) {
    const ModelSpec& model = setup.model;
    if (setup.num_micro_batches > 1)
        refuse("num_micro_batches: " + std::to_string(setup.num_micro_batches), "1");
    if (std::ranges::count(setup.again, Again::nothing) < model.num_layers)
        refuse("recompute", "none");
    if (model.dtype != Dtype::bf16) refuse("a dtype other than bf16", "bf16");
    if (model.hidden % 8 != 0 || model.hidden > 4096)
        refuse("hidden: " + std::to_string(model.hidden), "multiples of 8 up to 4096");
    if (model.attention.head_width % 8 != 0)
        refuse("head_width: " + std::to_string(model.attention.head_width), "multiples of 8");
    if (model.vocab_size % 8 != 0)
        refuse("vocab_size: " + std::to_string(model.vocab_size), "multiples of 8");
    if (model.has_dense_layers() &&
        (is_gated(model.dense_activation) || model.dense_width % 8 != 0))
        refuse("gated dense layers, or a width of them that 8 does not divide",
               "gelu or gelu_tanh, and multiples of 8; others run with --device cpu");
    return setup;
}

kernels::AdamWStep adamw_of(const StepOptimizer& o, int step) {
    return {.learning_rate = static_cast<float>(o.learning_rate),
            .beta1 = static_cast<float>(o.beta1),
            .beta2 = static_cast<float>(o.beta2),
            .epsilon = static_cast<float>(o.epsilon),
            .step = step};
}

Phase phase_of(kernels::AttentionPart part) {
    switch (part) {
        case kernels::AttentionPart::norm:
            return Phase::norm;
        case kernels::AttentionPart::qkv:
            return Phase::attention_qkv;
        case kernels::AttentionPart::core:
            return Phase::attention_core;
        case kernels::AttentionPart::output:
            break;
    }
    return Phase::attention_out;
}

template <class T>
T* zeros(DeviceArena& arena, std::int64_t count, cudaStream_t stream) {
    T* at = arena.take<T>(count);
    HEADWAY_CUDA_CHECK(cudaMemsetAsync(at, 0, sizeof(T) * static_cast<std::size_t>(count), stream));
    return at;
}

template <class T>
T* uploaded(DeviceArena& arena, const std::vector<T>& values) {
    T* at = arena.take<T>(static_cast<std::int64_t>(values.size()));
    HEADWAY_CUDA_CHECK(
        cudaMemcpy(at, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return at;
}

}  // namespace

CudaStep::CudaStep(DeviceContext& context, DeviceCommunicator* reductions, const StepSetup& setup,
                   const StepRouting& routing, const StepBatches& batches, int num_steps)
    : context_(context),
      reductions_(reductions),
      setup_(checked(setup)),
      batches_(batches),
      parameters_(step_parameters(setup, context.communicator.rank())),
      half_(context.blas, attention_shape(setup), make_attention(context, setup)),
      head_(context, {.tokens = setup.tokens(),
                      .width = setup.model.hidden,
                      .vocabulary = setup.model.vocab_size,
                      .scale = static_cast<float>(1.0 / static_cast<double>(setup.all_tokens()))}) {
    DeviceArena& arena = context.arena;
    take_parameters();
    losses_ = arena.take<float>(num_steps);
    const std::int64_t tokens = setup.tokens(), elements = tokens * setup.model.hidden;
    for (bf16** rows : {&x_, &delta_, &sum_, &normed_, &dy_, &dx_})
        *rows = arena.take<bf16>(elements);
    inverse_ = arena.take<float>(tokens);
    all_rows_ = uploaded<std::int32_t>(arena, {0, static_cast<std::int32_t>(tokens)});
    workspace_ = arena.take<std::byte>(static_cast<std::int64_t>(
        std::max(half_.workspace_bytes(),
                 kernels::rms_norm_backward_workspace_bytes({tokens, setup.model.hidden}))));
    for (int l = 0; l < setup.model.num_layers; ++l) layers_.push_back(make_layer(l, routing));
}

void CudaStep::take_parameters() {
    DeviceArena& arena = context_.arena;
    const cudaStream_t stream = context_.stream;
    const std::int64_t total = parameters_.total();
    master_ = zeros<float>(arena, total, stream);
    gradient_ = zeros<float>(arena, total, stream);
    first_ = zeros<float>(arena, total, stream);
    second_ = zeros<float>(arena, total, stream);
    rounded_ = arena.take<bf16>(total);
    for (const Section& section : parameters_.sections) {
        for (const WeightTensor& t : section.tensors) {
            float* at = master(t);
            const std::vector<float> ones(static_cast<std::size_t>(t.part()), 1.0f);
            if (t.sigma == 0.0)
                HEADWAY_CUDA_CHECK(cudaMemcpyAsync(at, ones.data(), ones.size() * sizeof(float),
                                                   cudaMemcpyHostToDevice, stream));
            else
                for (const std::uint64_t seed : t.seeds) {
                    fill_normal(at, t.part(), static_cast<float>(t.sigma), seed, stream);
                    at += t.part();
                }
        }
    }
    // At a rate of 0 and without gradients this writes the copies and nothing else.
    kernels::adamw_step(kernels::AdamWImpl::fused, {.learning_rate = 0.0f},
                        {total, master_, first_, second_, rounded_}, gradient_, 1.0f, stream);
    context_.communicator.wait(stream);
}

// HP's kernels want the choices by head, its reference by source.
const std::int32_t* CudaStep::upload_forced(int index, const StepRouting& routing) const {
    if (routing.empty()) return nullptr;
    const int rank = context_.communicator.rank();
    const auto choices = forced_choices(setup_, routing, index, rank);
    const int heads = setup_.moe.head_parallel ? setup_.moe.hp.heads_per_rank() : 1;
    std::vector<std::int32_t> own;
    for (int head = 0; head < heads; ++head) {
        for (std::size_t i = static_cast<std::size_t>(head); i < choices.size();
             i += static_cast<std::size_t>(heads))
            own.insert(own.end(), choices[i].begin(), choices[i].end());
    }
    return uploaded(context_.arena, own);
}

CudaStep::Layer CudaStep::make_layer(int index, const StepRouting& routing) {
    DeviceArena& arena = context_.arena;
    const std::int64_t tokens = setup_.tokens();
    const Section& section = parameters_.layer(index);
    Layer layer{.saved = arena.take<std::byte>(static_cast<std::int64_t>(half_.saved_bytes())),
                .h = arena.take<bf16>(tokens * setup_.model.hidden)};
    if (!setup_.model.is_moe_layer(index)) {
        layer.pre = arena.take<bf16>(tokens * setup_.model.dense_width);
        layer.act = arena.take<bf16>(tokens * setup_.model.dense_width);
        return layer;
    }
    const WeightTensor &router = section["router"], &w1 = section["w1"], &w2 = section["w2"];
    if (setup_.moe.head_parallel) {
        const WeightTensor &project = section["project"], &merge = section["merge"];
        const CudaHpLayer::Parameters given{
            {rounded(project), rounded(merge), rounded(w1), rounded(w2), master(router)},
            {gradient(project), gradient(merge), gradient(w1), gradient(w2), gradient(router)}};
        layer.hp = std::make_unique<CudaHpLayer>(context_, setup_.moe, &given);
    } else {
        const CudaEpLayer::Parameters given{{rounded(router), rounded(w1), rounded(w2)},
                                            {gradient(router), gradient(w1), gradient(w2)}};
        layer.ep = std::make_unique<CudaEpLayer>(context_, setup_.moe, tokens, nullptr, &given);
    }
    layer.forced = upload_forced(index, routing);
    return layer;
}

void CudaStep::start(int step) {
    step_ = step;
    marks_.clear();
}

void CudaStep::begin_block(const Block& block) {
    marks_.begin(block, context_.clock != nullptr ? context_.clock->num_phases() : 0);
}

kernels::AttentionHook CudaStep::phase_hook(Pass pass, std::optional<DevicePhase>& phase) const {
    return [this, pass, &phase](kernels::AttentionPart part) {
        phase.reset();
        phase.emplace(context_, CallSite{phase_of(part), pass});
    };
}

kernels::AttentionHalfParameters CudaStep::half_parameters(int index) const {
    const Section& s = parameters_.layer(index);
    return {master(s["norm1"]), master(s["norm2"]), rounded(s["qkv"]), rounded(s["output"])};
}

kernels::AttentionHalfGradients CudaStep::half_gradients(int index) const {
    const Section& s = parameters_.layer(index);
    return {gradient(s["norm1"]), gradient(s["norm2"]), gradient(s["qkv"]), gradient(s["output"])};
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
    const StepBatch& batch = batches_.of(step_);
    const cudaStream_t stream = context_.stream;
    if (pass == Pass::forward) return embed_rows(shape, batch.input, rounded(table), x_, stream);
    HEADWAY_CUDA_CHECK(cudaMemsetAsync(
        gradient(table), 0, sizeof(float) * static_cast<std::size_t>(table.count()), stream));
    embed_gradient(shape, batch.runs, batch.input, dy_, gradient(table), stream);
}

void CudaStep::layer(int index, Pass pass) {
    pass == Pass::forward ? forward(index) : backward(index);
}

void CudaStep::forward(int index) {
    Layer& layer = layers_[static_cast<std::size_t>(index)];
    const bf16* x = index == 0 ? x_ : layers_[static_cast<std::size_t>(index) - 1].h;
    {
        std::optional<DevicePhase> phase;
        half_.forward(half_parameters(index), x, index == 0 ? nullptr : delta_, layer.h,
                      layer.saved, workspace_, context_.stream, phase_hook(Pass::forward, phase));
    }
    const bf16* normed = half_.normed(layer.saved);
    if (layer.ep) return layer.ep->forward(normed, delta_, layer.forced);
    if (layer.hp) return layer.hp->forward(normed, delta_, layer.forced);
    const DevicePhase phase(context_, {Phase::dense_mlp, Pass::forward});
    kernels::ep_experts_forward(kernels::GroupedImpl::hopper, dense_experts(index),
                                {normed, layer.pre, layer.act, delta_}, context_.stream);
}

void CudaStep::backward(int index) {
    Layer& layer = layers_[static_cast<std::size_t>(index)];
    DeviceArena& arena = context_.arena;
    const bf16* normed = half_.normed(layer.saved);
    if (layer.ep) {
        layer.ep->backward(normed, dy_, normed_);
    } else if (layer.hp) {
        layer.hp->backward(normed, dy_, normed_);
    } else {
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
             .dw2 = gradient(s["w2"])},
            context_.stream);
    }
    std::optional<DevicePhase> phase;
    half_.backward(half_parameters(index), layer.h, normed_, dy_, dx_, half_gradients(index),
                   layer.saved, workspace_, context_.stream, phase_hook(Pass::backward, phase));
    std::swap(dy_, dx_);
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
               .target = batches_.of(step_).target,
               .loss = losses_ + step_,
               .dx = normed_,
               .dweight = gradient(head)});
    const DevicePhase phase(context_, {Phase::norm, Pass::backward});
    kernels::rms_norm_backward(shape,
                               {.sum = sum_,
                                .weight = master(norm),
                                .inverse = inverse_,
                                .dy = normed_,
                                .dx = dy_,
                                .dweight = gradient(norm)},
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
    kernels::adamw_step(kernels::AdamWImpl::fused, adamw_of(setup_.optimizer, step_ + 1),
                        {parameters_.total(), master_, first_, second_, rounded_}, gradient_, 1.0f,
                        stream);
}

std::vector<double> CudaStep::losses() const {
    std::vector<float> values(static_cast<std::size_t>(step_ + 1));
    HEADWAY_CUDA_CHECK(
        cudaMemcpy(values.data(), losses_, values.size() * sizeof(float), cudaMemcpyDeviceToHost));
    return {values.begin(), values.end()};
}

std::vector<float> CudaStep::gradients() const {
    std::vector<float> values(static_cast<std::size_t>(parameters_.total()));
    HEADWAY_CUDA_CHECK(cudaMemcpy(values.data(), gradient_, values.size() * sizeof(float),
                                  cudaMemcpyDeviceToHost));
    return values;
}

}  // namespace headway::runtime
