#include "runtime/cuda/expert_exchange.hpp"

#include "kernels/check.hpp"
#include "runtime/cuda/copy_exchange.hpp"
#include "runtime/cuda/dedup_exchange.hpp"
#include "runtime/cuda/local_rows.hpp"

namespace headway::runtime {

std::unique_ptr<ExpertExchange> make_expert_exchange(DeviceContext& context,
                                                     DeviceCommunicator& peers,
                                                     const ExchangeShape& shape) {
    if (shape.num_ranks == 1) return std::make_unique<LocalRows>(context, shape);
    if (shape.dedup == Dedup::none) return std::make_unique<CopyExchange>(context, peers, shape);
    return std::make_unique<DedupExchange>(context, peers, shape);
}

std::vector<std::int64_t> in_bytes(const std::vector<std::int64_t>& rows, std::int64_t row_bytes) {
    std::vector<std::int64_t> bytes = rows;
    for (std::int64_t& b : bytes) b *= row_bytes;
    return bytes;
}

PinnedCounts::PinnedCounts(std::int64_t count) {
    HEADWAY_CUDA_CHECK(
        cudaMallocHost(&counts_, sizeof(std::int32_t) * static_cast<std::size_t>(count)));
}

PinnedCounts::~PinnedCounts() {
    cudaFreeHost(counts_);
}

const std::int32_t* PinnedCounts::fetch(const std::int32_t* from, std::int64_t count,
                                        DeviceCommunicator& communicator, cudaStream_t stream) {
    HEADWAY_CUDA_CHECK(cudaMemcpyAsync(counts_, from,
                                       sizeof(std::int32_t) * static_cast<std::size_t>(count),
                                       cudaMemcpyDeviceToHost, stream));
    communicator.wait(stream);
    return counts_;
}

}  // namespace headway::runtime
