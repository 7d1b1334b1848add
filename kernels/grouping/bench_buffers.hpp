// Owned device memory of one grouping, for benchmarks and the layer's checks.
#pragma once
#include "kernels/bench/device.hpp"
#include "kernels/grouping/grouping.hpp"

namespace headway::kernels::bench {

struct GroupingBuffers {
    DeviceBuffer<int32_t> counts, row_token, token_row, expert_offset, tile_offset, num_tiles;
    DeviceBuffer<float> row_gate;
    DeviceBuffer<TileDescriptor> tiles;

    explicit GroupingBuffers(const GroupingShape& shape)
        : counts(std::size_t(shape.num_counts())),
          row_token(std::size_t(shape.num_rows())),
          token_row(std::size_t(shape.num_rows())),
          expert_offset(std::size_t(shape.num_groups()) + 1),
          tile_offset(std::size_t(shape.num_groups()) + 1),
          num_tiles(1),
          row_gate(std::size_t(shape.num_rows())),
          tiles(std::size_t(shape.max_tiles())) {}

    [[nodiscard]] GroupingOutput output() const {
        return {row_token.get(),   row_gate.get(), token_row.get(), expert_offset.get(),
                tile_offset.get(), tiles.get(),    num_tiles.get()};
    }
    void poison() {
        counts.poison();
        row_token.poison();
        token_row.poison();
        expert_offset.poison();
        tile_offset.poison();
        num_tiles.poison();
        row_gate.poison();
        tiles.poison();
    }
};

}  // namespace headway::kernels::bench
