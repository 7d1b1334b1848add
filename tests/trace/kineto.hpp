// Traces written by hand, event by event, as Kineto writes them.
#pragma once

#include <fmt/format.h>

#include <unistd.h>
#include <filesystem>
#include <fstream>
#include <string>

#include "models/trace/torch_trace.hpp"

namespace headway {

class Kineto {
  public:
    // Times in microseconds, as the file has them.
    void span(const std::string& cat, const std::string& name, int tid, double ts, double dur,
              const std::string& args = "") {
        add(R"({{"ph": "X", "cat": "{}", "name": "{}", "pid": 9, "tid": {}, "ts": {:.3f}, "dur": {:.3f}, "args": {{{}}}}})",
            cat, name, tid, ts, dur, args);
    }
    void annotation(const std::string& name, double ts, double dur, int tid = 1) {
        span("user_annotation", name, tid, ts, dur);
    }
    void op(const std::string& name, double ts, double dur, int tid = 1,
            const std::string& dims = "") {
        span("cpu_op", name, tid, ts, dur,
             dims.empty() ? "" : fmt::format(R"("External id": 3, "Input Dims": {})", dims));
    }
    // A launch by thread `tid` at `launched`, and what runs on the GPU.
    void kernel(const std::string& name, double launched, double ts, double dur, int stream = 7,
                int tid = 1, const std::string& args = "") {
        ++correlation_;
        span("cuda_runtime", "cudaLaunchKernel", tid, launched, 0.5,
             fmt::format(R"("External id": 3, "cbid": 211, "correlation": {})", correlation_));
        span("kernel", name, stream, ts, dur,
             fmt::format(R"("device": 0, "stream": {}, "correlation": {}, "grid": [1, 1, 1]{}{})",
                         stream, correlation_, args.empty() ? "" : ", ", args));
    }
    void call(const std::string& collective, const std::string& dtype, long elements, int group,
              double launched, double ts, double dur, int stream = 7, int tid = 1) {
        kernel(
            "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", launched, ts, dur, stream,
            tid,
            fmt::format(R"("Collective name": "{}", "dtype": "{}", "In msg nelems": {}, )"
                        R"("Out msg nelems": {}, "Group size": {}, "In split size": "[]", )"
                        R"("Process Group Name": "0", "Process Group Description": "default_pg", )"
                        R"("Process Group Ranks": "[0, 1]")",
                        collective, dtype, elements, elements, group));
    }
    // The operators that begin at these times: the second differentiates the first.
    void link(double forward, int forward_tid, double backward, int backward_tid) {
        ++link_;
        for (const auto& [ph, ts, tid] :
             {std::tuple("s", forward, forward_tid), std::tuple("f", backward, backward_tid)}) {
            add(R"({{"ph": "{}", "id": {}, "pid": 9, "tid": {}, "ts": {:.3f}, "cat": "fwdbwd", "name": "fwdbwd"}})",
                ph, link_, tid, ts);
        }
    }

    std::string text() const {
        return fmt::format(
            R"({{"schemaVersion": 1, "deviceProperties": [{{"id": 0, "name": "GPU X"}}], )"
            R"("distributedInfo": {{"backend": "nccl", "rank": 0, "world_size": 2, )"
            R"("pg_config": [{{"pg_name": "0", "ranks": [0, 1]}}]}}, "traceEvents": [{}]}})",
            events_);
    }
    TorchTrace read() const { return read_text(text()); }

    static TorchTrace read_text(const std::string& text) {
        const auto path =
            std::filesystem::temp_directory_path() / fmt::format("kineto_{}.json", ::getpid());
        std::ofstream(path) << text;
        struct Remove {
            const std::filesystem::path& path;
            ~Remove() { std::filesystem::remove(path); }
        } remove{path};
        return read_torch_trace(path);
    }

  private:
    template <class... Args>
    void add(fmt::format_string<Args...> format, Args&&... args) {
        if (!events_.empty()) events_ += ",\n";
        events_ += fmt::format(format, std::forward<Args>(args)...);
    }

    std::string events_;
    int correlation_ = 100, link_ = 0;
};

}  // namespace headway
