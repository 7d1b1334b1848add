// libFuzzer target of the import: a first byte picks the format, the rest is the file. Any bytes
// either give a scenario or throw InputError; what they give can be written and read again.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "models/import/import_job.hpp"
#include "models/vocab/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    if (size == 0) return 0;
    static const std::filesystem::path presets =
        std::filesystem::path(HEADWAY_SOURCE_DIR) / "tests" / "import" / "presets";
    // Not .json: a Hugging Face config is read from its file, by hugging_face_fuzz.
    constexpr std::array names = {"job.sh", "job.yaml", "job.toml", "job.log"};
    ImportOptions options{.presets = {{presets}}};
    options.cluster = "dgx_h100";
    options.num_ranks = 64;
    options.vocab_size = 32000;
    const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
    std::string written;
    try {
        const ImportedJob job = import_job_text(text, names[data[0] % names.size()], options);
        written = to_yaml(job.scenario);
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
        return 0;
    }
    // InputError is not caught here: what was written must read.
    if (to_yaml(read_scenario_text(written, "written.yaml", presets, options.presets)).empty())
        std::abort();
    return 0;
}
