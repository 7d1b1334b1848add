// What commands write that only put text together: printf, dirname, basename.
#include "models/import/shell_variables.hpp"

namespace headway::inline importing {

Text formatted(const Text& format, const std::vector<Text>& values) {
    Text text;
    std::size_t next = 0;
    for (std::size_t i = 0; i < format.chars.size(); ++i) {
        const char c = format.chars[i];
        const char kind = i + 1 < format.chars.size() ? format.chars[i + 1] : '\0';
        if (c == '%' && (kind == 's' || kind == 'd')) {
            if (next < values.size()) text.add(values[next++]);
            ++i;
        } else if ((c == '%' && kind == '%') || (c == '\\' && kind == '\\')) {
            text.add(kind, format.at[i]);
            ++i;
        } else if (c == '\\' && kind == 'n') {
            text.add('\n', format.at[i]);
            ++i;
        } else {
            text.add(c, format.at[i]);
        }
    }
    return text;
}

std::string folder_of(std::string_view path) {
    while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
    const std::size_t slash = path.rfind('/');
    if (slash == std::string_view::npos) return ".";
    return std::string(path.substr(0, slash == 0 ? 1 : slash));
}

std::string name_of(std::string_view path) {
    while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
    return std::string(path.substr(path.rfind('/') + 1));
}

}  // namespace headway::inline importing
