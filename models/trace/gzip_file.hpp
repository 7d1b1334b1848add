// A file as a stream of bytes, inflated where it is gzip's. Nothing but a block is held in memory.
#pragma once

#include <filesystem>
#include <istream>
#include <memory>
#include <string>

namespace headway::inline trace {

// InputError, here and while it is read, for what cannot be read, is cut or damaged, and for gzip
// where headway was built without zlib. `what` says what belongs there.
std::unique_ptr<std::istream> open_maybe_gzip(const std::filesystem::path& path,
                                              const std::string& what);

}  // namespace headway::inline trace
