// libFuzzer target of the config.json reader. Any text either becomes a model or throws
// InputError; a model that reads can be written and reads back.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "models/scenario/check_scenario.hpp"
#include "models/scenario/describe.hpp"
#include "models/scenario/hugging_face.hpp"
#include "models/scenario/yaml_reader.hpp"

namespace headway {
namespace {

ModelSpec model_from(const YamlNode& root) {
    const ReadOptions options;
    YamlReader reader(options);
    ModelSpec model;
    const SourceFile file{"config.json", "", root};
    reader.read_file(file, ReferenceKind::model, model);
    if (reader.is_clean("")) reader.add_check("", check_model(model));
    reader.throw_if_any();
    return model;
}

ModelSpec read_config(std::string_view text) {
    std::vector<InputProblem> problems;
    std::vector<std::string> notes;
    expect_json_text(text, "config.json");
    const YamlNode config = parse_yaml(text, "config.json", problems);
    const YamlNode root = model_from_hugging_face(config, "config.json", problems, notes);
    if (!problems.empty()) throw InputError(std::move(problems));
    return model_from(root);
}

ModelSpec read_yaml(const std::string& text) {
    std::vector<InputProblem> problems;
    return model_from(parse_yaml(text, "written.yaml", problems));
}

}  // namespace
}  // namespace headway

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    ModelSpec model;
    try {
        model = read_config({reinterpret_cast<const char*>(data), size});
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
        return 0;
    }
    // InputError is not caught here: what was written must read.
    const std::string written = to_yaml(model);
    if (to_yaml(read_yaml(written)) != written) std::abort();
    return 0;
}
