// A folder for files that other programs read and write for a verb; gone with this object.
#pragma once

#include <filesystem>

namespace headway::cli {

class ScratchFolder {
  public:
    ScratchFolder();  // InputError where none can be made
    ~ScratchFolder();
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

}  // namespace headway::cli
