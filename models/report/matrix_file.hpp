// Byte matrices as text: CSV (a row a source rank, commas), or the file that nccl-tests'
// alltoallv_perf takes as NCCL_TESTS_ALLTOALLV_MATRIX_FILE (a row a source rank, white space
// between numbers, no comments; nccl-tests rounds every value down to a multiple of 16).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "models/vocab/traffic_matrix.hpp"

namespace headway::inline report {

enum class MatrixFormat { csv, nccl_tests };

std::string to_text(const TrafficMatrix& matrix, MatrixFormat format);

// The format is told by the commas. CSV may have comment lines that begin with '#'. InputError with
// file:line:column for anything but a square of whole numbers >= 0.
TrafficMatrix parse_matrix(std::string_view text, const std::string& file_name);
TrafficMatrix read_matrix(const std::filesystem::path& file);

}  // namespace headway::inline report
