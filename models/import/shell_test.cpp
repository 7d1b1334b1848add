#include <charconv>
#include <cstdint>
#include <optional>

#include "models/import/shell_script.hpp"

namespace headway::inline importing {
namespace {

Tri negate(Tri value) {
    return value == Tri::unknown ? value : value == Tri::yes ? Tri::no : Tri::yes;
}

Tri of(bool value) {
    return value ? Tri::yes : Tri::no;
}

std::optional<std::int64_t> number_of(const std::string& text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

class Test {
  public:
    Test(const std::vector<Text>& words, std::vector<std::string>& opens)
        : words_(words), opens_(opens) {}

    Tri whole() {
        if (words_.empty()) return Tri::no;
        const Tri value = any(0);
        return at_ == words_.size() ? value : Tri::unknown;
    }

  private:
    const std::string& word(std::size_t ahead = 0) const {
        static const std::string none;
        return at_ + ahead < words_.size() ? words_[at_ + ahead].chars : none;
    }

    Tri any(int depth) {
        Tri left = all(depth);
        while (word() == "-o" || word() == "||") {
            ++at_;
            const Tri right = all(depth);
            left = left == Tri::yes || right == Tri::yes           ? Tri::yes
                   : left == Tri::unknown || right == Tri::unknown ? Tri::unknown
                                                                   : Tri::no;
        }
        return left;
    }

    Tri all(int depth) {
        Tri left = one(depth);
        while (word() == "-a" || word() == "&&") {
            ++at_;
            const Tri right = one(depth);
            left = left == Tri::no || right == Tri::no             ? Tri::no
                   : left == Tri::unknown || right == Tri::unknown ? Tri::unknown
                                                                   : Tri::yes;
        }
        return left;
    }

    Tri one(int depth) {
        constexpr int max_depth = 50;
        if (depth > max_depth || at_ >= words_.size()) return Tri::unknown;
        if (word() == "!") {
            ++at_;
            return negate(one(depth + 1));
        }
        if (word() == "(") {
            ++at_;
            const Tri value = any(depth + 1);
            if (word() == ")") ++at_;
            return value;
        }
        const bool is_binary = at_ + 2 < words_.size() && is_comparison(word(1));
        if (is_binary) {
            const Tri value = compare(word(), word(1), word(2));
            at_ += 3;
            return value;
        }
        if (word().size() == 2 && word()[0] == '-' && at_ + 1 < words_.size()) {
            const Tri value = unary(word()[1], word(1));
            at_ += 2;
            return value;
        }
        const std::string text = word();
        ++at_;
        return unary('n', text);
    }

    static bool is_comparison(const std::string& text) {
        for (const char* known :
             {"=", "==", "!=", "=~", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"}) {
            if (text == known) return true;
        }
        return false;
    }

    Tri open(const std::string& text) {
        if (const auto name = first_gap(text)) opens_.push_back(*name);
        return Tri::unknown;
    }

    Tri unary(char kind, const std::string& text) {
        if (kind == 'n' || kind == 'z') {
            // A variable that nobody sets is empty here, and open to everything else.
            const bool is_empty = text.empty() || is_one_gap(text);
            return of(is_empty == (kind == 'z'));
        }
        return of(std::string_view("defhrswxL").find(kind) != std::string_view::npos);
    }

    Tri compare(const std::string& a, const std::string& by, const std::string& b) {
        if (first_gap(a)) return open(a);
        if (first_gap(b)) return open(b);
        if (by == "=" || by == "==") return of(matches_pattern(a, b));
        if (by == "!=") return of(!matches_pattern(a, b));
        const auto x = number_of(a), y = number_of(b);
        if (by == "=~" || !x || !y) return Tri::unknown;
        if (by == "-eq") return of(*x == *y);
        if (by == "-ne") return of(*x != *y);
        if (by == "-lt" || by == "<") return of(*x < *y);
        if (by == "-le") return of(*x <= *y);
        return of(by == "-ge" ? *x >= *y : *x > *y);
    }

    const std::vector<Text>& words_;
    std::vector<std::string>& opens_;
    std::size_t at_ = 0;
};

}  // namespace

Tri evaluate_test(const std::vector<Text>& words, std::vector<std::string>& opens) {
    return Test(words, opens).whole();
}

}  // namespace headway::inline importing
