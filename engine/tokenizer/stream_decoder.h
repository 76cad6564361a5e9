// Token by token to text, in whole characters.
#ifndef SLUICE_ENGINE_TOKENIZER_STREAM_DECODER_H_
#define SLUICE_ENGINE_TOKENIZER_STREAM_DECODER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"

namespace sluice {

// The text of one sequence as its tokens come. All that Append and Flush give, put together, is
// what Decode gives for the same ids. Small and copyable: a fork copies it. The tokenizer must
// outlive it. One thread at a time.
class StreamDecoder {
 public:
  // `continuation`: the tokens go on where others ended, so a leading space is text and stays.
  StreamDecoder(const Tokenizer* tokenizer, bool continuation)
      : tokenizer_(tokenizer), at_start_(!continuation) {}

  // Appends to `out` the characters that `id` completes, U+FFFD for what can no longer become one.
  void Append(int32_t id, std::string* out);

  // The end: what is still incomplete becomes U+FFFD.
  void Flush(std::string* out);

  // The bytes held back, at most 3: the beginning of a character.
  absl::string_view pending() const { return absl::string_view(pending_, pending_size_); }

  // Resumes where another decoder stopped. Takes of `bytes` what begins a character and does not
  // complete it.
  void SetPending(absl::string_view bytes);

 private:
  void AppendFirst(int32_t id, std::string* out);
  void AppendBytes(absl::string_view bytes, std::string* out);
  void AppendReplacement(size_t invalid_bytes, std::string* out) const;

  const Tokenizer* tokenizer_;
  bool at_start_;  // no text yet: what comes may be the space that Encode made up
  uint8_t pending_size_ = 0;
  char pending_[3] = {};
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_STREAM_DECODER_H_
