// The text of one sequence: tokens in, text that may be shown out.
#ifndef SLUICE_ENGINE_TEXT_OUTPUT_H_
#define SLUICE_ENGINE_TEXT_OUTPUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/stop_matcher.h"
#include "engine/tokenizer/stream_decoder.h"
#include "engine/tokenizer/tokenizer.h"

namespace sluice {

// The bytes, at most 3, of a character that `undecoded` and the tokens after it leave incomplete.
std::string IncompleteTail(const Tokenizer& tokenizer, absl::string_view undecoded,
                           absl::Span<const int32_t> tokens);

// Decodes what follows `prompt`, which may end inside a character. `continuation`: the prompt goes
// on a history, whose text left `undecoded` bytes.
StreamDecoder DecoderAfter(const Tokenizer* tokenizer, absl::Span<const int32_t> prompt,
                           bool continuation, absl::string_view undecoded);

class TextOutput {
 public:
  // The text goes on where `prompt` ends, be it inside a character; `prompt` where a history did
  // that left `undecoded` bytes, if there is one (`continuation`).
  TextOutput(const Tokenizer* tokenizer, absl::Span<const int32_t> prompt, bool continuation,
             absl::string_view undecoded, const std::vector<std::string>& stop_strings);

  // Appends the text that `token` makes known. Returns the stop string that the text now holds, or
  // null; with one, the text up to it was appended and nothing must follow. Before `match_stops` no
  // string is looked for.
  const std::string* Append(int32_t token, bool match_stops, std::string* text);

  // After a match, the text of the tokens behind the stop string.
  absl::string_view dropped() const {
    return absl::string_view(scratch_).substr(scratch_.size() - matcher_.dropped());
  }

  // The end: everything held back. Bytes of an incomplete character become U+FFFD, or are left to
  // the next call when the text goes on there.
  void Flush(bool goes_on, std::string* text);

 private:
  StreamDecoder decoder_;
  StopMatcher matcher_;
  const std::vector<std::string>* stop_strings_;
  std::string scratch_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TEXT_OUTPUT_H_
