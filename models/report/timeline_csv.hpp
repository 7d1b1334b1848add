// Timeline CSV: the one results schema, written by predicted, simulated and measured runs and read
// by verify and the plots. Described in docs/reference/results_format.md. A file ends with its row
// count, so that a part of a file cannot pass for the whole.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "models/vocab/timeline.hpp"

namespace headway::inline report {

// All timelines of one file share scenario, profile, version and seed (std::logic_error if not).
void write_timelines(std::ostream& stream, std::span<const Timeline> timelines);
std::string timelines_to_csv(std::span<const Timeline> timelines);

// One Timeline for each (source, plan) of the file, in order of appearance. Strict: InputError with
// file:line for anything that write_timelines would not have written, a missing end included.
std::vector<Timeline> read_timelines(std::istream& stream, const std::string& file_name);
std::vector<Timeline> read_timelines(const std::filesystem::path& file);

}  // namespace headway::inline report
