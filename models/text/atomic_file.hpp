// AtomicFile: a result file that is whole or absent. Text goes to a file without a name in the
// target's folder, of which nothing stays however the process ends; commit() gives it a name beside
// the target and renames it over the target. Where a file system has no files without names (NFS),
// it has that hidden name from the start, and a signal leaves it behind. A target that is no
// regular file (/dev/stdout, a pipe) is written directly.
#pragma once

#include <filesystem>
#include <fstream>
#include <string_view>

namespace headway::inline texts {

class AtomicFile {
  public:
    explicit AtomicFile(const std::filesystem::path& target);  // InputError if it cannot be made
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    std::ostream& stream() { return stream_; }
    void commit();  // InputError if not everything reached the file

  private:
    bool open_unnamed();

    std::filesystem::path target_;
    std::filesystem::path temporary_;
    int unnamed_ = -1;  // the file, while it has no name
    std::ofstream stream_;
    bool committed_ = false;
};

// Writes the whole of `text` to `target`, or nothing.
void write_file_atomically(const std::filesystem::path& target, std::string_view text);

}  // namespace headway::inline texts
