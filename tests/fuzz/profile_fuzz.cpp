// libFuzzer target of the profile reader. Any text either reads or throws InputError; a profile
// that reads can be written and looked up, and reads back to the same text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "models/scenario/check_scenario.hpp"
#include "models/scenario/describe.hpp"
#include "models/scenario/yaml_reader.hpp"

namespace headway {
namespace {

const ReadOptions kOptions = {{HEADWAY_SOURCE_DIR "/scenarios"}};

Profile read_text(std::string_view text, const ReadOptions& options) {
    YamlReader reader(options);
    Profile profile;
    const SourceFile& file = reader.load_text(text, "fuzz.yaml", "");
    reader.read_file(file, ReferenceKind::profile, profile);
    if (reader.is_clean("")) reader.add_check("", check_profile(profile));
    reader.throw_if_any();
    return profile;
}

void look_up(const Profile& profile) {
    for (std::size_t i = 0; i < profile.kernels.size(); ++i) {
        const KernelCurves& curves = profile.kernels[i];
        if (curves.forward.empty()) continue;
        const auto kernel = static_cast<Kernel>(i / kNumDtypes);
        for (const double size : {0.0, 1.0, 1e6, 1e18}) {
            if (!(curves.forward.front().at(kernel, size, 128.0).value > 0.0)) std::abort();
        }
    }
    for (const TimeCurve& curve : profile.communication) {
        for (const double bytes : {0.0, 1.0, 1e6, 1e15}) {
            if (!(curve.at(bytes).value >= 0.0)) std::abort();
        }
    }
}

}  // namespace
}  // namespace headway

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    Profile profile;
    try {
        profile = read_text({reinterpret_cast<const char*>(data), size}, kOptions);
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
        return 0;
    }
    look_up(profile);
    // InputError is not caught here: what was written must read.
    const std::string written = to_yaml(profile);
    if (to_yaml(read_text(written, {})) != written) std::abort();
    return 0;
}
