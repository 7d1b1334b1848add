#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <sstream>
#include <stdexcept>

#include "kernels/bench/registry.hpp"

namespace headway::kernels::bench {

std::string text_of(const char* format, ...) {
    char text[512] = {};
    std::va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return text;
}

std::vector<Shape> hp_shapes() {
    return {{"A", 2, 128, 128, 256, 65536, 4},
            {"B", 8, 128, 128, 256, 32768, 4},
            {"C", 4, 256, 128, 512, 32768, 4},
            {"D", 8, 64, 256, 128, 32768, 8}};
}

std::vector<Shape> small_shapes() {
    return {{"s1", 2, 64, 16, 64, 300, 3},
            {"s2", 1, 128, 40, 128, 257, 1},
            {"s3", 3, 256, 8, 128, 129, 8}};
}

namespace {

int parse_positive(const std::string& key, const std::string& text) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value <= 0)
        throw std::invalid_argument("shape: " + key + "=" + text + " is not a positive integer");
    return value;
}

}  // namespace

Shape parse_shape(const std::string& text, const std::vector<Shape>& known) {
    for (const Shape& shape : known)
        if (shape.name == text) return shape;
    Shape shape;
    shape.name = text;
    for (char& c : shape.name)
        if (c == ',') c = '/';
    const std::map<std::string, int Shape::*> fields = {
        {"H", &Shape::num_heads},  {"d", &Shape::head_dim},   {"E", &Shape::num_experts},
        {"f", &Shape::expert_dim}, {"T", &Shape::num_tokens}, {"k", &Shape::top_k}};
    std::stringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
        const auto equals = part.find('=');
        const auto field = fields.find(part.substr(0, equals));
        if (equals == std::string::npos || field == fields.end()) {
            std::string names;
            for (const Shape& candidate : known) names += candidate.name + ", ";
            throw std::invalid_argument("shape: '" + text + "': accepted are " + names +
                                        "or H=..,d=..,E=..,f=..,T=..,k=..");
        }
        shape.*(field->second) = parse_positive(field->first, part.substr(equals + 1));
    }
    return shape;
}

}  // namespace headway::kernels::bench
