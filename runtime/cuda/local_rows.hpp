// LocalRows: all experts are on this rank. Token rows are copied into the order of the experts and
// the results summed up with their gates; nothing is exchanged.
#pragma once

#include "kernels/permute/permute.hpp"
#include "runtime/cuda/expert_exchange.hpp"

namespace headway::runtime {

class LocalRows final : public ExpertExchange {
  public:
    LocalRows(DeviceContext& context, const ExchangeShape& shape)
        : context_(context), shape_(shape) {}

    bool needs_outputs() const override { return true; }
    void announce(const bf16* x, const RowChoices& choices) override;
    void dispatch() override {}
    void combine(const bf16* y_rows, bf16* y) override;
    const bf16* gradients_to_experts(const bf16* dy, const bf16* y_rows, float* dgate) override;
    void gradients_from_experts(const bf16* dx_rows, bf16* dx, float* dgate) override;

  private:
    kernels::SpreadShape spread() const { return {shape_.tokens, shape_.top_k, shape_.width}; }
    kernels::SpreadMap map(const float* weight) const {
        return {.place = place_, .weight = weight};
    }

    DeviceContext& context_;
    ExchangeShape shape_;
    RowChoices choices_;
    std::int32_t* place_ = nullptr;  // of rows [T, k]
};

}  // namespace headway::runtime
