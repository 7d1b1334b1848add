// A training step of one rank on its GPU: the kernels of kernels/block around the runtime's layers
// with their real exchanges. bf16 data, fp32 masters, gradients and moments; nothing waits for the
// host but EP's counts. Gradients add up over micro-batches; behind the last, those that all ranks
// hold are summed in buckets, a layer each, on a stream and by a communicator of their own, beside
// the backward of the layers before.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/block/attention_half.hpp"
#include "runtime/cuda/ep_layer.hpp"
#include "runtime/cuda/hp_layer.hpp"
#include "runtime/cuda/own_stream.hpp"
#include "runtime/cuda/step/step_head.hpp"
#include "runtime/cuda/step/step_inputs.hpp"
#include "runtime/step/parameters.hpp"
#include "runtime/step/reference_step.hpp"
#include "runtime/step/step_order.hpp"

namespace headway::runtime {

class CudaStep {
  public:
    // `reductions`: of all ranks, used on a stream of its own; null for one rank. All of the
    // arguments must outlive this. InputError for what the kernels cannot do.
    CudaStep(DeviceContext& context, DeviceCommunicator* reductions, const StepSetup& setup,
             const StepRouting& routing, const StepInputs& inputs, int num_steps);
    CudaStep(const CudaStep&) = delete;
    CudaStep& operator=(const CudaStep&) = delete;

    // The next step: loads its inputs.
    void start(int step);
    // What a graph of a step holds: the same for every step. Phases are marked where the context
    // has a clock.
    void run(const std::vector<Block>& order);
    // Keeps its losses.
    void finish();

    void begin_block(const Block& block);
    void before(Pass pass);
    void layer(int index, Pass pass);
    void after();
    void bucket(int layer);
    void update();

    const StepParameters& parameters() const { return parameters_; }
    const BlockMarks& marks() const { return marks_; }
    // Once the stream has been waited for: this rank's share of the losses so far; the last step's
    // gradients.
    std::vector<double> losses() const;
    std::vector<float> gradients() const;

  private:
    using bf16 = __nv_bfloat16;
    struct Layer {
        Again again = Again::nothing;
        std::byte* saved = nullptr;       // of the attention half
        bf16* sum = nullptr;              // [T, d] the input, of a layer that is computed again
        bf16* h = nullptr;                // [T, d]
        std::unique_ptr<CudaEpLayer> ep;  // one of the two, or a dense layer's
        std::unique_ptr<CudaHpLayer> hp;
        bf16 *pre = nullptr, *act = nullptr;
        const std::int32_t* forced = nullptr;

        bool feeds_again() const { return again == Again::layer || again == Again::feed_forward; }
    };
    void take_parameters();
    Layer make_layer(int index, const StepRouting& routing);
    void make_dense(Layer& layer);
    void make_experts(int index, const StepRouting& routing, Layer& layer);
    template <class T>
    T* take_turns(bool turns, T*& shared, std::int64_t count);
    const std::int32_t* upload_forced(int index, const StepRouting& routing) const;
    kernels::EpExperts dense_experts(int index) const;
    void forward(int index);
    void half_forward(int index, const bf16* x, const bf16* delta);
    void feed_forward(int index);
    void compute_again(int index);
    void backward(int index);
    void feed_backward(int index);
    bool accumulates() const { return micro_batch_ > 0; }
    kernels::AttentionHalfParameters half_parameters(int index) const;
    kernels::AttentionHalfGradients half_gradients(int index) const;
    bf16* rounded(const WeightTensor& tensor) const { return rounded_ + tensor.place; }
    float* master(const WeightTensor& tensor) const { return master_ + tensor.place; }
    float* gradient(const WeightTensor& tensor) const { return gradient_ + tensor.place; }
    void reduce(const Section& section);

    DeviceContext& context_;
    DeviceCommunicator* reductions_;
    const StepSetup& setup_;
    const StepInputs& inputs_;
    StepParameters parameters_;
    float *master_ = nullptr, *gradient_ = nullptr, *first_ = nullptr, *second_ = nullptr;
    bf16* rounded_ = nullptr;
    float *loss_ = nullptr, *losses_ = nullptr;  // [micro-batches], [steps, micro-batches]
    kernels::AttentionHalf half_;
    StepHead head_;
    std::byte* workspace_ = nullptr;    // of the attention half and the norms
    std::int32_t* all_rows_ = nullptr;  // {0, T}: a dense layer is one expert
    bf16 *x_ = nullptr, *delta_ = nullptr, *sum_ = nullptr, *normed_ = nullptr;
    bf16 *dy_ = nullptr, *dx_ = nullptr;
    float* inverse_ = nullptr;
    std::vector<Layer> layers_;
    // What layers that are computed again right before their backward use in turn.
    struct Turns {
        std::byte* saved = nullptr;
        bf16 *h = nullptr, *pre = nullptr, *act = nullptr;
        const CudaHpLayer* hp = nullptr;
    } turns_;
    OwnStream reduction_stream_;
    OwnEvent whole_, reduced_;
    int step_ = -1, micro_batch_ = 0;
    BlockMarks marks_;
};

}  // namespace headway::runtime
