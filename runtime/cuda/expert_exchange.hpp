// ExpertExchange: how the token rows of a layer reach the experts that they chose and how results
// return, forward and backward: the phases permute, count_exchange, dispatch, regroup before the
// experts and ungroup, combine, unpermute behind them, and the same the other way round. Three
// ways: all experts are here; a copy per chosen expert; copies deduplicated by rank or by node.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "models/vocab/plan.hpp"
#include "runtime/cuda/phase_clock.hpp"
#include "runtime/cuda/row_kernels.hpp"

namespace headway::runtime {

struct ExchangeShape {
    int tokens = 0, width = 0;
    int num_experts = 0, num_ranks = 1, top_k = 1;
    Dedup dedup = Dedup::none;
    int ranks_per_node = 0;      // Dedup::node; 0: all ranks are on one node
    bool experts_again = false;  // backward computes the experts again

    int num_local() const { return num_experts / num_ranks; }
    std::int64_t slots() const { return std::int64_t{tokens} * top_k; }
};

// Chosen experts and their gates. [T, k]
struct RowChoices {
    const std::int32_t* index = nullptr;
    const float* gate = nullptr;
};

// Memory comes from the arena: what announce(), regroup_again() and gradients_to_experts() take
// stays until the caller releases it, what dispatch() and combine() take until the caller's scope
// ends behind combine(). In a forward that is repeated the counts are those of the last one.
class ExpertExchange {
  public:
    using bf16 = __nv_bfloat16;
    virtual ~ExpertExchange() = default;

    // Whether y_rows of combine() are needed in backward.
    virtual bool needs_outputs() const = 0;

    // Forward, in this order. permute and count_exchange: afterwards the rows at the experts here
    // are known, and their memory is taken.
    virtual void announce(const bf16* x, const RowChoices& choices) = 0;
    virtual void dispatch() = 0;  // and regroup: fills rows(), which stay unless experts_again
    virtual void combine(const bf16* y_rows, bf16* y) = 0;

    // Where experts_again: rows() once more, from what arrived.
    virtual void regroup_again() {}
    // Backward: of the experts' outputs, by row; then of x and the gates [T, k].
    virtual const bf16* gradients_to_experts(const bf16* dy, const bf16* y_rows, float* dgate) = 0;
    virtual void gradients_from_experts(const bf16* dx_rows, bf16* dx, float* dgate) = 0;

    std::int64_t num_rows() const { return num_rows_; }
    const bf16* rows() const { return rows_; }                // by expert
    const std::int32_t* offsets() const { return offsets_; }  // [own experts + 1] of rows

  protected:
    std::int64_t num_rows_ = 0;
    bf16* rows_ = nullptr;
    std::int32_t* offsets_ = nullptr;
};

std::unique_ptr<ExpertExchange> make_expert_exchange(DeviceContext& context,
                                                     DeviceCommunicator& peers,
                                                     const ExchangeShape& shape);

// Each count times the bytes of a row.
std::vector<std::int64_t> in_bytes(const std::vector<std::int64_t>& rows, std::int64_t row_bytes);

// Counts that the host waits for.
class PinnedCounts {
  public:
    explicit PinnedCounts(std::int64_t count);
    PinnedCounts(const PinnedCounts&) = delete;
    PinnedCounts& operator=(const PinnedCounts&) = delete;
    ~PinnedCounts();

    // Waits for the stream under the run's deadline.
    const std::int32_t* fetch(const std::int32_t* from, std::int64_t count,
                              DeviceCommunicator& communicator, cudaStream_t stream);

  private:
    std::int32_t* counts_ = nullptr;
};

}  // namespace headway::runtime
