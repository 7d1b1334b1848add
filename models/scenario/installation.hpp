// Where headway's own files lie: in share/headway beside the folder of the running program, as it
// is installed and as a build folder links it to its source tree. Nothing of the machine that built
// the program is compiled into it, so an installed folder can be moved.
#pragma once

#include <filesystem>

namespace headway::inline scenario {

// PREFIX/share/headway of the running program, whether or not it is there.
std::filesystem::path data_folder();

}  // namespace headway::inline scenario
