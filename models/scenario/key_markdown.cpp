#include <fmt/format.h>

#include <algorithm>

#include "models/scenario/accepted_text.hpp"
#include "models/scenario/hugging_face_families.hpp"
#include "models/scenario/key_docs.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::string_view kHuggingFace = R"(
## Hugging Face configs

A key that a config.json lacks has the value of the family's configuration class. The config of the language model may be a map in
it (`text_config`, `llm_config`, `language_config`, `thinker_config`); vision and audio parts are left out. Layers of multi-token
prediction are those of `num_nextn_predict_layers`; what other keys say of them is left out. Training is in bf16 whatever type the weights are
stored in, unless `dtype` is given beside the preset. What is left out, what is assumed and every key that is not known are notes of the result. Models with a layer kind that headway
has not are refused by its name; what `headway show config.json` prints can be changed into a model that comes near.

)";

constexpr std::string_view kIntroduction = R"(# Scenario files

<!-- Generated from the declarations in models/scenario/describe_*.cpp by scenario_markdown(); a test
compares this file with them. -->

A scenario is one YAML file: a model on a cluster, a batch, how tokens choose experts, and the plans to
compare. `headway show FILE` prints it fully resolved: presets filled in, every default written out.

- **Unknown and missing keys are errors**, with file, line and column, and all problems of a file are
  reported at once. A key has a default only where this page says so.
- **A quantity is text with its unit**: `450 GB/s`, `400 Gbps`, `2 us`, `80 GiB`, `989 TFLOP/s`, `4 %`. `GB` is
  10^9 bytes, `GiB` is 2^30 bytes, `Gbps` is 10^9 bits per second. Units:
)";

constexpr std::string_view kReferences =
    R"(- **`model`, `cluster` and `profile`** are each a map written in place, the path of a file relative to the file that
  names it, or a preset, whose keys can be replaced one by one:

      cluster: {preset: dgx_h100, nodes: 32, device: {memory: 94 GB}}

  A preset `name` is looked up as `models/name.yaml`, `clusters/name.yaml` or `profiles/name.yaml` in the folder of the
  scenario, its parent, and the folders of `headway list`; with a folder or an ending (`a/b`, `b.yaml`) it is the path of a
  file. A file of its own may itself begin with `preset:`.
- **A table of numbers** (`file`) is CSV: cells apart by commas, semicolons or blanks, with or without a header line and a column
  that names the rows, which must count up by one.
- **A model may be a Hugging Face `config.json`**, or the folder of one: `model: path/to/model`, and with other values for
  some keys `model: {preset: path/to/config.json, num_layers: 4}`. The last section says which families are read.
- **Rank numbers** go node by node: rank = node * gpus_per_node + GPU. Bandwidths are per direction.
- **Editors**: `scenarios/scenario.schema.json` is generated from the same declarations; put
  `# yaml-language-server: $schema=PATH` at the head of a file for completion and checks while typing.
- **Limits**: 16 MiB and 500,000 values a file, 32 levels, 1,048,576 ranks; no anchors, aliases, tags or second documents.
- `head_parallel` with `num_heads` alone means the twin of the model: heads of width hidden / num_heads, each with the model's
  E, k and f, so that expert parameters and active expert FLOPs equal those of the EP layer. What was derived is noted in the result.
- Across keys: `group_size` divides the number of ranks and covers whole nodes or an even part of one; it divides the experts (EP),
  or divides `num_heads`, or is a multiple of it that spreads the experts of a head evenly (HP).
- `parallel` has Megatron's names and rank order, tp-cp-ep-dp-pp: t c p and e N p divide the ranks, t the heads, key and value heads, widths
  and vocabulary, 2 c the sequence; MoE layers under t > 1 need `sequence_parallel`; `global_batch_size` is a multiple of micro-batch times data-parallel ranks.
)";

std::string type_text(const KeyDoc& key) {
    switch (key.kind) {
        case KeyDoc::Kind::texts:
            return "a value, or a list of values" +
                   (key.rule.kind == Rule::Kind::text ? "" : ", each " + accepted_text(key.rule));
        case KeyDoc::Kind::numbers:
            return "list, each " + accepted_text(key.rule);
        case KeyDoc::Kind::rows:
            return "list of rows, each entry " + accepted_text(key.rule);
        case KeyDoc::Kind::table:
            return "path of a CSV file, each entry " + accepted_text(key.rule);
        case KeyDoc::Kind::map:
            return "map";
        case KeyDoc::Kind::list:
            return "list of maps";
        case KeyDoc::Kind::reference:
            return "map, path or preset";
        default:
            return accepted_text(key.rule);
    }
}

bool same_keys(const KeyDoc& a, const KeyDoc& b) {
    return std::equal(a.children.begin(), a.children.end(), b.children.begin(), b.children.end(),
                      [](const KeyDoc& x, const KeyDoc& y) {
                          return x.name == y.name && x.meaning == y.meaning;
                      });
}

std::string row(const KeyDoc& key) {
    std::string presence = key.is_required    ? "required"
                           : key.default_text ? '`' + *key.default_text + '`'
                                              : "-";
    std::string meaning = key.meaning;
    if (!key.when.empty()) meaning = fmt::format("only with `{}`: {}", key.when, meaning);
    return fmt::format("| `{}` | {} | {} | {} |\n", key.name, type_text(key), presence, meaning);
}

// `a`, `b` and `c`
std::string listed(const std::vector<std::string>& names) {
    std::string text = '`' + names.front() + '`';
    for (std::size_t i = 1; i < names.size(); ++i)
        text += (i + 1 < names.size() ? ", `" : " and `") + names[i] + '`';
    return text;
}

void add_section(const KeyDoc& doc, const std::string& path, std::string& text) {
    text += fmt::format("\n## {}\n\n", path.empty() ? "The scenario" : '`' + path + '`');
    if (!doc.meaning.empty()) text += doc.meaning + ".\n\n";
    text += "| key | accepts | default | meaning |\n|---|---|---|---|\n";
    for (const KeyDoc& key : doc.children) text += row(key);
    for (const KeyDoc::Choice& choice : doc.exactly_one_of) {
        text += fmt::format("\nExactly one of {}{}.\n", listed(choice.names),
                            choice.when.empty() ? "" : " with `" + choice.when + '`');
    }
    for (const KeyDoc::Choice& choice : doc.at_most_one_of)
        text += fmt::format("\nAt most one of {}.\n", listed(choice.names));
    const KeyDoc* previous = nullptr;
    for (const KeyDoc& key : doc.children) {
        if (key.children.empty()) continue;
        const std::string key_path = (path.empty() ? "" : path + '.') + key.name +
                                     (key.kind == KeyDoc::Kind::list ? "[]" : "");
        if (previous && same_keys(*previous, key)) {
            text += fmt::format("\n`{}` has the same keys as `{}`.\n", key_path, previous->name);
        } else {
            add_section(key, key_path, text);
        }
        previous = &key;
    }
}

}  // namespace

std::string scenario_markdown() {
    std::string text(kIntroduction);
    for (const UnitClass unit : {UnitClass::bytes, UnitClass::bandwidth, UnitClass::seconds,
                                 UnitClass::flops, UnitClass::flop_rate, UnitClass::percent}) {
        text += fmt::format("  - {}: {}\n", unit_class_example(unit), unit_list(unit));
    }
    text += kReferences;
    add_section(record_scenario_keys(), "", text);
    return text + std::string(kHuggingFace) + hugging_face_markdown();
}

}  // namespace headway::inline scenario
