// An axis of a sweep, ready to be applied: the key or derived axis it changes, and its values,
// parsed by the rule of that key. A sweep is the product of its axes over an open scenario (see
// read_open_scenario); the last axis changes fastest.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "models/scenario/derived_axis.hpp"
#include "models/scenario/key_path.hpp"
#include "models/scenario/read_scenario.hpp"

namespace headway::inline scenario {

struct AxisValue {
    std::string text;  // as in results
    // A part is a pointer, so that a million numbers stay small.
    std::variant<ScalarValue, std::shared_ptr<const ModelSpec>, std::shared_ptr<const Cluster>,
                 std::shared_ptr<const Profile>>
        value;
};

struct Axis {
    std::string name;
    std::variant<KeyPath, DerivedAxis> target;
    std::vector<AxisValue> values;
};

// InputError when there is no such key, or a value is none of it. A model, cluster or profile is
// named by its preset, or by a file relative to the working directory.
Axis make_axis(const Scenario& open, const SweepAxis& axis, const ReadOptions& options);
// The axes of `open` as far as they can be checked without reading files; paths "sweep[i].axis".
std::vector<InputProblem> check_sweep(const Scenario& open);

struct Sweep {
    Scenario base;  // open
    std::vector<Axis> axes;
};

// At most 1e9, else InputError.
std::size_t num_points(const Sweep& sweep);
// Index of each axis' value at a point.
std::vector<std::size_t> value_indices(const Sweep& sweep, std::size_t point);
// Makes `scenario`, which must come from an earlier call or be a copy of the base, the resolved
// scenario of this point. What is wrong with it is returned, with paths of keys.
std::vector<InputProblem> set_point(const Sweep& sweep, std::size_t point, Scenario& scenario);

}  // namespace headway::inline scenario
