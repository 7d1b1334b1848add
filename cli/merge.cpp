// headway merge: the shards of one sweep in; the file that one process would have written out.
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "cli/options.hpp"
#include "cli/output.hpp"
#include "models/sweep/merge_sweeps.hpp"
#include "models/text/atomic_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {

int run_merge(Args args) {
    const CommandHelp help{
        .usage = "merge SHARD.csv... -o ALL.csv",
        .about =
            "Joins the files of a sweep that several processes computed. All shards of one sweep\n"
            "must be there, each once and complete; the result has the bytes that one process\n"
            "would have written.",
        .examples = "  headway merge results.*of4.csv -o results.csv",
        .positional = {"shard"},
        .repeat_last = true};
    po::options_description options("Options");
    options.add_options()("shard", po::value<std::vector<std::string>>()->value_name("SHARD.csv"),
                          "file of one shard")(
        "out,o", po::value<std::string>()->value_name("FILE"),
        "write there instead of to standard output")("help,h", "this text");
    const auto values = parse_options(args, help, options);
    if (!values) return kDone;
    if (values->count("shard") == 0) {
        throw InputError({.where = "headway merge",
                          .found = "no files given",
                          .accepted = "headway merge SHARD.csv... -o ALL.csv"});
    }
    const auto& names = (*values)["shard"].as<std::vector<std::string>>();
    const std::vector<std::filesystem::path> files(names.begin(), names.end());
    const auto out = optional_text(*values, "out");
    if (out && *out != "-") {
        AtomicFile file(*out);
        merge_sweeps(files, file.stream());
        file.commit();
    } else {
        std::ostringstream text;
        merge_sweeps(files, text);
        write_stdout(text.str());
    }
    return kDone;
}

}  // namespace headway::cli
