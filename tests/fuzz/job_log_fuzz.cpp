// libFuzzer target of the reader of training logs. Any bytes either read or throw InputError; what
// reads has times above zero, and lines that count or InputError again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>

#include "models/trace/job_log.hpp"
#include "models/vocab/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    std::istringstream stream(std::string(reinterpret_cast<const char*>(data), size));
    try {
        const JobLog log = read_job_log(stream, "fuzz.log");
        if (log.iterations.empty()) std::abort();
        for (const LoggedIteration& one : log.iterations)
            if (!(one.time > Seconds{}) || !one.time.is_finite()) std::abort();
        if (steady_iterations(log, static_cast<int>(size % 8)).lines.empty()) std::abort();
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
    }
    return 0;
}
