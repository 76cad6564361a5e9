#include "engine/tokenizer/regex_syntax.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

// Members of a class. PCRE2's own \s holds U+180E, which stopped being a space in Unicode 6.3, and
// its \w lacks marks. Oniguruma's \w has the superscripts and fractions of Latin-1, and no others.
constexpr absl::string_view kSpaces = R"(\t-\r\x{85}\p{Z})";
constexpr absl::string_view kNoSpaces = R"(\S\x{180E})";
constexpr absl::string_view kWords = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\xB2\xB3\xB9\xBC-\xBE)";

class Translator {
 public:
  explicit Translator(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::string> Run() {
    if (source_.size() > kMaxRegexSize) {
      return absl::InvalidArgumentError(
          absl::StrCat("has ", source_.size(), " bytes, at most ", kMaxRegexSize, " are allowed"));
    }
    while (status_.ok() && at_ < source_.size()) Next();
    if (status_.ok() && in_class_) Refuse("a class without end");
    if (!status_.ok()) return status_;
    return std::move(out_);
  }

 private:
  absl::string_view Rest() const { return source_.substr(at_); }

  void Copy(size_t size) {
    absl::StrAppend(&out_, source_.substr(at_, size));
    at_ += size;
  }

  void Refuse(absl::string_view what) {
    status_ = absl::InvalidArgumentError(absl::StrCat(what, " at byte ", at_, " is not supported"));
  }

  void Next() {
    switch (source_[at_]) {
      case '\\':
        return Escape();
      case '[':
        return in_class_ ? Refuse("'[' in a class") : OpenClass();
      case ']':
        in_class_ = false;
        return Copy(1);
      case '(':
        return in_class_ ? Copy(1) : Group();
      case '{':
        return in_class_ ? Copy(1) : Interval();
      case '&':
        return in_class_ && absl::StartsWith(Rest(), "&&") ? Refuse("'&&'") : Copy(1);
      default:
        return Copy(1);
    }
  }

  void OpenClass() {
    in_class_ = true;
    Copy(1);
    if (absl::StartsWith(Rest(), "^")) Copy(1);
    if (absl::StartsWith(Rest(), "]")) Refuse("']' as the first of a class");
  }

  void Group() {
    if (absl::StartsWith(Rest(), "(*")) return Refuse("'(*'");
    if (!absl::StartsWith(Rest(), "(?")) return Copy(1);
    // Flags for the rest of a group mean different things, but for the whole expression.
    if (at_ == 0 && absl::StartsWith(Rest(), "(?i)")) return Copy(4);
    for (const absl::string_view opening :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:"}) {
      if (absl::StartsWith(Rest(), opening)) return Copy(opening.size());
    }
    Refuse(absl::StrCat("'", Rest().substr(0, 3), "'"));
  }

  // {n}, {n,} or {n,m}, with ? behind the last two at most.
  void Interval() {
    size_t end = at_ + 1;
    bool comma = false;
    while (end < source_.size() && (absl::ascii_isdigit(source_[end]) || source_[end] == ',')) {
      comma = comma || source_[end] == ',';
      ++end;
    }
    const absl::string_view body = source_.substr(at_ + 1, end - at_ - 1);
    if (end == source_.size() || source_[end] != '}' || body.empty() || body[0] == ',' ||
        std::count(body.begin(), body.end(), ',') > 1) {
      return Refuse("'{' that begins no {n,m}");
    }
    ++end;
    const char behind = end < source_.size() ? source_[end] : '\0';
    if (behind == '+' || (behind == '?' && !comma)) return Refuse("a quantifier of {n,m}");
    Copy(end - at_);
  }

  void Escape() {
    if (at_ + 1 == source_.size()) return Refuse("'\\'");
    const char letter = source_[at_ + 1];
    if (!absl::ascii_isalnum(letter)) return Copy(2);
    switch (letter) {
      case 's':
        return Class(kSpaces, "[", "]");
      case 'S':
        return in_class_ ? Class(kNoSpaces, "", "") : Class(kSpaces, "[^", "]");
      case 'w':
        return Class(kWords, "[", "]");
      case 'W':
        return in_class_ ? Refuse("\\W in a class") : Class(kWords, "[^", "]");
      case 'p':
      case 'P':
        return Property();
      case 'u':
        return CodeUnit();
      case 'x':
        return Hexadecimal();
      case 'd':
      case 'D':
      case 'n':
      case 'r':
      case 't':
      case 'f':
        return Copy(2);
      case 'A':
      case 'z':
        if (!in_class_) return Copy(2);
        [[fallthrough]];
      default:
        Refuse(source_.substr(at_, 2));
    }
  }

  // Puts `members` into the class at hand, or makes one of them.
  void Class(absl::string_view members, absl::string_view open, absl::string_view close) {
    absl::StrAppend(&out_, in_class_ ? "" : open, members, in_class_ ? "" : close);
    at_ += 2;
  }

  // \p{L}, \p{^Lu}: a general category. \p{Han}: a script, which PCRE2 would read as script
  // extensions.
  void Property() {
    const size_t close = Rest().find('}');
    if (!absl::StartsWith(Rest().substr(2), "{") || close == absl::string_view::npos) {
      return Refuse("\\p without {}");
    }
    absl::string_view name = Rest().substr(3, close - 3);
    bool negated = source_[at_ + 1] == 'P';
    if (absl::StartsWith(name, "^")) {
      negated = !negated;
      name.remove_prefix(1);
    }
    if (name.empty() || !std::all_of(name.begin(), name.end(), absl::ascii_isalpha)) {
      return Refuse(absl::StrCat("the property '", name, "'"));
    }
    const bool script = name.size() > 2 && name != "Any" && name != "Alphabetic";
    absl::StrAppend(&out_, negated ? "\\P{" : "\\p{", script ? "sc:" : "", name, "}");
    at_ += close + 1;
  }

  // \uHHHH
  void CodeUnit() {
    const absl::string_view digits = Rest().substr(2, 4);
    if (digits.size() != 4 || !std::all_of(digits.begin(), digits.end(), absl::ascii_isxdigit)) {
      return Refuse("\\u");
    }
    absl::StrAppend(&out_, "\\x{", digits, "}");
    at_ += 6;
  }

  // \x{H...} as it is; \xHH below 80 only, since Oniguruma reads a byte of UTF-8 above.
  void Hexadecimal() {
    if (absl::StartsWith(Rest().substr(2), "{")) {
      const size_t close = Rest().find('}');
      return close == absl::string_view::npos ? Refuse("\\x") : Copy(close + 1);
    }
    const absl::string_view digits = Rest().substr(2, 2);
    if (digits.size() != 2 || digits[0] > '7' || !absl::ascii_isdigit(digits[0]) ||
        !absl::ascii_isxdigit(digits[1])) {
      return Refuse("\\x");
    }
    Copy(4);
  }

  const absl::string_view source_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::string> TranslateRegex(absl::string_view source) {
  return Translator(source).Run();
}

}  // namespace sluice
