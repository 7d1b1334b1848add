// StreamGraph: what is enqueued on a stream, as a CUDA graph that one call launches again.
#pragma once

#include <cuda_runtime.h>

#include <functional>

namespace headway::runtime {

class StreamGraph {
  public:
    // Captures what `enqueue` puts on the stream, without running it. It must not wait for the
    // device. What it throws is thrown on, the stream usable again.
    StreamGraph(cudaStream_t stream, const std::function<void()>& enqueue);
    StreamGraph(const StreamGraph&) = delete;
    StreamGraph& operator=(const StreamGraph&) = delete;
    ~StreamGraph();

    void replay(cudaStream_t stream) const;

  private:
    cudaGraphExec_t graph_ = nullptr;
};

}  // namespace headway::runtime
