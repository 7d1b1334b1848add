#include "runtime/cuda/stream_graph.hpp"

#include "kernels/check.hpp"

namespace headway::runtime {

StreamGraph::StreamGraph(cudaStream_t stream, const std::function<void()>& enqueue) {
    cudaGraph_t graph = nullptr;
    HEADWAY_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
        enqueue();
    } catch (...) {
        cudaStreamEndCapture(stream, &graph);
        if (graph != nullptr) cudaGraphDestroy(graph);
        throw;
    }
    HEADWAY_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    HEADWAY_CUDA_CHECK(status);
    HEADWAY_CUDA_CHECK(cudaGraphUpload(graph_, stream));
}

StreamGraph::~StreamGraph() {
    cudaGraphExecDestroy(graph_);
}

void StreamGraph::replay(cudaStream_t stream) const {
    HEADWAY_CUDA_CHECK(cudaGraphLaunch(graph_, stream));
}

}  // namespace headway::runtime
