#include <algorithm>

#include "kernels/grouping/grouping.hpp"

namespace headway::kernels {

HostGrouping group_rows_reference(const GroupingShape& shape, const std::vector<int32_t>& index,
                                  const std::vector<float>& gate) {
    HostGrouping out;
    const auto num_rows = std::size_t(shape.num_rows());
    const int k = shape.top_k;
    const auto group_of = [&](std::size_t pair) {
        const auto token = int64_t(pair) / k;
        return int(token / shape.num_tokens) * shape.num_experts + index[pair];
    };
    out.expert_offset.assign(std::size_t(shape.num_groups()) + 1, 0);
    for (std::size_t pair = 0; pair < num_rows; ++pair) ++out.expert_offset[group_of(pair) + 1];
    out.tile_offset = {0};
    for (int group = 0; group < shape.num_groups(); ++group) {
        const int rows = out.expert_offset[group + 1];
        out.expert_offset[group + 1] += out.expert_offset[group];
        for (int row = 0; row < rows; row += expert_tile_rows)
            out.tiles.push_back({.group = group,
                                 .row_begin = out.expert_offset[group] + row,
                                 .num_rows = std::min(rows - row, expert_tile_rows)});
        out.tile_offset.push_back(int32_t(out.tiles.size()));
    }
    std::vector<int32_t> next = out.expert_offset;
    out.row_token.resize(num_rows);
    out.row_gate.resize(num_rows);
    out.token_row.resize(num_rows);
    for (std::size_t pair = 0; pair < num_rows; ++pair) {
        const int32_t row = next[group_of(pair)]++;
        out.token_row[pair] = row;
        out.row_token[row] = int32_t(int64_t(pair) / k);
        out.row_gate[row] = gate[pair];
    }
    return out;
}

}  // namespace headway::kernels
