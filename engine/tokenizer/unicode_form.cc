#include "engine/tokenizer/unicode_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

// UTF-8's first byte of U+0300.
constexpr unsigned char kFirstCombining = 0xCC;

// The longest decomposition of one character has 18.
constexpr int kMostDecomposed = 32;

using Codes = std::vector<utf8proc_int32_t>;

Codes Decompose(absl::string_view text, utf8proc_option_t options) {
  Codes codes;
  codes.reserve(text.size());
  while (!text.empty()) {
    const size_t size = Utf8CharSize(text);
    const auto code = static_cast<utf8proc_int32_t>(Utf8CharCode(text));
    text.remove_prefix(size);
    utf8proc_int32_t made[kMostDecomposed];
    int boundary = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(code, made, kMostDecomposed, options, &boundary);
    // What the library does not know it leaves as it is.
    if (count < 1 || count > kMostDecomposed) {
      codes.push_back(code);
    } else {
      codes.insert(codes.end(), made, made + count);
    }
  }
  return codes;
}

int CombiningClass(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

// Canonical order: marks that follow each other, by their class. (The library sorts them too, in a
// time that grows with the square of their number.)
void OrderMarks(Codes* codes) {
  for (auto begin = codes->begin(); begin != codes->end();) {
    if (CombiningClass(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, codes->end(),
                                  [](utf8proc_int32_t code) { return CombiningClass(code) == 0; });
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    begin = end;
  }
}

}  // namespace

bool IsPlainNfc(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < kFirstCombining; });
}

std::string ToUnicodeForm(UnicodeForm form, absl::string_view text) {
  if (form == UnicodeForm::kNfc && IsPlainNfc(text)) return std::string(text);
  const bool compatible = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const bool composed = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  int options = UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0);
  Codes codes = Decompose(text, static_cast<utf8proc_option_t>(options | UTF8PROC_DECOMPOSE));
  OrderMarks(&codes);
  auto count = static_cast<utf8proc_ssize_t>(codes.size());
  if (composed) {
    options |= UTF8PROC_COMPOSE;
    count = utf8proc_normalize_utf32(codes.data(), count, static_cast<utf8proc_option_t>(options));
  }
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) AppendUtf8(static_cast<char32_t>(codes[i]), &out);
  return out;
}

}  // namespace sluice
