// Megatron's layer frequencies are Python expressions over lists: sums, and products with a number.
#include <cctype>

#include "models/import/dialects.hpp"

namespace headway::inline importing {
namespace {

constexpr std::size_t kMaxItems = 10'000;

// A list, or a number where there are no items.
struct Value {
    bool is_list = false;
    int number = 0;
    std::vector<int> items;
};

class Pattern {
  public:
    explicit Pattern(std::string_view text) : text_(text) {}

    std::optional<std::vector<int>> whole() {
        std::optional<Value> value = sum(0);
        skip_blanks();
        if (!value || !value->is_list || at_ < text_.size()) return std::nullopt;
        return value->items;
    }

  private:
    void skip_blanks() {
        while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0)
            ++at_;
    }
    bool take(char c) {
        skip_blanks();
        if (at_ >= text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }

    std::optional<Value> sum(int depth) {
        std::optional<Value> left = product(depth);
        while (left && take('+')) {
            const std::optional<Value> right = product(depth);
            if (!right || left->is_list != right->is_list) return std::nullopt;
            if (left->is_list)
                left->items.insert(left->items.end(), right->items.begin(), right->items.end());
            else if (__builtin_add_overflow(left->number, right->number, &left->number))
                return std::nullopt;
            if (left->items.size() > kMaxItems) return std::nullopt;
        }
        return left;
    }

    std::optional<Value> product(int depth) {
        std::optional<Value> left = operand(depth);
        while (left && take('*')) {
            std::optional<Value> right = operand(depth);
            if (!right || (left->is_list && right->is_list)) return std::nullopt;
            if (right->is_list) std::swap(*left, *right);
            if (!left->is_list) {
                if (__builtin_mul_overflow(left->number, right->number, &left->number))
                    return std::nullopt;
                continue;
            }
            const int times = right->number < 0 ? 0 : right->number;
            if (left->items.size() * static_cast<std::size_t>(times) > kMaxItems)
                return std::nullopt;
            const std::vector<int> once = std::move(left->items);
            left->items.clear();
            for (int i = 0; i < times; ++i)
                left->items.insert(left->items.end(), once.begin(), once.end());
        }
        return left;
    }

    std::optional<Value> operand(int depth) {
        constexpr int max_depth = 50;
        if (depth > max_depth) return std::nullopt;
        if (take('(')) {
            std::optional<Value> value = sum(depth + 1);
            if (!take(')')) return std::nullopt;
            return value;
        }
        if (take('[')) {
            Value list{.is_list = true};
            while (!take(']')) {
                const std::optional<Value> item = sum(depth + 1);
                if (!item || item->is_list || list.items.size() >= kMaxItems) return std::nullopt;
                list.items.push_back(item->number);
                if (!take(',') && (at_ >= text_.size() || text_[at_] != ']')) return std::nullopt;
            }
            return list;
        }
        skip_blanks();
        Value value;
        const std::size_t begin = at_;
        while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])) != 0) {
            if (at_ - begin > 5) return std::nullopt;
            value.number = value.number * 10 + (text_[at_++] - '0');
        }
        if (at_ == begin) return std::nullopt;
        return value;
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

}  // namespace

std::optional<std::vector<int>> layer_pattern(std::string_view expression) {
    return Pattern(expression).whole();
}

}  // namespace headway::inline importing
