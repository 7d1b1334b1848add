// Work that is the same in two tasks: it takes the same course from the same state.
#pragma once

#include "models/vocab/program.hpp"

namespace headway::sim {

bool same_work(const TaskWork& a, const TaskWork& b);

}  // namespace headway::sim
