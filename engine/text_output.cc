#include "engine/text_output.h"

#include <algorithm>
#include <optional>

namespace sluice {
namespace {

// A prompt of nothing but BOS and the like is no text to go on from: what follows is a text's
// beginning.
bool HasText(const Tokenizer& tokenizer, absl::Span<const int32_t> prompt) {
  return std::any_of(prompt.begin(), prompt.end(),
                     [&](int32_t token) { return !tokenizer.IsControl(token); });
}

}  // namespace

std::string IncompleteTail(const Tokenizer& tokenizer, absl::string_view undecoded,
                           absl::Span<const int32_t> tokens) {
  // A character has at most four bytes, so it begins no more than that many tokens with text ago.
  size_t begin = tokens.size();
  for (int with_text = 0; begin > 0 && with_text < 4; --begin) {
    if (!tokenizer.Text(tokens[begin - 1]).empty()) ++with_text;
  }
  StreamDecoder tail(&tokenizer, /*continuation=*/true);
  if (begin == 0) tail.SetPending(undecoded);
  std::string text;
  for (int32_t token : tokens.subspan(begin)) tail.Append(token, &text);
  return std::string(tail.pending());
}

StreamDecoder DecoderAfter(const Tokenizer* tokenizer, absl::Span<const int32_t> prompt,
                           bool continuation, absl::string_view undecoded) {
  StreamDecoder out(tokenizer, continuation || HasText(*tokenizer, prompt));
  out.SetPending(IncompleteTail(*tokenizer, undecoded, prompt));
  return out;
}

TextOutput::TextOutput(const Tokenizer* tokenizer, absl::Span<const int32_t> prompt,
                       bool continuation, absl::string_view undecoded,
                       const std::vector<std::string>& stop_strings)
    : decoder_(DecoderAfter(tokenizer, prompt, continuation, undecoded)),
      matcher_(stop_strings),
      stop_strings_(&stop_strings) {}

const std::string* TextOutput::Append(int32_t token, bool match_stops, std::string* text) {
  if (matcher_.empty()) {
    decoder_.Append(token, text);
    return nullptr;
  }
  scratch_.clear();
  decoder_.Append(token, &scratch_);
  if (!match_stops) {
    matcher_.Flush(text);
    text->append(scratch_);
    return nullptr;
  }
  const std::optional<size_t> found = matcher_.Append(scratch_, text);
  return found ? &(*stop_strings_)[*found] : nullptr;
}

void TextOutput::Flush(bool goes_on, std::string* text) {
  matcher_.Flush(text);
  if (!goes_on) decoder_.Flush(text);
}

}  // namespace sluice
