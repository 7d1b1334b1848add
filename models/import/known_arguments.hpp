// Megatron's arguments, and the keys of Megatron-Bridge and torchtitan: which of them are read,
// which are named because headway does not model them, which change nothing of a step's work.
#pragma once

#include <string>
#include <string_view>

#include "models/import/settings.hpp"

namespace headway::inline importing {

enum class Concern { read, named, none, unknown };

struct Knowledge {
    Concern concern = Concern::unknown;
    std::string_view why;  // named: what headway does instead
};

// By the name without a section. `setting` may have the value that turns a named feature off.
Knowledge knowledge_of(std::string_view name, const Setting& setting, Dialect dialect);

// A name that makes a command a training command.
bool is_training_argument(std::string_view name);

// The name in Megatron's arguments of a key of Megatron-Bridge: "model.num_moe_experts" is
// "num_experts".
std::string canonical_name(std::string_view name);

// The nearest name that is read, if one is near.
std::string near_argument(const std::string& name);

// The table of docs/reference/import.md.
std::string known_arguments_markdown();

}  // namespace headway::inline importing
