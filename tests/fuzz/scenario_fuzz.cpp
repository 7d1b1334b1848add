// libFuzzer target of the scenario reader. Any text either reads or throws InputError; what reads
// can be written, and reads back to the same text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "models/scenario/hugging_face.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/scenario/yaml_tree.hpp"

namespace headway {
namespace {

const ReadOptions kOptions = {{HEADWAY_SOURCE_DIR "/scenarios"}};

void read_as_scenario(std::string_view text) {
    Scenario scenario;
    try {
        scenario =
            read_scenario_text(text, "fuzz.yaml", HEADWAY_SOURCE_DIR "/tests/fuzz", kOptions);
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
        return;
    }
    scenario.notes.clear();
    const std::string written = to_yaml(scenario);
    // A resolved scenario that does not read is a bug, so InputError is not caught here.
    const Scenario again = read_scenario_text(written, "written.yaml", "", {});
    if (to_yaml(again) != written || !again.notes.empty()) std::abort();
}

void read_as_config(std::string_view text) {
    try {
        std::vector<InputProblem> problems;
        const YamlNode config = parse_yaml(text, "config.json", problems);
        std::vector<std::string> notes;
        model_from_hugging_face(config, "config.json", problems, notes);
    } catch (const InputError&) {
        return;
    }
}

}  // namespace
}  // namespace headway

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    headway::read_as_scenario(text);
    headway::read_as_config(text);
    return 0;
}
