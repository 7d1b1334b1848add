// AtomicFile: a result file that is whole or absent. Text goes to a hidden neighbour of the target,
// which is renamed over it by commit(); without commit() the target is left as it was. A target
// that is no regular file (/dev/stdout, a pipe) is written directly.
#pragma once

#include <filesystem>
#include <fstream>
#include <string_view>

namespace headway::inline report {

class AtomicFile {
  public:
    explicit AtomicFile(const std::filesystem::path& target);  // InputError if it cannot be made
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    std::ostream& stream() { return stream_; }
    void commit();  // InputError if not everything reached the file

  private:
    std::filesystem::path target_;
    std::filesystem::path temporary_;
    std::ofstream stream_;
    bool committed_ = false;
};

// Writes the whole of `text` to `target`, or nothing.
void write_file_atomically(const std::filesystem::path& target, std::string_view text);

}  // namespace headway::inline report
