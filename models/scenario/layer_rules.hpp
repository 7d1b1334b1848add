// From a flag a layer to the keys that say the same of all layers.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

namespace headway::inline scenario {

struct WindowRule {
    std::string_view key;  // window_every or full_every; empty: on every layer
    int every = 0;
};

// layer % n == 0 has the window (window_every), or all have it but (layer + 1) % n == 0.
std::optional<WindowRule> window_rule(const std::vector<bool>& windowed);

// num_dense_layers and moe_every that give these layers.
std::optional<std::array<int, 2>> moe_rule(const std::vector<bool>& is_moe);

}  // namespace headway::inline scenario
