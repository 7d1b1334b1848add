// What a step holds: parameters, layers, and which buffers take turns.
#include "runtime/cuda/step/cuda_step.hpp"

#include <algorithm>

#include "kernels/adamw/adamw.hpp"
#include "kernels/check.hpp"
#include "models/vocab/error.hpp"
#include "runtime/cuda/row_kernels.hpp"
#include "runtime/cuda/step/attention_phases.hpp"

namespace headway::runtime {
namespace {

kernels::AttentionShape attention_shape(const StepSetup& setup) {
    const Attention& a = setup.model.attention;
    return {setup.num_sequences, setup.sequence_length, a.num_heads, a.head_width, a.num_kv_heads};
}

void refuse(const std::string& found, const std::string& accepted) {
    throw InputError({.where = "a step on CUDA", .found = found, .accepted = accepted});
}

// What the kernels of a step cannot do; its layers refuse by themselves.
const StepSetup& checked(const StepSetup& setup) {
    const ModelSpec& model = setup.model;
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
                   const StepRouting& routing, const StepInputs& inputs, int num_steps)
    : context_(context),
      reductions_(reductions),
      setup_(checked(setup)),
      inputs_(inputs),
      parameters_(step_parameters(setup, context.communicator.rank())),
      half_(context.blas, attention_shape(setup), setup.model.hidden,
            make_step_attention(context, attention_shape(setup))),
      head_(context, {.tokens = setup.tokens(),
                      .width = setup.model.hidden,
                      .vocabulary = setup.model.vocab_size,
                      .scale = static_cast<float>(1.0 / static_cast<double>(setup.all_tokens()))}) {
    DeviceArena& arena = context.arena;
    take_parameters();
    loss_ = arena.take<float>(setup.num_micro_batches);
    losses_ = arena.take<float>(std::int64_t{num_steps} * setup.num_micro_batches);
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
    const std::int64_t elements = setup_.tokens() * setup_.model.hidden;
    const Again again = setup_.again[static_cast<std::size_t>(index)];
    const bool whole = again == Again::layer;
    Layer layer{
        .again = again,
        .saved = take_turns(whole, turns_.saved, static_cast<std::int64_t>(half_.saved_bytes())),
        .sum = whole ? context_.arena.take<bf16>(elements) : nullptr,
        .h = take_turns(whole, turns_.h, elements)};
    if (setup_.model.is_moe_layer(index))
        make_experts(index, routing, layer);
    else
        make_dense(layer);
    return layer;
}

template <class T>
T* CudaStep::take_turns(bool turns, T*& shared, std::int64_t count) {
    if (!turns) return context_.arena.take<T>(count);
    if (shared == nullptr) shared = context_.arena.take<T>(count);
    return shared;
}

void CudaStep::make_dense(Layer& layer) {
    const std::int64_t elements = setup_.tokens() * setup_.model.dense_width;
    layer.pre = take_turns(layer.feeds_again(), turns_.pre, elements);
    layer.act = take_turns(layer.feeds_again(), turns_.act, elements);
}

void CudaStep::make_experts(int index, const StepRouting& routing, Layer& layer) {
    const Section& section = parameters_.layer(index);
    const WeightTensor &router = section["router"], &w1 = section["w1"], &w2 = section["w2"];
    if (setup_.moe.head_parallel) {
        const WeightTensor &project = section["project"], &merge = section["merge"];
        const CudaHpLayer::Parameters given{
            {rounded(project), rounded(merge), rounded(w1), rounded(w2), master(router)},
            {gradient(project), gradient(merge), gradient(w1), gradient(w2), gradient(router)},
            layer.feeds_again() ? turns_.hp : nullptr};
        layer.hp = std::make_unique<CudaHpLayer>(context_, setup_.moe, &given);
        if (layer.feeds_again()) turns_.hp = layer.hp.get();
    } else {
        const CudaEpLayer::Parameters given{{rounded(router), rounded(w1), rounded(w2)},
                                            {gradient(router), gradient(w1), gradient(w2)}};
        layer.ep =
            std::make_unique<CudaEpLayer>(context_, setup_.moe, setup_.tokens(), nullptr, &given);
    }
    layer.forced = upload_forced(index, routing);
}

}  // namespace headway::runtime
