#include "runtime/nccl/nccl_communicator.hpp"

#include <fmt/format.h>

#include <cassert>
#include <cstring>
#include <exception>

#include "kernels/check.hpp"
#include "models/vocab/error.hpp"
#include "runtime/nccl/direct_planes.hpp"
#include "runtime/process/wire.hpp"

namespace headway::runtime {

namespace {

// Rank 0's id, on all ranks.
ncclUniqueId share_id(SideChannel& channel) {
    ncclUniqueId id{};
    ncclResult_t result = ncclSuccess;
    if (channel.rank() == 0) result = ncclGetUniqueId(&id);
    if (result != ncclSuccess)
        channel.fail(fmt::format("ncclGetUniqueId: {}", ncclGetErrorString(result)));
    const auto all = channel.all_gather("NCCL id", Writer().put(id).bytes());
    return Reader(all.front()).get<ncclUniqueId>();
}

std::byte* at(void* base, std::int64_t offset) {
    return static_cast<std::byte*>(base) + offset;
}
const std::byte* at(const void* base, std::int64_t offset) {
    return static_cast<const std::byte*>(base) + offset;
}

// Sends and receives of one exchange, but for a rank's block to itself: NCCL's part of it.
ncclResult_t send_and_receive(ncclComm_t comm, int rank, const void* send,
                              std::span<const std::int64_t> send_bytes, void* receive,
                              std::span<const std::int64_t> receive_bytes, cudaStream_t stream) {
    ncclResult_t result = ncclSuccess;
    const auto note = [&](ncclResult_t r) {
        if (r != ncclSuccess && r != ncclInProgress) result = r;
    };
    std::int64_t out = 0, in = 0;
    for (int peer = 0; peer < static_cast<int>(send_bytes.size()); ++peer) {
        const auto p = static_cast<std::size_t>(peer);
        const auto give = static_cast<std::size_t>(send_bytes[p]);
        const auto get = static_cast<std::size_t>(receive_bytes[p]);
        if (peer != rank && give > 0)
            note(ncclSend(at(send, out), give, ncclUint8, peer, comm, stream));
        if (peer != rank && get > 0)
            note(ncclRecv(at(receive, in), get, ncclUint8, peer, comm, stream));
        out += send_bytes[p];
        in += receive_bytes[p];
    }
    return result;
}

std::int64_t sum_before(std::span<const std::int64_t> bytes, int rank) {
    std::int64_t sum = 0;
    for (int r = 0; r < rank; ++r) sum += bytes[static_cast<std::size_t>(r)];
    return sum;
}

}  // namespace

NcclCommunicator::NcclCommunicator(SideChannel& channel, NcclOptions options)
    : channel_(channel), num_exceptions_(std::uncaught_exceptions()) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (options.max_ctas > 0) config.maxCTAs = options.max_ctas;
    const ncclUniqueId id = share_id(channel);
    const ncclResult_t result = ncclCommInitRankConfig(&comm_, size(), id, rank(), &config);
    settle(result, "ncclCommInitRankConfig");
    HEADWAY_CUDA_CHECK(cudaMalloc(&token_, sizeof(float)));
    HEADWAY_CUDA_CHECK(cudaMemset(token_, 0, sizeof(float)));
}

NcclCommunicator::~NcclCommunicator() {
    if (comm_ == nullptr) return;
    if (std::uncaught_exceptions() > num_exceptions_) {
        ncclCommAbort(comm_);
        return;
    }
    try {
        settle(ncclCommFinalize(comm_), "ncclCommFinalize");
        ncclCommDestroy(comm_);
        cudaFree(token_);
    } catch (const std::exception&) {
        // Aborted; the failure shows at the next call of the side channel.
    }
}

void NcclCommunicator::enter(CallSite site) {
    channel_.enter(site);
    site_ = site;
}

template <class Copy, class Exchange>
void NcclCommunicator::beside(cudaStream_t stream, Copy&& copy, Exchange&& exchange) {
    if (size() == 1) return copy(stream);
    HEADWAY_CUDA_CHECK(cudaEventRecord(forked_.event, stream));
    HEADWAY_CUDA_CHECK(cudaStreamWaitEvent(copies_.stream, forked_.event));
    copy(copies_.stream);
    HEADWAY_CUDA_CHECK(cudaEventRecord(joined_.event, copies_.stream));
    settle(ncclGroupStart(), "ncclGroupStart");
    const ncclResult_t inside = exchange();
    const ncclResult_t end = ncclGroupEnd();
    settle(inside == ncclSuccess ? end : inside, "ncclSend and ncclRecv");
    HEADWAY_CUDA_CHECK(cudaStreamWaitEvent(stream, joined_.event));
}

void NcclCommunicator::all_to_all_v(const void* send, std::span<const std::int64_t> send_bytes,
                                    void* receive, std::span<const std::int64_t> receive_bytes,
                                    cudaStream_t stream) {
    assert(static_cast<int>(send_bytes.size()) == size());
    const auto own = static_cast<std::size_t>(rank());
    if (send_bytes[own] != receive_bytes[own])
        throw std::logic_error("all-to-all: a rank sends itself other than it receives");
    const auto copy = [&](cudaStream_t on) {
        if (send_bytes[own] == 0) return;
        HEADWAY_CUDA_CHECK(cudaMemcpyAsync(at(receive, sum_before(receive_bytes, rank())),
                                           at(send, sum_before(send_bytes, rank())),
                                           static_cast<std::size_t>(send_bytes[own]),
                                           cudaMemcpyDeviceToDevice, on));
    };
    beside(stream, copy, [&] {
        return send_and_receive(comm_, rank(), send, send_bytes, receive, receive_bytes, stream);
    });
    for (int d = 0; d < size(); ++d) book(d, send_bytes[static_cast<std::size_t>(d)]);
}

void NcclCommunicator::all_to_all(const void* send, void* receive, std::int64_t bytes_per_pair,
                                  cudaStream_t stream) {
    settle(ncclAlltoAll(send, receive, static_cast<std::size_t>(bytes_per_pair), ncclUint8, comm_,
                        stream),
           "ncclAlltoAll");
    for (int d = 0; d < size(); ++d) book(d, bytes_per_pair);
}

void NcclCommunicator::store_planes(const void* send, PlaneStrides from, void* receive,
                                    PlaneStrides to, int num_planes, std::int64_t plane_bytes,
                                    cudaStream_t stream) {
    direct_->exchange(send, from, receive, to, num_planes, plane_bytes, stream);
    for (int d = 0; d < size(); ++d) book(d, num_planes * plane_bytes);
}

NcclCommunicator::DirectMemory::DirectMemory(NcclCommunicator& communicator, void* base,
                                             std::size_t bytes)
    : communicator_(communicator), num_exceptions_(std::uncaught_exceptions()) {
    SideChannel& channel = communicator.channel_;
    const auto check = [&](ncclResult_t result, const char* call) {
        if (result != ncclSuccess)
            channel.fail(fmt::format("{}: {}", call, ncclGetErrorString(result)), true);
    };
    // NCCL 2.28 makes a device communicator of a blocking one only.
    const ncclUniqueId id = share_id(channel);
    ncclComm_t comm = nullptr;
    check(ncclCommInitRank(&comm, channel.size(), id, channel.rank()), "ncclCommInitRank");
    const int reached = DirectPlanes::ranks_reached(comm);
    if (reached != channel.size()) {
        ncclCommDestroy(comm);
        throw InputError(
            {.where = "--exchange",
             .found = fmt::format("direct, but a rank reaches the memory of {} of {} ranks",
                                  reached, channel.size()),
             .accepted = "direct between GPUs of one NVLink domain; nccl"});
    }
    planes_ =
        std::make_unique<DirectPlanes>(comm, base, bytes, channel.rank(), channel.size(), check);
    communicator.direct_ = planes_.get();
}

NcclCommunicator::DirectMemory::~DirectMemory() {
    communicator_.direct_ = nullptr;
    if (planes_ != nullptr &&
        (std::uncaught_exceptions() > num_exceptions_ || communicator_.comm_ == nullptr))
        planes_->abandon();
}

void NcclCommunicator::meet(cudaStream_t stream) {
    settle(ncclAllReduce(token_, token_, 1, ncclFloat32, ncclSum, comm_, stream),
           "ncclAllReduce to meet");
}

void NcclCommunicator::all_reduce_sum(float* values, std::int64_t count, cudaStream_t stream) {
    settle(ncclAllReduce(values, values, static_cast<std::size_t>(count), ncclFloat32, ncclSum,
                         comm_, stream),
           "ncclAllReduce");
    // Booked as reduce-scatter and all-gather move it, whatever NCCL chose: as in the reference.
    const auto slice = [&](int r) { return count * (r + 1) / size() - count * r / size(); };
    for (int d = 0; d < size(); ++d) {
        if (d != rank())
            book(d, (slice(d) + slice(rank())) * static_cast<std::int64_t>(sizeof(float)));
    }
}

std::vector<std::int64_t> NcclCommunicator::all_gather_counts(std::span<const std::int64_t> own) {
    const std::string bytes(reinterpret_cast<const char*>(own.data()), own.size_bytes());
    std::vector<std::int64_t> all;
    for (const std::string& part : channel_.all_gather("counts", bytes)) {
        if (part.size() != bytes.size())
            throw std::logic_error("all-gather: ranks give different numbers of counts");
        const std::size_t before = all.size();
        all.resize(before + own.size());
        if (!part.empty()) std::memcpy(all.data() + before, part.data(), part.size());
    }
    return all;
}

void NcclCommunicator::exchange_counts(const std::int32_t* send, std::int32_t* receive,
                                       std::int64_t counts_per_pair, cudaStream_t stream) {
    settle(ncclAlltoAll(send, receive, static_cast<std::size_t>(counts_per_pair), ncclInt32, comm_,
                        stream),
           "ncclAlltoAll of counts");
}

template <class Wait>
void NcclCommunicator::or_abort(Wait&& wait) {
    try {
        wait();
    } catch (...) {
        if (comm_ != nullptr) aborting_ = std::jthread([comm = comm_] { ncclCommAbort(comm); });
        comm_ = nullptr;
        throw;
    }
}

void NcclCommunicator::wait(cudaStream_t stream) {
    const SideChannel::Waiting waiting(channel_);
    or_abort([&] {
        // Asking the stream is cheap, asking NCCL and the side channel less so.
        for (int i = 1;; ++i) {
            const cudaError_t state = cudaStreamQuery(stream);
            if (state == cudaSuccess) return poll();
            if (state != cudaErrorNotReady) {
                channel_.fail(
                    fmt::format("{} ({})", cudaGetErrorString(state), cudaGetErrorName(state)),
                    true);
            }
            if (i % 256 == 0) poll();
        }
    });
}

NcclCommunicator::Registration::Registration(NcclCommunicator& communicator, void* base,
                                             std::size_t bytes)
    : communicator_(communicator), num_exceptions_(std::uncaught_exceptions()) {
    communicator_.settle(ncclCommRegister(communicator_.comm_, base, bytes, &handle_),
                         "ncclCommRegister");
}

NcclCommunicator::Registration::~Registration() {
    if (handle_ == nullptr || std::uncaught_exceptions() > num_exceptions_) return;
    try {
        communicator_.settle(ncclCommDeregister(communicator_.comm_, handle_),
                             "ncclCommDeregister");
    } catch (const std::exception&) {
        // Aborted; the failure shows at the next call of the side channel.
    }
}

void NcclCommunicator::settle(ncclResult_t result, const char* call) {
    if (result == ncclSuccess) return;
    const SideChannel::Waiting waiting(channel_);
    or_abort([&] {
        if (result != ncclInProgress) fail(result, call);
        for (ncclResult_t state = ncclInProgress; state == ncclInProgress;) {
            channel_.check();
            const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
            if (asked != ncclSuccess) state = asked;
            if (state != ncclSuccess && state != ncclInProgress) fail(state, call);
        }
    });
}

void NcclCommunicator::poll() {
    channel_.check();
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
    if (asked != ncclSuccess) state = asked;
    if (state != ncclSuccess && state != ncclInProgress) fail(state, "NCCL");
}

void NcclCommunicator::fail(ncclResult_t result, const char* call) {
    const char* detail = ncclGetLastError(comm_);
    channel_.fail(fmt::format("{}: {}{}{}", call, ncclGetErrorString(result),
                              detail != nullptr && *detail != '\0' ? ": " : "",
                              detail == nullptr ? "" : detail),
                  true);
}

void NcclCommunicator::book(int destination, std::int64_t bytes) {
    if (!site_) return;  // before the first phase: set-up, not traffic of a layer
    auto [row, is_new] = ledger_.try_emplace(*site_);
    if (is_new) row->second.resize(static_cast<std::size_t>(size()), 0);
    row->second[static_cast<std::size_t>(destination)] += bytes;
}

NcclEstimator::NcclEstimator(SideChannel& channel) : channel_(channel) {
    const ncclUniqueId id = share_id(channel);
    const ncclResult_t result = ncclCommInitRank(&comm_, channel.size(), id, channel.rank());
    if (result != ncclSuccess)
        channel.fail(fmt::format("ncclCommInitRank: {}", ncclGetErrorString(result)), true);
}

NcclEstimator::~NcclEstimator() {
    ncclCommAbort(comm_);  // nothing was sent; unlike a destroy it does not wait for others
}

template <class Call>
std::optional<Seconds> NcclEstimator::estimate(Call&& call) {
    ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
    if (ncclGroupStart() != ncclSuccess) return std::nullopt;
    const ncclResult_t inside = call();
    const ncclResult_t end = ncclGroupSimulateEnd(&info);
    if (inside != ncclSuccess || end != ncclSuccess || !(info.estimatedTime > 0.0F))
        return std::nullopt;
    return static_cast<double>(info.estimatedTime) * 1e-6 * second;
}

std::optional<Seconds> NcclEstimator::all_to_all_v(const void* send,
                                                   std::span<const std::int64_t> send_bytes,
                                                   void* receive,
                                                   std::span<const std::int64_t> receive_bytes,
                                                   cudaStream_t stream) {
    return estimate([&] {
        return send_and_receive(comm_, channel_.rank(), send, send_bytes, receive, receive_bytes,
                                stream);
    });
}

std::optional<Seconds> NcclEstimator::all_to_all(const void* send, void* receive,
                                                 std::int64_t bytes_per_pair, cudaStream_t stream) {
    return estimate([&] {
        return ncclAlltoAll(send, receive, static_cast<std::size_t>(bytes_per_pair), ncclUint8,
                            comm_, stream);
    });
}

std::optional<Seconds> NcclEstimator::all_reduce_sum(float* values, std::int64_t count,
                                                     cudaStream_t stream) {
    return estimate([&] {
        return ncclAllReduce(values, values, static_cast<std::size_t>(count), ncclFloat32, ncclSum,
                             comm_, stream);
    });
}

std::string nccl_version() {
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess) return "unknown";
    return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace headway::runtime
