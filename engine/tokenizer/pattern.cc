#include "engine/tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/regex_syntax.h"
#include "engine/tokenizer/utf8.h"
#include "kernels/check.h"

namespace sluice {
namespace {

// Steps of one match, and memory of one match in KiB: far above what splitting megabytes takes.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;

struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[160] = {};
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Pattern::Compiled {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;

  Compiled() = default;
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  ~Compiled() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }

  // Matches like pcre2_match. The compiled matcher's small stack is no limit: a match that outgrows
  // it is done again without the compiled matcher.
  int Match(absl::string_view text, size_t begin, pcre2_match_data* data) const {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int found = pcre2_match(code, subject, text.size(), begin, PCRE2_NO_UTF_CHECK, data, context);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(code, subject, text.size(), begin, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          data, context);
    }
    return found;
  }
};

Pattern Pattern::Literal(absl::string_view text) {
  Pattern pattern;
  pattern.literal_ = std::string(text);
  return pattern;
}

absl::StatusOr<Pattern> Pattern::Regex(absl::string_view source) {
  absl::StatusOr<std::string> translated = TranslateRegex(source);
  if (!translated.ok()) return translated.status();
  auto compiled = std::make_shared<Compiled>();
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (compiled->code == nullptr) return absl::InvalidArgumentError(ErrorText(error));
  // Without a just-in-time compiler the interpreter does the same, slower.
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);
  compiled->context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(compiled->context, kMatchLimit);
  pcre2_set_heap_limit(compiled->context, kHeapLimitKib);
  Pattern pattern;
  pattern.compiled_ = std::move(compiled);
  return pattern;
}

Pattern Pattern::Trusted(absl::string_view source) {
  absl::StatusOr<Pattern> pattern = Regex(source);
  SLUICE_CHECK(pattern.ok());
  return *std::move(pattern);
}

Pattern Pattern::Gpt2() {
  return Trusted(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
}

Pattern Pattern::Number() { return Trusted(R"(\p{N})"); }

Pattern Pattern::WordCharacter() {
  return Trusted(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}])");
}

void Pattern::FindAll(absl::string_view text, std::vector<TextRange>* matches) const {
  if (text.empty()) return;
  if (compiled_ != nullptr) {
    FindRegex(text, matches);
  } else {
    FindLiteral(text, matches);
  }
}

void Pattern::FindLiteral(absl::string_view text, std::vector<TextRange>* matches) const {
  if (literal_.empty()) return;
  for (size_t at = text.find(literal_); at != absl::string_view::npos;
       at = text.find(literal_, at + literal_.size())) {
    matches->push_back({at, at + literal_.size()});
  }
}

void Pattern::FindRegex(absl::string_view text, std::vector<TextRange>* matches) const {
  const std::unique_ptr<pcre2_match_data, MatchDataDeleter> data(
      pcre2_match_data_create(1, nullptr));
  size_t begin = 0;
  size_t last_end = absl::string_view::npos;
  while (begin <= text.size()) {
    // Negative: no match, or an error, after which the rest stays unmatched.
    if (compiled_->Match(text, begin, data.get()) < 0) return;
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    if (range[0] == range[1] && range[1] == last_end) {
      // An empty match right behind the last one does not count.
      if (last_end == text.size()) return;
      begin = last_end + Utf8CharSize(text.substr(last_end));
      continue;
    }
    matches->push_back({range[0], range[1]});
    begin = last_end = range[1];
  }
}

}  // namespace sluice
