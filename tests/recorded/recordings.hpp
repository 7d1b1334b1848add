// Recordings and traces of a few tasks, for hand-solved cases.
#pragma once

#include <unistd.h>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "models/recorded/call_table.hpp"
#include "models/recorded/recording.hpp"

namespace headway::recordings {

inline RecordedTask kernels(double host_us, double lead_us, double device_us) {
    return {.stream = 7,
            .host = host_us * us,
            .device = device_us * us,
            .lead = lead_us * us,
            .kernels = 1,
            .what = "k"};
}

inline RecordedTask exchange(double host_us, std::vector<double> send,
                             std::vector<double> receive) {
    RecordedTask task{
        .kind = RecordedKind::collective, .stream = 7, .host = host_us * us, .what = "bfloat16"};
    task.collective = Collective::all_to_all;
    task.send = std::move(send);
    task.receive = std::move(receive);
    task.row_bytes = 2048;
    return task;
}

inline RecordedTask all_reduce(double host_us, double bytes) {
    RecordedTask task{
        .kind = RecordedKind::collective, .stream = 7, .host = host_us * us, .what = "bfloat16"};
    task.collective = Collective::all_reduce;
    task.bytes = bytes * byte;
    return task;
}

inline Recording of_two_ranks(std::vector<RecordedTask> tasks) {
    Recording recording{.name = "toy", .device = "toy GPU", .world_size = 2};
    recording.groups.push_back({.name = "0", .size = 2, .stride = 1});
    recording.tasks = std::move(tasks);
    return recording;
}

// A file that is gone with its test.
class TextFile {
  public:
    TextFile(const std::string& name, const std::string& text)
        : path_(std::filesystem::temp_directory_path() / (std::to_string(::getpid()) + name)) {
        std::ofstream(path_) << text;
    }
    ~TextFile() { std::filesystem::remove(path_); }
    TextFile(const TextFile&) = delete;
    TextFile& operator=(const TextFile&) = delete;
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

}  // namespace headway::recordings
