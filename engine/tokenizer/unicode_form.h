// Unicode's normalization forms (UAX #15).
#ifndef SLUICE_ENGINE_TOKENIZER_UNICODE_FORM_H_
#define SLUICE_ENGINE_TOKENIZER_UNICODE_FORM_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

enum class UnicodeForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

// True for a text that NFC leaves as it is, found without tables: it has no character from U+0300,
// the first that combines, on. False says nothing.
bool IsPlainNfc(absl::string_view text);

// `text`, valid UTF-8, in that form. O(n log n), also for a text of combining marks alone.
std::string ToUnicodeForm(UnicodeForm form, absl::string_view text);

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_UNICODE_FORM_H_
