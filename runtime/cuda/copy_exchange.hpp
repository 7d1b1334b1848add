// CopyExchange: naive EP. A row travels once for every expert that its token chose, and so do the
// results, which the token's rank sums up with their gates.
#pragma once

#include "kernels/permute/permute.hpp"
#include "runtime/cuda/expert_exchange.hpp"

namespace headway::runtime {

class CopyExchange final : public ExpertExchange {
  public:
    CopyExchange(DeviceContext& context, DeviceCommunicator& peers, const ExchangeShape& shape)
        : context_(context),
          peers_(peers),
          shape_(shape),
          host_(2 * shape.num_experts),
          counts_(context.arena.take<std::int32_t>(2 * shape.num_experts)) {}

    bool needs_outputs() const override { return false; }
    void announce(const bf16* x, const RowChoices& choices) override;
    void dispatch() override;
    void combine(const bf16* y_rows, bf16* y) override;
    void regroup_again() override;
    const bf16* gradients_to_experts(const bf16* dy, const bf16* y_rows, float* dgate) override;
    void gradients_from_experts(const bf16* dx_rows, bf16* dx, float* dgate) override;

  private:
    // Whether arrived copies must be put into expert order.
    bool regroups() const { return shape_.num_local() > 1; }
    kernels::SpreadShape at_source() const { return {shape_.tokens, shape_.top_k, shape_.width}; }
    kernels::SpreadMap source_map(const float* weight) const {
        return {.place = place_, .weight = weight};
    }
    kernels::SpreadShape at_experts() const { return {num_rows_, 1, shape_.width}; }

    void permute(const bf16* x);
    void exchange_counts();
    void place_rows();
    void regroup();
    // Then not the rows in their order stay, but those that arrived.
    bool keeps_arrived() const { return shape_.experts_again && regroups(); }
    bf16* take_rows() { return context_.arena.take<bf16>(num_rows_ * shape_.width); }
    void exchange(CallSite site, const bf16* from, bf16* to, bool to_experts);

    DeviceContext& context_;
    DeviceCommunicator& peers_;
    ExchangeShape shape_;
    PinnedCounts host_;
    std::int32_t* counts_;  // of copies by expert: sent [E], received [ranks, own experts]
    RowChoices choices_;
    std::vector<std::int64_t> sent_, received_;  // copies by rank
    std::int64_t num_sent_ = 0;
    std::int32_t *place_ = nullptr, *row_place_ = nullptr;  // of copies [T, k], of rows
    std::int32_t* copy_offsets_ = nullptr;                  // [E + 1]
    bf16 *copies_ = nullptr, *arrived_ = nullptr;           // at the source, here
    bf16 *dcopies_ = nullptr, *darrived_ = nullptr;
};

}  // namespace headway::runtime
