#include "models/report/input_file.hpp"

#include <fmt/format.h>

#include <fstream>
#include <system_error>

#include "models/vocab/error.hpp"

namespace headway::inline report {

std::string read_input_file(const std::filesystem::path& path, const std::string& what,
                            std::size_t limit) {
    const auto refuse = [&](std::string found) {
        throw InputError(
            {.where = path.string(), .found = std::move(found), .accepted = what, .hint = ""});
    };
    std::error_code error;
    const auto type = std::filesystem::status(path, error).type();
    if (error || type == std::filesystem::file_type::not_found) refuse("no such file");
    if (type != std::filesystem::file_type::regular) refuse("no regular file");
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (error || size > limit) {
        refuse(fmt::format("{} bytes, more than the {} that are read", size, limit));
    }
    std::string text(static_cast<std::size_t>(size), '\0');
    std::ifstream stream(path, std::ios::binary);
    stream.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (!stream) refuse("the file cannot be read");
    return text;
}

}  // namespace headway::inline report
