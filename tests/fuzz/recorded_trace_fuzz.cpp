// libFuzzer target of headway import --torch-trace: a trace and, behind a zero byte, a side table
// either become a program that reads back, or InputError.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "models/recorded/import_recording.hpp"
#include "models/recorded/program_file.hpp"
#include "models/trace/torch_trace.hpp"
#include "models/vocab/error.hpp"
#include "tests/fuzz/memory_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    const std::uint8_t* end = data + size;
    const std::uint8_t* zero = std::find(data, end, std::uint8_t{0});
    try {
        const fuzz::MemoryFile file(data, static_cast<std::size_t>(zero - data));
        std::optional<CallTable> table;
        if (zero != end) {
            const fuzz::MemoryFile side(zero + 1, static_cast<std::size_t>(end - zero - 1));
            table = read_call_table(side.path());
        }
        const TorchTrace trace = read_torch_trace(file.path());
        const Recording recording = import_recording(trace, table ? &*table : nullptr, {});
        const std::string text = to_yaml(recording);
        const fuzz::MemoryFile written(reinterpret_cast<const std::uint8_t*>(text.data()),
                                       text.size());
        if (to_yaml(read_program(written.path())) != text) std::abort();
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
    }
    return 0;
}
