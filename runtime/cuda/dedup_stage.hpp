// CudaDedupStage: one stage of a deduplicated exchange on the device. A row goes once to every
// distinct peer that its choices name; a record of them (experts as that peer knows them, and
// gates) goes before the rows. Rank-dedup is one stage, node-dedup two.
// runtime/reference/dedup_stage.hpp is the same on the host.
#pragma once

#include <cuda_bf16.h>

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/permute/maps.hpp"
#include "kernels/permute/permute.hpp"
#include "runtime/cuda/expert_exchange.hpp"

namespace headway::runtime {

class CudaDedupStage {
  public:
    using bf16 = __nv_bfloat16;

    CudaDedupStage(DeviceContext& context, DeviceCommunicator& peers, int width, int top_k)
        : context_(context), peers_(peers), width_(width), top_k_(top_k), host_(4 * peers.size()) {}

    // index [rows, k]: peer * experts_per_peer + expert there; negative: the choice does not
    // travel. It is read until return_gradients(). Rows outside `ranges` have no choice that
    // travels, and sum() leaves them as they are. Takes the place of every copy from the arena.
    struct Input {
        const std::int32_t* index = nullptr;
        std::int64_t num_rows = 0;
        int experts_per_peer = 1;
        std::vector<std::array<std::int64_t, 2>> ranges;  // of rows, [begin, end)
    };
    void plan(Input input);

    // Tells the peers what they get; the host waits for it. Behind it the numbers are known, in a
    // repeated forward before it too.
    void exchange_counts();
    std::int64_t num_sent() const { return num_sent_; }                                // copies
    std::int64_t num_received() const { return num_received_; }                        // copies
    const std::vector<std::int64_t>& received() const { return received_; }            // by peer
    const std::vector<std::int64_t>& received_rows() const { return received_rows_; }  // choices
    // record_expert, record_gate: [copies received, k]; expert -1 where a choice is not of the
    // peer.
    void exchange_records(const float* gate, std::int32_t* record_expert, float* record_gate);

    void gather(const bf16* rows, bf16* copies);   // at the sender
    void send(const bf16* copies, bf16* arrived);  // to the peers
    void send_back(const bf16* arrived, bf16* copies);
    void sum(const bf16* copies, bf16* rows);  // rows in the ranges: of their copies
    // record_gradient [copies received, k] goes back to where the choices were made: dgate [rows,
    // k] at choices that travelled.
    void return_gradients(const float* record_gradient, float* dgate);

  private:
    template <class Move>
    void for_ranges(Move&& move) const;
    kernels::DedupShape dedup_shape() const;
    RowRouting routing_shape() const { return {.num_rows = input_.num_rows, .top_k = top_k_}; }

    DeviceContext& context_;
    DeviceCommunicator& peers_;
    int width_, top_k_;
    PinnedCounts host_;
    Input input_;
    std::int32_t* place_ = nullptr;                              // of copies [rows, k]
    std::vector<std::int64_t> sent_, received_, received_rows_;  // by peer
    std::int64_t num_sent_ = 0, num_received_ = 0;
};

}  // namespace headway::runtime
