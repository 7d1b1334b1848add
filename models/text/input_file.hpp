// The text of an input file, within limits: a directory, a device or a file of gigabytes is named
// as what it is instead of being read.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>

namespace headway::inline texts {

inline constexpr std::size_t kMaxInputFile = std::size_t{256} << 20;

// InputError unless `path` is a regular file of at most `limit` bytes; `what` says what belongs
// there.
std::string read_input_file(const std::filesystem::path& path, const std::string& what,
                            std::size_t limit = kMaxInputFile);

// The file for reading piece by piece. InputError unless it is a regular file that can be read: a
// pipe, a directory or a device would have a reader wait for ever or read without end.
std::ifstream open_input_file(const std::filesystem::path& path, const std::string& what);

// InputError unless `path` is a regular file.
void expect_regular_file(const std::filesystem::path& path, const std::string& what);

}  // namespace headway::inline texts
