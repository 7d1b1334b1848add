// The families of Hugging Face configs that headway knows: where their keys differ, what a missing
// key means, or which kind of layer headway lacks. docs/reference/scenario.md shows this table.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace headway::inline scenario {

struct HuggingFaceFamily {
    std::string_view model_types;  // apart by blanks
    std::string_view lacks;        // the layer kind that headway has not; empty: the family is read
    std::string_view keys;         // "experts=num_local_experts": headway's word, the config's key
    std::string_view defaults;     // values of missing keys, from the configuration class
};

std::span<const HuggingFaceFamily> hugging_face_families();

// nullptr when no family has this model_type.
const HuggingFaceFamily* find_hugging_face_family(std::string_view model_type);

// The value of `key` in text of the form "key=value key=value"; empty when it is not there.
std::string_view value_in(std::string_view pairs, std::string_view key);

// All model types that are read, apart by commas.
std::string hugging_face_model_types();

// The table of docs/reference/scenario.md.
std::string hugging_face_markdown();

}  // namespace headway::inline scenario
