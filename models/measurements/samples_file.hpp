// SamplesFile: the samples of a calibration as they are measured, one finished step after the
// other, so that an interrupted calibration goes on where it stopped and a longer one begins with
// what is there. Lines of a step without its `done` line are dropped when the file is opened again.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "models/fit/fit_profile.hpp"
#include "models/text/file_lock.hpp"

namespace headway::inline measurements {

class SamplesFile {
  public:
    // Reads `path` if it exists. InputError when it holds samples of another `configuration` (one
    // line that names all that shapes the samples), is in use by another process, or cannot be read
    // or written.
    SamplesFile(const std::filesystem::path& path, const std::string& configuration);

    const std::vector<CalibrationSamples>& finished() const { return finished_; }  // [step]

    // Keeps a step's kernels, exchanges, launch, count_exchange and the phases that move rows, and
    // nothing else.
    void append(const CalibrationSamples& step);

  private:
    std::filesystem::path path_;
    FileLock lock_;  // two that write the same samples would spoil them
    std::vector<CalibrationSamples> finished_;
    std::ofstream out_;
};

// All samples of `from` after those of `to`; link and multiprocessors of `from` where it has any.
void append(CalibrationSamples& to, const CalibrationSamples& from);

}  // namespace headway::inline measurements
