// headway import: a scenario from the file of a training job.
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "cli/import_trace.hpp"
#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "models/import/import_job.hpp"
#include "models/scenario/yaml_writer.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

CommandHelp import_help() {
    return {
        .usage =
            "import FILE [ARGUMENT...] --cluster NAME|FILE [options] [-- ARGUMENT...]\n"
            "       headway import --torch-trace T.json.gz [--comm S.json] [options]",
        .about =
            "Reads what a training job is started with and writes it as a scenario: a launch\n"
            "script or a log of Megatron-LM, YAML with MODEL_ARGS, run_config.yaml of\n"
            "Megatron-Bridge, TOML, JSON or a command of torchtitan, a Hugging Face config.json.\n"
            "What headway does not model is named with its line, on standard error and as a\n"
            "comment of the scenario. ARGUMENTs are those of the script itself ($1, $2 ...), or\n"
            "more arguments of Megatron beside MODEL_ARGS or a config.json.\n"
            "With --torch-trace: one rank's step of any PyTorch script as a program, which\n"
            "predict, simulate and explain replay on a cluster (--program).",
        .examples =
            "  headway import train_mixtral.sh --cluster dgx_h100 --gpus 64 -o job.yaml\n"
            "  headway import Qwen3-30B-A3B.yaml --cluster dgx_h100 --gpus 32 --set TP=1 \\\n"
            "      --set PP=1 --set EP=8 --set MBS=1 --set GBS=512 --vocab-size 151936\n"
            "  headway import --torch-trace rank0.json.gz --comm rank0_comm.json -o program.yaml",
        .positional = {"job", "argument"},
        .repeat_last = true};
}

po::options_description import_options() {
    po::options_description options("Options");
    options.add_options()("job", po::value<std::string>()->value_name("FILE"), "file of the job")(
        "argument", po::value<Strings>()->value_name("ARGUMENT"), "argument of the script")(
        "cluster", po::value<std::string>()->value_name("NAME|FILE"), "the machine it runs on")(
        "gpus", po::value<int>()->value_name("N"),
        "GPUs of the job, where the file leaves it open")(
        "set", po::value<Strings>()->composing()->value_name("NAME=VALUE"),
        "a variable that the file takes from its surroundings; may be repeated")(
        "model", po::value<std::string>()->value_name("NAME|FILE"),
        "the model, where the file only names it (torchtitan)")(
        "vocab-size", po::value<int>()->value_name("N"),
        "the vocabulary, where a tokenizer has it")(
        "profile", po::value<std::string>()->value_name("FILE|NAME"),
        "measured curves for the scenario to name")(
        "head-parallel-twin", po::value<int>()->value_name("H"),
        "a second plan: the same model under Head Parallel with H heads")(
        "presets", po::value<std::string>()->value_name("DIR"),
        "folder with clusters/, models/, profiles/, searched before the shipped one")(
        "out,o", po::value<std::string>()->value_name("FILE"),
        "write there instead of to standard output")("help,h", "this text");
    add_trace_options(options);
    return options;
}

std::map<std::string, std::string, std::less<>> variables_of(const po::variables_map& values) {
    std::map<std::string, std::string, std::less<>> variables;
    if (values.count("set") == 0) return variables;
    for (const std::string& text : values["set"].as<Strings>()) {
        const std::size_t equals = text.find('=');
        if (equals == 0 || equals == std::string::npos) {
            throw InputError(
                {.where = "--set", .found = "'" + text + "'", .accepted = "NAME=VALUE"});
        }
        variables[text.substr(0, equals)] = text.substr(equals + 1);
    }
    return variables;
}

ImportOptions options_of(const po::variables_map& values) {
    ImportOptions options{.presets = read_options(values)};
    options.cluster = optional_text(values, "cluster");
    options.model = optional_text(values, "model");
    if (values.count("gpus") != 0) options.num_ranks = whole_number(values, "gpus", 1, 1 << 20);
    if (values.count("vocab-size") != 0)
        options.vocab_size = whole_number(values, "vocab-size", 1, 1 << 24);
    if (values.count("head-parallel-twin") != 0)
        options.head_parallel_twin = whole_number(values, "head-parallel-twin", 1, 65536);
    options.surroundings.variables = variables_of(values);
    if (values.count("argument") != 0)
        options.surroundings.arguments = values["argument"].as<Strings>();
    return options;
}

// A preset by its name, so that the file stays short; a file by its whole path.
std::string profile_text(const po::variables_map& values) {
    const auto profile = optional_text(values, "profile");
    if (!profile) return "";
    (void)load_profile(*profile, read_options(values));
    const fs::path path(*profile);
    std::error_code ignored;
    const bool is_name = !path.has_parent_path() && !path.has_extension();
    if (is_name && !fs::exists(path, ignored))
        return fmt::format("profile:\n  preset: {}\n", *profile);
    return fmt::format("profile: {}\n", yaml_text(fs::absolute(path).string()));
}

}  // namespace

int run_import(Args args) {
    const auto values = parse_options(args, import_help(), import_options());
    if (!values) return kDone;
    const bool trace = values->count("torch-trace") != 0;
    std::vector<OptionUse> uses;
    for (const char* name : {"job", "argument", "cluster", "gpus", "set", "model", "vocab-size",
                             "profile", "head-parallel-twin", "presets"})
        uses.push_back({name, !trace, "a job, without --torch-trace"});
    for (const char* name : {"comm", "step", "top-k"})
        uses.push_back({name, trace, "--torch-trace"});
    check_uses(*values, uses);
    if (trace) return import_torch_trace(*values);
    const fs::path file = required(*values, "job", "import");
    const ImportOptions options = options_of(*values);
    const ImportedJob job = import_job(file, options);
    const std::string profile = profile_text(*values);
    write_result(to_yaml(job.scenario) + profile, optional_text(*values, "out"));
    note(fmt::format("{}: {}; {} not modelled or left out", file.string(), job.format,
                     job.leftovers.size()));
    for (const std::string& leftover : job.leftovers) note(leftover);
    return kDone;
}

}  // namespace headway::cli
