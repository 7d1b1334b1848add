// FileLock: one process at a time for a file, or for the files of a folder, that is written over a
// long time. The lock is the kernel's (flock): it ends with the process, however that ends.
#pragma once

#include <filesystem>

namespace headway::inline texts {

class FileLock {
  public:
    // InputError if another process holds it, or if it cannot be written. Makes a file that is not
    // there, empty.
    explicit FileLock(const std::filesystem::path& path);
    ~FileLock();
    FileLock(const FileLock&) = delete;
    FileLock& operator=(const FileLock&) = delete;

  private:
    int descriptor_ = -1;
};

}  // namespace headway::inline texts
