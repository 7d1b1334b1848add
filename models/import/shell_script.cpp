#include "models/import/shell_script.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <deque>
#include <memory>
#include <utility>

#include "models/import/shell_cursor.hpp"

namespace headway::inline importing {
namespace {

constexpr int kMaxSteps = 20'000;

// NAME=, NAME+= or NAME[i]= at the head of a raw word; `value` is where what follows begins.
struct Assignment {
    std::string name;
    bool appends = false;
    std::size_t value = 0;
};
std::optional<Assignment> assignment(std::string_view text, ShellSpan word) {
    std::size_t i = word.begin;
    while (i < word.end && is_in_name(text[i])) ++i;
    if (i == word.begin || std::isdigit(static_cast<unsigned char>(text[word.begin])) != 0)
        return std::nullopt;
    Assignment found{std::string(text.substr(word.begin, i - word.begin))};
    if (i < word.end && text[i] == '+') {
        found.appends = true;
        ++i;
    }
    if (i >= word.end || text[i] != '=') return std::nullopt;
    found.value = i + 1;
    return found;
}

class Follower;

// What commands write into $(...), as far as they only put text together.
struct Capture {
    Text text;
    bool is_known = true;
    std::string folder = ".";
};

// What a script and the files that it takes in have in common.
struct FollowState {
    explicit FollowState(const ShellSurroundings& around)
        : surroundings(around), variables(around) {}

    const ShellSurroundings& surroundings;
    ShellVariables variables;
    ShellRun result;
    std::map<std::string, std::pair<Follower*, std::size_t>, std::less<>> functions;
    std::deque<std::string> texts;
    std::vector<std::unique_ptr<Follower>> followers;
    Capture* capture = nullptr;
    int steps = 0, captures = 0;
    bool stopped = false;  // by exit
};

class Follower : private ShellCursor {
  public:
    Follower(std::string_view text, const std::string& file, int number, FollowState& state)
        : ShellCursor(text, file, number,
                      [this](const HereDocument& document, ShellSpan body) {
                          add_document(document, body);
                      }),
          state_(state),
          variables_(state.variables),
          result_(state.result) {
        source_.output_of = [this](ShellSpan commands) { return captured(commands); };
    }

    void run(int depth) { list({}, true, depth); }
    using ShellCursor::directives;

  private:
    // A here-document that would be fed to a command.
    void add_document(const HereDocument& document, ShellSpan body) {
        if (!document.is_live || state_.stopped) return;
        add_lines(document.is_quoted ? text_of(body)
                                     : expand_text(source_, body, variables_, true));
    }

    Text text_of(ShellSpan span) const {
        Text text;
        for (std::size_t i = span.begin; i < span.end; ++i) text.add(text_[i], source_.at(i));
        return text;
    }

    // Each line of a here-document, or of a string that a shell runs, is a command.
    void add_lines(const Text& body) {
        std::size_t begin = 0;
        for (std::size_t i = 0; i <= body.chars.size(); ++i) {
            const bool is_end = i == body.chars.size();
            const bool continues = !is_end && i > 0 && body.chars[i - 1] == '\\';
            if (!is_end && (body.chars[i] != '\n' || continues)) continue;
            std::vector<Text> words = split_command(body.part(begin, i));
            if (!words.empty()) result_.commands.push_back({std::move(words), {}});
            begin = i + 1;
        }
    }

    // ---- Lists of commands

    static bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
        return std::find(words.begin(), words.end(), word) != words.end();
    }

    // Up to one of the words that end it, which is left in place.
    Tri list(std::initializer_list<std::string_view> ends, bool live, int depth) {
        Tri status = Tri::yes;
        while (true) {
            skip_separators();
            if (at_end()) return status;
            const std::string_view word = peek_word();
            if (is_one_of(word, ends) || (is_one_of(")", ends) && peek() == ')') ||
                (is_one_of(";;", ends) && looking_at(";;")))
                return status;
            const std::size_t before = pos_;
            status = and_or(live, depth);
            if (peek() == '&' && peek(1) != '&') ++pos_;
            if (pos_ == before) source_.fail(pos_, "text that begins no command");
        }
    }

    Tri and_or(bool live, int depth) {
        Tri status = pipeline(live, depth);
        while (true) {
            skip_blanks();
            const bool is_and = looking_at("&&"), is_or = looking_at("||");
            if (!is_and && !is_or) return status;
            pos_ += 2;
            skip_separators();
            const bool runs = is_and ? status != Tri::no : status == Tri::no;
            const Tri right = pipeline(live && runs, depth);
            if (runs) status = right;
        }
    }

    Tri pipeline(bool live, int depth) {
        const bool is_negated = take_word("!");
        Tri status = command(live && !state_.stopped, depth);
        while (true) {
            skip_blanks();
            if (peek() != '|' || peek(1) == '|') break;
            pos_ += peek(1) == '&' ? 2 : 1;
            skip_separators();
            status = command(live && !state_.stopped, depth);
        }
        if (!is_negated || status == Tri::unknown) return status;
        return status == Tri::yes ? Tri::no : Tri::yes;
    }

    // ---- Compound commands

    Tri command(bool live, int depth) {
        if (depth > kMaxNesting) source_.fail(pos_, "commands nested too deeply");
        if (live && ++state_.steps > kMaxSteps) source_.fail(pos_, "a script of too many steps");
        skip_blanks();
        const std::size_t begun = pos_;
        if (looking_at("((")) return arithmetic_command(live);
        if (peek() == '(') {
            ++pos_;
            const Tri status = list({")"}, live, depth + 1);
            if (peek() != ')') source_.fail(begun, "a bracket that is not closed");
            ++pos_;
            return redirections(live, status);
        }
        if (take_word("if")) return redirections(live, if_command(live, depth, begun));
        if (take_word("case")) return redirections(live, case_command(live, depth, begun));
        if (take_word("for")) return redirections(live, for_command(live, depth, begun));
        if (take_word("while") || take_word("until"))
            return redirections(live, loop(live, depth, begun));
        if (take_word("[[")) return double_bracket(live, begun);
        if (take_word("{")) {
            const Tri status = list({"}"}, live, depth + 1);
            expect_word("}", begun);
            return redirections(live, status);
        }
        if (take_word("function")) return function(raw(raw_word()), live, depth);
        const std::string_view word = peek_word();
        std::size_t after = pos_ + word.size();
        while (after < text_.size() && is_blank(text_[after])) ++after;
        if (!word.empty() && word.find_first_of("=$\"'") == word.npos &&
            text_.substr(after, 2) == "()") {
            pos_ = after;
            return function(word, live, depth);
        }
        return simple_command(live, depth);
    }

    // Redirections behind `fi`, `done` or `}`.
    Tri redirections(bool live, Tri status) {
        skip_blanks();
        while (redirection(live)) skip_blanks();
        return status;
    }

    Tri if_command(bool live, int depth, std::size_t begun) {
        bool is_decided = false;
        Tri status = Tri::yes;
        while (true) {
            const Tri condition = list({"then"}, live && !is_decided, depth + 1);
            expect_word("then", begun);
            const bool taken = !is_decided && condition == Tri::yes;
            const Tri body = list({"elif", "else", "fi"}, live && taken, depth + 1);
            if (taken) status = body;
            is_decided = is_decided || taken;
            if (!take_word("elif")) break;
        }
        if (take_word("else")) {
            const Tri body = list({"fi"}, live && !is_decided, depth + 1);
            if (!is_decided) status = body;
        }
        expect_word("fi", begun);
        return status;
    }

    Tri case_command(bool live, int depth, std::size_t begun) {
        const ShellSpan subject = raw_word();
        const Text text = live ? expand_text(source_, subject, variables_) : Text{};
        const auto open = first_gap(text.chars);
        if (live && open) undecided(source_.at(begun), "case", {*open});
        expect_word("in", begun);
        bool is_taken = open.has_value();
        while (true) {
            skip_separators();
            if (take_word("esac")) return Tri::yes;
            if (at_end()) source_.fail(begun, "a command that 'esac' does not end");
            if (peek() == '(') ++pos_;
            bool matches = false;
            do {
                const Text pattern = expand_text(source_, raw_word(), variables_);
                matches = matches || matches_pattern(text.chars, pattern.chars);
                skip_blanks();
            } while (peek() == '|' && ++pos_ > 0);
            if (peek() != ')') source_.fail(pos_, "a pattern of 'case' without ')'");
            ++pos_;
            list({";;", "esac"}, live && matches && !is_taken, depth + 1);
            is_taken = is_taken || matches;
            if (looking_at(";;")) pos_ += 2;
        }
    }

    Tri for_command(bool live, int depth, std::size_t begun) {
        skip_blanks();
        std::string name;
        std::vector<Text> values;
        if (looking_at("((")) return counting_loop(live, depth, begun);
        bool is_open = false;
        {
            name = raw(raw_word());
            skip_separators();
            if (take_word("in")) {
                skip_blanks();
                while (!at_end() && peek() != ';' && peek() != '\n') {
                    const ShellSpan word = raw_word();
                    if (word.begin == word.end) source_.fail(pos_, "text that is no word");
                    if (!live) continue;
                    for (Text& text : expand_words(source_, word, variables_)) {
                        is_open = is_open || first_gap(text.chars).has_value();
                        values.push_back(std::move(text));
                    }
                    skip_blanks();
                }
            }
        }
        expect_word("do", begun);
        const std::size_t body = pos_;
        if (live && is_open) note(source_.at(begun), "a loop over what is not known: not followed");
        if (!live || is_open || values.empty()) list({"done"}, false, depth + 1);
        for (const Text& value : values) {
            if (!live || is_open) break;
            pos_ = body;
            variables_.set(name, {{value}});
            list({"done"}, true, depth + 1);
        }
        expect_word("done", begun);
        return Tri::yes;
    }

    // for ((i = 0; i < n; i++))
    Tri counting_loop(bool live, int depth, std::size_t begun) {
        const std::size_t head = pos_;
        arithmetic_command(false);
        const std::size_t end = std::max(pos_, head + 4) - 2;
        std::vector<ShellSpan> parts = {{head + 2, end}};
        for (std::size_t i = head + 2; i < end; ++i) {
            if (text_[i] != ';') continue;
            parts.back().end = i;
            parts.push_back({i + 1, end});
        }
        skip_separators();
        expect_word("do", begun);
        const std::size_t body = pos_;
        bool is_followed =
            live && parts.size() == 3 &&
            assign_arithmetic(expand_text(source_, parts[0], variables_, true), variables_);
        while (is_followed) {
            const Text value =
                evaluate_arithmetic(expand_text(source_, parts[1], variables_, true), variables_);
            if (value.chars == "0") break;
            if (++state_.steps > kMaxSteps) source_.fail(begun, "a script of too many steps");
            pos_ = body;
            if (!first_gap(value.chars)) list({"done"}, true, depth + 1);
            is_followed =
                !first_gap(value.chars) &&
                assign_arithmetic(expand_text(source_, parts[2], variables_, true), variables_);
        }
        if (live && !is_followed)
            note(source_.at(begun), "a loop over what is not known: not followed");
        pos_ = body;
        list({"done"}, false, depth + 1);
        expect_word("done", begun);
        return Tri::yes;
    }

    Tri loop(bool live, int depth, std::size_t begun) {
        if (live) note(source_.at(begun), "a loop: not followed");
        list({"do"}, false, depth + 1);
        expect_word("do", begun);
        list({"done"}, false, depth + 1);
        expect_word("done", begun);
        return Tri::yes;
    }

    Tri arithmetic_command(bool live) {
        const std::size_t begun = pos_;
        int level = 0;
        do {
            if (at_end()) source_.fail(begun, "a bracket that is not closed");
            if (peek() == '(') ++level;
            if (peek() == ')') --level;
            ++pos_;
        } while (level > 0);
        if (!live || pos_ < begun + 4) return Tri::yes;
        if (assign_arithmetic(expand_text(source_, {begun + 2, pos_ - 2}, variables_, true),
                              variables_))
            return Tri::yes;
        const Text value = evaluate_arithmetic(
            expand_text(source_, {begun + 2, pos_ - 2}, variables_, true), variables_);
        const auto open = first_gap(value.chars);
        if (open) return undecided(source_.at(begun), "((", {*open});
        return value.chars == "0" ? Tri::no : Tri::yes;
    }

    Tri double_bracket(bool live, std::size_t begun) {
        std::vector<Text> words;
        while (true) {
            skip_separators();
            if (at_end()) source_.fail(begun, "'[[' without ']]'");
            if (take_word("]]")) break;
            const Position at = source_.at(pos_);
            const std::string_view operators = "&|<>()";
            if (operators.find(peek()) != std::string_view::npos) {
                const std::size_t length = looking_at("&&") || looking_at("||") ? 2 : 1;
                words.push_back(text_at(text_.substr(pos_, length), at));
                pos_ += length;
                continue;
            }
            const ShellSpan word = raw_word();
            if (word.begin == word.end) source_.fail(pos_, "text that is no word");
            if (live) words.push_back(expand_text(source_, word, variables_));
        }
        return live ? test(words, source_.at(begun)) : Tri::yes;
    }

    Tri function(std::string_view name, bool live, int depth) {
        skip_blanks();
        if (looking_at("()")) pos_ += 2;
        skip_separators();
        if (live) state_.functions[std::string(name)] = {this, pos_};
        command(false, depth + 1);
        return Tri::yes;
    }

    Tri call(std::size_t body, std::vector<Text> words, int depth) {
        const std::size_t back = pos_;
        std::vector<std::string> own;
        for (std::size_t i = 1; i < words.size(); ++i) own.push_back(words[i].chars);
        std::swap(own, variables_.arguments);
        pos_ = body;
        const Tri status = command(true, depth + 1);
        std::swap(own, variables_.arguments);
        pos_ = back;
        return status;
    }

    // ---- Simple commands

    bool redirection(bool live) {
        std::size_t i = pos_;
        while (i < text_.size() && std::isdigit(static_cast<unsigned char>(text_[i])) != 0) ++i;
        if (text_.substr(i, 2) == "&>") ++i;
        if (i >= text_.size() || (text_[i] != '<' && text_[i] != '>')) return false;
        const std::string_view rest = text_.substr(i);
        if (rest.starts_with("<<<")) {
            pos_ = i + 3;
            raw_word();
        } else if (rest.starts_with("<<")) {
            pos_ = i + (rest.starts_with("<<-") ? 3 : 2);
            std::string word(raw(raw_word()));
            const bool is_quoted = word.find_first_of("'\"\\") != std::string::npos;
            std::erase_if(word, [](char c) { return c == '\'' || c == '"' || c == '\\'; });
            expect_document({word, is_quoted, live});
        } else {
            pos_ = i + 1;
            while (peek() == '>' || peek() == '&' || peek() == '|') ++pos_;
            if (peek() == '(') {  // a process whose output or input stands for a file
                pos_ = source_.end_of_dollar(pos_ - 1);
            } else {
                raw_word();
            }
        }
        return true;
    }

    std::vector<Text> array_items(bool live, std::size_t begun) {
        std::vector<Text> items;
        ++pos_;
        while (true) {
            skip_blanks();
            if (at_end()) source_.fail(begun, "an array that is not closed");
            if (peek() == ')') break;
            if (peek() == '\n') {
                newline();
                continue;
            }
            const ShellSpan word = raw_word();
            if (word.begin == word.end) source_.fail(pos_, "text that is no word in an array");
            if (!live) continue;
            for (Text& text : expand_words(source_, word, variables_))
                items.push_back(std::move(text));
        }
        ++pos_;
        return items;
    }

    // The raw word is NAME=...; its value is read, also when it is an array.
    void assign(const Assignment& to, ShellSpan word, bool live) {
        ShellVariable value;
        if (to.value == word.end && peek() == '(' && pos_ == word.end) {
            value = {array_items(live, word.begin), true};
        } else if (live) {
            value.items = {expand_text(source_, {to.value, word.end}, variables_)};
        }
        if (!live) return;
        const ShellVariable* old = to.appends ? variables_.find(to.name) : nullptr;
        if (old != nullptr) {
            ShellVariable sum = *old;
            if (value.is_array) {
                sum.is_array = true;
                for (Text& item : value.items) sum.items.push_back(std::move(item));
            } else if (sum.items.empty()) {
                sum.items = value.items;
            } else {
                sum.items.front().add(value.items.front());
            }
            value = std::move(sum);
        }
        check_size(value, word.begin);
        variables_.set(to.name, std::move(value));
    }

    void check_size(const ShellVariable& value, std::size_t at) const {
        std::size_t size = 0;
        for (const Text& item : value.items) size += item.chars.size() + 1;
        if (size > kMaxText) source_.fail(at, "a variable that grows beyond a mebibyte");
    }

    Tri simple_command(bool live, int depth) {
        std::vector<Text> words;
        std::map<std::string, std::string, std::less<>> environment;
        std::vector<std::pair<Assignment, ShellSpan>> first;
        const std::size_t begun = pos_;
        bool declares = false;
        while (true) {
            skip_blanks();
            if (at_end() || std::string_view("\n;&|()").find(peek()) != std::string_view::npos) {
                if (!looking_at("&>")) break;
            }
            if (redirection(live)) continue;
            const ShellSpan word = raw_word();
            if (word.begin == word.end) source_.fail(pos_, "text that begins no command");
            const auto assigned = assignment(text_, word);
            const bool is_array = assigned && assigned->value == word.end && peek() == '(';
            if (assigned && (declares || is_array)) {
                assign(*assigned, word, live);
            } else if (assigned && words.empty()) {
                first.emplace_back(*assigned, word);
            } else if (live) {
                for (Text& text : expand_words(source_, word, variables_))
                    words.push_back(std::move(text));
                declares = !words.empty() &&
                           is_one_of(words.front().chars,
                                     {"export", "declare", "local", "readonly", "typeset"});
            } else {
                declares = declares || is_one_of(raw(word), {"export", "declare", "local",
                                                             "readonly", "typeset"});
                if (words.empty()) words.emplace_back();
            }
        }
        if (words.empty()) {
            for (const auto& [to, word] : first) assign(to, word, live);
            return Tri::yes;
        }
        if (!live) return Tri::yes;
        for (const auto& [to, word] : first)
            environment[to.name] = expand_text(source_, {to.value, word.end}, variables_).chars;
        return run_words(std::move(words), std::move(environment), begun, depth);
    }

    Tri run_words(std::vector<Text> words,
                  std::map<std::string, std::string, std::less<>> environment, std::size_t begun,
                  int depth) {
        const std::string name = words.front().chars;
        if (const auto found = state_.functions.find(name); found != state_.functions.end())
            return found->second.first->call(found->second.second, std::move(words), depth);
        if (name == "[" || name == "test") {
            words.erase(words.begin());
            if (name == "[" && !words.empty() && words.back().chars == "]") words.pop_back();
            return test(words, source_.at(begun));
        }
        if (name == "exit") {
            state_.stopped = true;
            return Tri::yes;
        }
        if (name == "source" || name == ".") return take_in(words, source_.at(begun), depth);
        if (name == "shift") {
            auto& arguments = variables_.arguments;
            if (!arguments.empty()) arguments.erase(arguments.begin());
            return Tri::yes;
        }
        if (name == "unset") {
            for (std::size_t i = 1; i < words.size(); ++i) variables_.unset(words[i].chars);
            return Tri::yes;
        }
        if (name == "false") return Tri::no;
        if (is_one_of(name, {"export", "declare", "local", "readonly", "typeset", "true", ":"}))
            return Tri::yes;
        if (write_text(words)) return Tri::yes;
        if (state_.capture != nullptr) state_.capture->is_known = false;
        if (state_.capture != nullptr) return Tri::unknown;
        // eval "...", bash -c "...": the string is a command itself.
        for (std::size_t i = 1; i < words.size(); ++i) {
            if (words[i].chars.find(" --") != std::string::npos ||
                words[i].chars.find("\n") != std::string::npos)
                add_lines(words[i]);
        }
        result_.commands.push_back({std::move(words), std::move(environment)});
        return Tri::yes;
    }

    // source FILE: the file is read as if its lines stood here.
    Tri take_in(const std::vector<Text>& words, Position at, int depth) {
        constexpr std::size_t most = 30;
        const std::string path = words.size() > 1 ? words[1].chars : "";
        const auto& beside = state_.surroundings.file_beside;
        std::optional<std::string> text;
        if (beside && !path.empty() && !first_gap(path) && state_.texts.size() < most)
            text = beside(path);
        if (!text) {
            note(at, fmt::format("{} {}: not followed; --set gives its variables",
                                 words.front().chars, shown(path)));
            return Tri::yes;
        }
        const std::string_view kept = state_.texts.emplace_back(std::move(*text));
        result_.sources.push_back(path);
        Follower& follower = *state_.followers.emplace_back(std::make_unique<Follower>(
            kept, path, static_cast<int>(result_.sources.size()), state_));
        const std::string back = std::exchange(variables_.script, path);
        follower.run(depth + 1);
        variables_.script = back;
        return Tri::yes;
    }

    // The text that `$(commands)` stands for; nothing where that takes more than putting text
    // together. A subshell: its variables are its own.
    std::optional<Text> captured(ShellSpan commands) {
        constexpr int most = 60;  // each keeps the variables
        if (++state_.captures > most || state_.stopped) return std::nullopt;
        Capture capture;
        Capture* const outer = std::exchange(state_.capture, &capture);
        const std::size_t back = std::exchange(pos_, commands.begin);
        const std::size_t notes = result_.notes.size(), run = result_.commands.size();
        ShellVariables kept = variables_;
        list({")"}, true, kMaxNesting / 2);
        const bool is_known = capture.is_known && !state_.stopped && pos_ == commands.end &&
                              result_.commands.size() == run && result_.notes.size() == notes;
        variables_ = std::move(kept);
        state_.capture = outer;
        state_.stopped = false;
        pos_ = back;
        result_.commands.resize(run);
        result_.notes.resize(notes);
        while (capture.text.chars.ends_with('\n')) {
            capture.text.chars.pop_back();
            capture.text.at.pop_back();
        }
        return is_known ? std::optional(std::move(capture.text)) : std::nullopt;
    }

    // Commands that only put text together; true where `words` is one.
    bool write_text(const std::vector<Text>& words) {
        const std::string& name = words.front().chars;
        std::vector<Text> values(words.begin() + 1, words.end());
        const bool prints = name == "printf";
        if (prints && values.size() > 2 && values[0].chars == "-v") {
            variables_.set(values[1].chars,
                           {{formatted(values[2], {values.begin() + 3, values.end()})}});
            return true;
        }
        Capture* const capture = state_.capture;
        if (capture == nullptr) return prints || name == "echo";
        if (!is_one_of(name, {"echo", "printf", "pwd", "cd", "dirname", "basename", "realpath",
                              "readlink"}))
            return false;
        std::erase_if(values, [](const Text& one) { return one.chars.starts_with('-'); });
        const Text none = text_at("", words.front().where());
        const Text first = values.empty() ? none : values.front();
        if (prints || name == "echo") {
            for (const Text& one : values) {
                if (&one != &values.front() && !prints) capture->text.add(' ', one.where());
                if (!prints) capture->text.add(one);
            }
            if (prints)
                capture->text.add(
                    formatted(first, {values.begin() + (values.empty() ? 0 : 1), values.end()}));
        } else if (name == "cd") {
            capture->folder = first.chars;
        } else if (name == "pwd") {
            capture->text.add(capture->folder, words.front().where());
        } else {
            const std::string path = name == "dirname"    ? folder_of(first.chars)
                                     : name == "basename" ? name_of(first.chars)
                                                          : first.chars;
            capture->text.add(path, words.front().where());
        }
        // A path that is not known whole names no file.
        if (!prints && name != "echo" && first_gap(first.chars)) capture->is_known = false;
        return true;
    }

    Tri test(const std::vector<Text>& words, Position at) {
        std::vector<std::string> opens;
        const Tri value = evaluate_test(words, opens);
        if (value != Tri::unknown) return value;
        std::string text;
        for (const Text& word : words) text += (text.empty() ? "" : " ") + shown(word.chars);
        return undecided(at, "[ " + text + " ]", opens);
    }

    Tri undecided(Position at, const std::string& what, const std::vector<std::string>& opens) {
        std::string why;
        for (const std::string& open : opens) why += (why.empty() ? "" : ", ") + open;
        note(at, fmt::format("condition {} not decided{}: taken as false", what,
                             why.empty() ? "" : ", as " + why + " is not known here"));
        return Tri::unknown;
    }

    void note(Position at, std::string text) {
        constexpr std::size_t max_notes = 200;
        if (result_.notes.size() < max_notes) result_.notes.push_back({at, std::move(text)});
    }

    FollowState& state_;
    ShellVariables& variables_;
    ShellRun& result_;
};

}  // namespace

ShellRun follow_script(std::string_view text, const std::string& file,
                       const ShellSurroundings& surroundings) {
    FollowState state(surroundings);
    Follower script(text, file, 0, state);
    script.run(0);
    state.result.variables = state.variables.all();
    state.result.read = state.variables.read();
    state.result.directives = script.directives();
    return std::move(state.result);
}

}  // namespace headway::inline importing
