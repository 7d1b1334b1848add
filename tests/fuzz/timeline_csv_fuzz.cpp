// libFuzzer target of the Timeline CSV reader. Any bytes either read or throw InputError; what
// reads can be written, and writing what that reads gives the same bytes again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "models/report/timeline_csv.hpp"
#include "models/vocab/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    std::istringstream stream(std::string(reinterpret_cast<const char*>(data), size));
    std::vector<Timeline> timelines;
    try {
        timelines = read_timelines(stream, "fuzz.csv");
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
        return 0;
    }
    if (timelines.empty()) return 0;  // no rows, so no head to write
    // InputError is not caught here: what was written must read.
    const std::string written = timelines_to_csv(timelines);
    std::istringstream again(written);
    if (timelines_to_csv(read_timelines(again, "written.csv")) != written) std::abort();
    return 0;
}
