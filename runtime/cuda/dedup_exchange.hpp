// DedupExchange: EP with deduplicated copies, summed up with their gates where the experts are.
// Rank-dedup: a copy per distinct rank. Node-dedup: a copy per distinct rank of the own node, and
// one per distinct other node, which goes to the rank of the own number there; that rank sends it
// on inside its node, and sums what comes back. Copies that arrived are numbered through both
// stages.
#pragma once

#include <optional>

#include "runtime/cuda/dedup_stage.hpp"
#include "runtime/cuda/group_communicator.hpp"
#include "runtime/cuda/node_hops.hpp"

namespace headway::runtime {

class DedupExchange final : public ExpertExchange {
  public:
    DedupExchange(DeviceContext& context, DeviceCommunicator& peers, const ExchangeShape& shape);

    bool needs_outputs() const override { return true; }
    void announce(const bf16* x, const RowChoices& choices) override;
    void dispatch() override;
    void combine(const bf16* y_rows, bf16* y) override;
    void regroup_again() override;
    const bf16* gradients_to_experts(const bf16* dy, const bf16* y_rows, float* dgate) override;
    void gradients_from_experts(const bf16* dx_rows, bf16* dx, float* dgate) override;

  private:
    bool is_staged() const { return second_.has_value(); }
    std::int64_t num_first() const { return first_.num_received(); }
    std::int64_t num_arrived() const {
        return num_first() + (second_ ? second_->num_received() : 0);
    }
    kernels::SpreadShape at_experts() const { return {num_arrived(), shape_.top_k, shape_.width}; }

    void permute(const bf16* x, const RowChoices& choices);
    void exchange_records(const float* gate);
    void exchange_staged_records(const float* gate);
    void plan_second(std::int32_t* onward);
    void sort_rows(const std::int32_t* keys);
    void regroup();
    bf16* take_arrived() { return context_.arena.take<bf16>(num_arrived() * shape_.width); }
    bf16* take_rows() { return context_.arena.take<bf16>(num_rows_ * shape_.width); }
    void to_experts(CallSite site, const bf16* copies, bf16* arrived);
    void from_experts(CallSite site, bf16* arrived, bf16* copies);

    DeviceContext& context_;
    ExchangeShape shape_;
    NodeHops hops_;
    CudaDedupStage first_;
    std::optional<GroupCommunicator> node_peers_;
    std::optional<CudaDedupStage> second_;
    std::int32_t* row_place_ = nullptr;            // of rows at the experts [arrived, k]
    float* record_gate_ = nullptr;                 // [arrived, k]
    bf16 *copies_ = nullptr, *arrived_ = nullptr;  // at the source, here
    bf16 *dcopies_ = nullptr, *darrived_ = nullptr;
    float* record_gradient_ = nullptr;
};

}  // namespace headway::runtime
