// libFuzzer target of the matrix reader. Any bytes either read or throw InputError; a matrix that
// reads is a square, and comes back from both formats as it was.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "models/report/matrix_file.hpp"
#include "models/vocab/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    TrafficMatrix matrix;
    try {
        matrix = parse_matrix({reinterpret_cast<const char*>(data), size}, "fuzz.csv");
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
        return 0;
    }
    const auto n = static_cast<std::size_t>(matrix.num_ranks);
    if (matrix.num_ranks < 1 || matrix.bytes.size() != n * n) std::abort();
    // InputError is not caught here: what was written must read.
    const std::string csv = to_text(matrix, MatrixFormat::csv);
    if (parse_matrix(csv, "written.csv").bytes != matrix.bytes) std::abort();
    const std::string nccl = to_text(matrix, MatrixFormat::nccl_tests);
    const TrafficMatrix again = parse_matrix(nccl, "written.txt");
    if (to_text(again, MatrixFormat::nccl_tests) != nccl) std::abort();
    return 0;
}
