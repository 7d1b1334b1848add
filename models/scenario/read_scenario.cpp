#include "models/scenario/read_scenario.hpp"

#include <fmt/format.h>

#include "models/scenario/check_scenario.hpp"
#include "models/scenario/describe.hpp"
#include "models/scenario/resolve.hpp"
#include "models/scenario/scenario_axis.hpp"
#include "models/scenario/yaml_reader.hpp"
#include "models/scenario/yaml_writer.hpp"

namespace headway::inline scenario {
namespace {

struct Read {
    Scenario open, resolved;
};

Read read_resolved(YamlReader& reader, const SourceFile& file, const std::string& name) {
    Read read;
    read.open.name = name;
    reader.read_file(file, std::nullopt, read.open);
    read.open.notes = reader.notes();
    Scenario& scenario = read.resolved = read.open;
    resolve(scenario.cluster);
    const bool has_model = reader.is_clean("model"), has_cluster = reader.is_clean("cluster");
    if (has_model) reader.add_check("model", check_model(scenario.model));
    if (has_cluster) reader.add_check("cluster", check_cluster(scenario.cluster));
    if (scenario.profile && reader.is_clean("profile")) {
        reader.add_check("profile", check_profile(*scenario.profile));
    }
    if (reader.is_clean("model") && reader.is_clean("cluster")) {
        resolve(scenario);
        if (reader.is_clean("plans") && reader.is_clean("batch")) {
            reader.add_check("", check_plans(scenario));
        }
        if (reader.is_clean("routing")) reader.add_check("", check_routing(scenario));
    }
    if (reader.is_clean("plans") && reader.is_clean("sweep")) {
        reader.add_check("", check_sweep(read.open));
    }
    reader.throw_if_any();
    return read;
}

template <class T, class Check>
T read_part(const std::filesystem::path& path, const ReadOptions& options, ReferenceKind kind,
            Check check, std::vector<std::string>* notes = nullptr) {
    YamlReader reader(options);
    T value;
    reader.read_file(reader.load(path), kind, value);
    if constexpr (std::is_same_v<T, Cluster>) resolve(value);
    if (reader.is_clean("")) reader.add_check("", check(value));
    reader.throw_if_any();
    if (notes != nullptr) *notes = reader.notes();
    return value;
}

template <class T>
std::string write(const T& value) {
    YamlWriter writer;
    T copy = value;  // describe() takes values that it may fill
    describe(writer, copy);
    return writer.take_text();
}

}  // namespace

Scenario read_scenario(const std::filesystem::path& path, const ReadOptions& options) {
    YamlReader reader(options);
    return read_resolved(reader, reader.load(path), path.stem().string()).resolved;
}

Scenario read_open_scenario(const std::filesystem::path& path, const ReadOptions& options) {
    YamlReader reader(options);
    return read_resolved(reader, reader.load(path), path.stem().string()).open;
}

Scenario read_scenario_text(std::string_view text, const std::string& name,
                            const std::filesystem::path& base_dir, const ReadOptions& options) {
    YamlReader reader(options);
    return read_resolved(reader, reader.load_text(text, name, base_dir),
                         std::filesystem::path(name).stem().string())
        .resolved;
}

ModelSpec read_model(const std::filesystem::path& path, const ReadOptions& options,
                     std::vector<std::string>* notes) {
    return read_part<ModelSpec>(path, options, ReferenceKind::model, check_model, notes);
}

Cluster read_cluster(const std::filesystem::path& path, const ReadOptions& options) {
    return read_part<Cluster>(path, options, ReferenceKind::cluster, check_cluster);
}

Cluster read_cluster_or_preset(const std::string& word, const ReadOptions& options) {
    const std::filesystem::path path(word);
    std::error_code ignored;
    const bool is_name =
        !path.has_parent_path() && !path.has_extension() && !std::filesystem::exists(path, ignored);
    return read_cluster(is_name ? find_preset("clusters", word, options) : path, options);
}

Profile read_profile(const std::filesystem::path& path, const ReadOptions& options) {
    return read_part<Profile>(path, options, ReferenceKind::profile, check_profile);
}

Routing read_routing(const std::filesystem::path& path, const Moe& moe) {
    const ReadOptions options;
    YamlReader reader(options);
    Scenario scenario;
    scenario.model.moe = moe;
    reader.read_file(reader.load(path), std::nullopt, scenario.routing);
    if (reader.is_clean("")) reader.add_check("", check_routing(scenario));
    reader.throw_if_any();
    return std::move(scenario.routing);
}

std::string to_yaml(const Scenario& scenario) {
    std::string text;
    for (const std::string& note : scenario.notes) text += "# " + note + '\n';
    return text + write(scenario);
}

std::string to_yaml(const ModelSpec& model) {
    return write(model);
}

std::string to_yaml(const Cluster& cluster) {
    return write(cluster);
}

std::string to_yaml(const Profile& profile) {
    return write(profile);
}

}  // namespace headway::inline scenario
