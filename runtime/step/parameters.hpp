// The parameters of a rank in one flat array, in elements: masters, copies that are read, gradients
// and moments all lie alike, on the CPU and on a GPU, so that they are compared, reduced and
// updated as ranges. A section is what comes before the layers, a layer, or what comes after; in
// it, first what all ranks hold alike, then what is the rank's own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/step/step_setup.hpp"

namespace headway::runtime {

struct WeightTensor {
    std::string name;
    std::int64_t place = 0, rows = 0, columns = 0;
    bool is_fp32 = false;  // read as its master is; else rounded to the model's type
    double sigma = 0.0;    // of its draw; 0: ones
    // Drawn part by part (experts, heads), so that any number of ranks holds the same model.
    std::vector<std::uint64_t> seeds;

    std::int64_t count() const { return rows * columns; }
    std::int64_t part() const { return count() / static_cast<std::int64_t>(seeds.size()); }
};

struct Section {
    std::int64_t begin = 0, own = 0, end = 0;  // [begin, own): on all ranks
    std::vector<WeightTensor> tensors;

    const WeightTensor& operator[](std::string_view name) const;
};

struct StepParameters {
    std::vector<Section> sections;  // before, layers, after

    const Section& before() const { return sections.front(); }
    const Section& layer(int l) const { return sections[static_cast<std::size_t>(l) + 1]; }
    const Section& after() const { return sections.back(); }
    std::int64_t total() const { return sections.back().end; }
};

// Layouts are those of the CUDA kernels: Wqkv [(H + 2 K) w, d], Wo [d, H w]; EP: router [E, d], w1
// [E, f, d], w2 [E, d, f]; HP: project [H d_h, d], merge [d, H d_h], router [H, E, d_h], w1 [H, E,
// f, d_h], w2 [H, E, f, d_h]; gated: gate and up, 2 f rows; a dense layer is one expert of EP.
StepParameters step_parameters(const StepSetup& setup, int rank);

// As drawn. [total()]
template <class S>
std::vector<S> draw_parameters(const StepParameters& parameters);

}  // namespace headway::runtime
