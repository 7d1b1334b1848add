// A plain-text table: the first column to the left, the others to the right, two spaces between.
#pragma once

#include <string>
#include <vector>

namespace headway::inline texts {

struct TextTable {
    std::vector<std::string> head;
    std::vector<std::vector<std::string>> rows;  // as long as head; a row of one cell is a heading

    std::string to_string() const;
};

}  // namespace headway::inline texts
