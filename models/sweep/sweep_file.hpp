// The result file of a sweep, or of one shard of it: a head that names the sweep, rows in order, an
// end mark. Rows are appended as they come, so that a killed run keeps them and a second run goes
// on behind the last whole point; a file without its end mark is refused by readers.
//   shard i of n holds the points i, i + n, i + 2n ...
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "models/sweep/sweep_rows.hpp"

namespace headway::inline sweep {

struct Shard {
    std::size_t index = 0, count = 1;
};
std::size_t points_of(const Shard& shard, std::size_t num_points);

// Everything before the rows.
struct SweepHead {
    std::string scenario, profile, version;
    std::uint64_t seed = 0;
    std::string sweep;  // 16 hexadecimal digits of all that decides the rows
    std::size_t num_points = 0, num_plans = 0;  // of the whole sweep; rows of a point
    Shard shard;
    std::string columns;

    std::string text() const;
};
SweepHead make_head(const Sweep& sweep, const RowOptions& options, std::string_view version,
                    const Shard& shard);

enum class Existing { resume, replace };

class SweepFile {
  public:
    // Opens or makes the file. An existing one must begin with this head and hold rows of this
    // sweep, else InputError; what is not a whole point at its end is cut off.
    SweepFile(const std::filesystem::path& path, const SweepHead& head, const Sweep& sweep,
              Existing existing);
    ~SweepFile();
    SweepFile(const SweepFile&) = delete;
    SweepFile& operator=(const SweepFile&) = delete;

    std::size_t num_done() const { return num_done_; }  // points of this shard that are there
    bool is_complete() const { return is_complete_; }   // with its end mark
    void append(std::string_view rows);                 // of one or more whole points
    void finish();

  private:
    void take_over(const Sweep& sweep);
    void write(std::string_view text);

    std::filesystem::path path_;
    SweepHead head_;
    int descriptor_ = -1;
    std::size_t num_done_ = 0;
    bool is_complete_ = false;
};

std::string end_mark(std::size_t num_rows);  // with its line break

}  // namespace headway::inline sweep
