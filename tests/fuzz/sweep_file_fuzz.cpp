// libFuzzer target of sweep results: the bytes are taken for a sweep that was killed. Either they
// are refused with InputError and left as they are, or the file that is completed from them is one
// that merge takes for whole.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "models/sweep/merge_sweeps.hpp"
#include "models/sweep/sweep_file.hpp"
#include "models/vocab/error.hpp"
#include "tests/fuzz/memory_file.hpp"

namespace headway {
namespace {

// Small, with a quoted and an invalid value among its axes.
Sweep small_sweep() {
    Sweep sweep{.base = read_open_scenario(HEADWAY_SOURCE_DIR "/scenarios/paper_4gpu.yaml",
                                           {{HEADWAY_SOURCE_DIR "/scenarios"}}),
                .axes = {}};
    const std::vector<SweepAxis> axes = {{"model.moe.top_k", {"4,129"}},
                                         {"cluster.nvlink.bandwidth", {"100 GB/s"}}};
    for (const SweepAxis& axis : axes) sweep.axes.push_back(make_axis(sweep.base, axis, {}));
    return sweep;
}

std::string text_of(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

struct Case {
    Sweep sweep = small_sweep();
    RowOptions rows;
    SweepHead head = make_head(sweep, rows, "0", {});
    std::vector<std::string> points = [this] {
        PointEvaluator evaluator(sweep, rows);
        std::vector<std::string> texts;
        for (std::size_t i = 0; i < num_points(sweep); ++i) texts.push_back(evaluator.rows(i));
        return texts;
    }();
};

void try_merge(const std::string& path) {
    try {
        std::ostringstream out;
        merge_sweeps({path}, out);
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
    }
}

void resume(const Case& c, const std::string& path, const std::string& before) {
    try {
        SweepFile file(path, c.head, c.sweep, Existing::resume);
        for (std::size_t i = file.num_done(); i < c.points.size(); ++i) file.append(c.points[i]);
        file.finish();
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
        if (text_of(path) != before) std::abort();
        return;
    }
    // InputError is not caught here: what was completed must be complete.
    std::ostringstream merged;
    merge_sweeps({path}, merged);
    if (merged.str() != text_of(path)) std::abort();
}

}  // namespace
}  // namespace headway

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const headway::Case kCase;
    const headway::fuzz::MemoryFile file(data, size);
    headway::try_merge(file.path());
    headway::resume(kCase, file.path(), {reinterpret_cast<const char*>(data), size});
    return 0;
}
