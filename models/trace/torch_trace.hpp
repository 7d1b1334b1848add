// A trace of PyTorch's profiler (Kineto's Chrome trace), of one rank, as far as it says where the
// GPU's time went. Read event by event: a file of a gigabyte is never in memory as a document.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace headway::inline trace {

using Nanoseconds = std::int64_t;

// What a kernel of NCCL was launched with.
struct NcclCall {
    std::string name;              // "all_to_allv", "_allgather_base"; empty: the file does not say
    std::string dtype;             // "BFloat16", "Long"
    std::string group;             // the process group's name and description
    std::string ranks;             // its ranks as the file has them: the first 30 or so
    std::int64_t in = 0, out = 0;  // elements of this rank
    int group_size = 0;
    std::string in_splits, out_splits;  // "[3, 5]", in rows; "[]": even
};

struct GpuWork {
    Nanoseconds begin = 0, duration = 0;
    std::uint32_t name = 0;  // in TorchTrace::names
    std::int32_t stream = 0;
    std::int64_t correlation = -1;
    std::int32_t collective = -1;  // in TorchTrace::collectives
    bool is_kernel = true;         // else a copy or a fill
    bool in_graph = false;         // replayed from a CUDA graph
    bool to_host = false;          // a copy that ends in the host's memory

    Nanoseconds end() const { return begin + duration; }
};

// An operator of PyTorch or an annotation (record_function) on a thread of the host.
struct HostSpan {
    Nanoseconds begin = 0, end = 0;
    std::uint32_t name = 0;
    std::int32_t thread = 0;
    std::int32_t shapes = -1;  // in TorchTrace::shapes: of a matrix product
    bool is_annotation = false;
};

// A call of the runtime or the driver that the GPU has something of.
struct Launch {
    std::int64_t correlation = -1;
    Nanoseconds begin = 0, end = 0;
    std::int32_t thread = 0;
    std::uint32_t name = 0;  // in TorchTrace::names
};

// From an operator of the forward pass to the one of the backward pass that differentiates it.
struct BackwardLink {
    struct Place {
        Nanoseconds at = 0;
        std::int32_t thread = -1;
    };
    Place forward, backward;
};

using Shape = std::vector<std::int64_t>;

struct TorchTrace {
    std::string file;
    int rank = -1, world_size = 0;  // -1, 0: not a distributed run, or not said
    std::string device;
    std::vector<std::string> names;
    std::vector<GpuWork> gpu;
    std::vector<HostSpan> host;
    std::vector<Launch> launches;
    std::vector<BackwardLink> links;
    std::vector<NcclCall> collectives;
    std::vector<std::vector<Shape>>
        shapes;  // A and B of A B, grouped products with B [experts, k, n]
};

// InputError for what is no such trace, is cut, or has no GPU kernels.
TorchTrace read_torch_trace(const std::filesystem::path& path);

}  // namespace headway::inline trace
