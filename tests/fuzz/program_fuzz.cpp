// libFuzzer target of program.yaml: any bytes either replay on a cluster or throw InputError.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "models/recorded/lay_out.hpp"
#include "models/recorded/program_file.hpp"
#include "models/recorded/recorded_report.hpp"
#include "models/vocab/error.hpp"
#include "tests/cost/toy.hpp"
#include "tests/fuzz/memory_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    const Cluster cluster = toy::cluster(1, 2);
    const Profile profile = toy::profile();
    try {
        const fuzz::MemoryFile file(data, size);
        const Recording recording = read_program(file.path());
        const LaidOut laid = lay_out(recording, cluster, profile, {});
        const RecordedPrediction p = predict_program(laid, cluster, profile);
        if (!p.step.is_finite() || to_table(p).empty()) std::abort();
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
    }
    return 0;
}
