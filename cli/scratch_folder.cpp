#include "cli/scratch_folder.hpp"

#include <stdlib.h>

#include <string>
#include <system_error>

#include "models/vocab/error.hpp"

namespace headway::cli {

namespace fs = std::filesystem;

ScratchFolder::ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "headway-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
        throw InputError({.where = name, .found = "cannot make a temporary folder"});
    path_ = name;
}

ScratchFolder::~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
}

}  // namespace headway::cli
