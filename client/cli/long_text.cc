#include "client/cli/long_text.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/cli/text.h"

namespace sluice {
namespace {

constexpr size_t kWindowBytes = 256 << 10;
constexpr size_t kOverlapBytes = 16 << 10;
constexpr int kSameTokens = 16;  // on either side of a cut
constexpr size_t kMostBytesOfCharacter = 4;
constexpr absl::string_view kMetaspace = "\xE2\x96\x81";  // U+2581

// Parts of a stream that end between characters.
class TextReader {
 public:
  explicit TextReader(std::istream* in) : in_(*in) {}

  // Appends up to `bytes` bytes, or a few less; nothing at the end of the stream.
  absl::Status Append(size_t bytes, std::string* text) {
    std::string part = std::move(rest_);
    const size_t had = part.size();
    part.resize(std::max(bytes, had + 1));
    in_.read(part.data() + had, static_cast<std::streamsize>(part.size() - had));
    if (in_.bad()) return absl::InvalidArgumentError("the text cannot be read");
    part.resize(had + static_cast<size_t>(in_.gcount()));
    const size_t valid = ValidUtf8Prefix(part);
    const bool cut_character = part.size() - valid < kMostBytesOfCharacter && in_.good();
    if (valid < part.size() && !cut_character) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text is not UTF-8 at byte ", read_ + valid));
    }
    rest_ = part.substr(valid);
    read_ += valid;
    text->append(part, 0, valid);
    return absl::OkStatus();
  }
  bool at_end() const { return !in_.good() && rest_.empty(); }

 private:
  std::istream& in_;
  std::string rest_;  // the beginning of a character
  size_t read_ = 0;
};

bool IsByte(absl::string_view piece) {
  return piece.size() == 6 && absl::StartsWith(piece, "<0x") && piece.back() == '>';
}

size_t Characters(absl::string_view piece) {
  return static_cast<size_t>(
      std::count_if(piece.begin(), piece.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// The bytes of text that a piece stands for, in a vocabulary that writes spaces as U+2581.
size_t MetaspaceBytes(absl::string_view piece) {
  if (IsByte(piece)) return 1;
  size_t bytes = piece.size();
  for (size_t at = piece.find(kMetaspace); at != absl::string_view::npos;
       at = piece.find(kMetaspace, at + kMetaspace.size())) {
    bytes -= kMetaspace.size() - 1;
  }
  return bytes;
}

// What a window's tokens are, and how far before the window's end each begins, in bytes.
struct Window {
  v1::TokenizeResponse tokens;
  std::vector<size_t> from_end;
};

// `exact`: the window has no special tokens in front, so its pieces account for each byte.
absl::Status SetPlaces(size_t bytes, bool exact, size_t (*bytes_of)(absl::string_view),
                       Window* window) {
  const int count = window->tokens.pieces_size();
  window->from_end.assign(static_cast<size_t>(count), 0);
  size_t sum = 0;
  for (int i = count - 1; i >= 0; --i) {
    sum += bytes_of(window->tokens.pieces(i));
    window->from_end[static_cast<size_t>(i)] = sum;
  }
  // A space may have been made up in front.
  const bool adds_up = exact ? sum == bytes || sum == bytes + 1 : sum >= bytes;
  return adds_up
             ? absl::OkStatus()
             : absl::InvalidArgumentError(
                   "the tokenizer's pieces do not tell how many bytes they stand for, so a text "
                   "above 256 KiB must be given in parts");
}

bool SameAround(const v1::TokenizeResponse& a, int i, const v1::TokenizeResponse& b, int j) {
  if (i < kSameTokens || j < kSameTokens || i + kSameTokens > a.token_ids_size() ||
      j + kSameTokens > b.token_ids_size()) {
    return false;
  }
  return std::equal(a.token_ids().begin() + (i - kSameTokens),
                    a.token_ids().begin() + (i + kSameTokens),
                    b.token_ids().begin() + (j - kSameTokens));
}

// Finds where to leave `a` for `b`, whose end lies `ahead` bytes behind a's. False: nowhere.
bool FindCut(const Window& a, const Window& b, size_t ahead, int* i, int* j) {
  *j = 0;
  *i = 0;
  while (*i < a.tokens.token_ids_size() && *j < b.tokens.token_ids_size()) {
    const size_t left_a = a.from_end[static_cast<size_t>(*i)] + ahead;
    const size_t left_b = b.from_end[static_cast<size_t>(*j)];
    if (left_a == left_b && SameAround(a.tokens, *i, b.tokens, *j)) return true;
    if (left_a >= left_b) {
      ++*i;
    } else {
      ++*j;
    }
  }
  return false;
}

v1::TokenizeResponse Slice(const v1::TokenizeResponse& tokens, int begin, int end) {
  v1::TokenizeResponse slice;
  for (int i = begin; i < end; ++i) {
    slice.add_token_ids(tokens.token_ids(i));
    if (i < tokens.pieces_size()) slice.add_pieces(tokens.pieces(i));
  }
  return slice;
}

// Special tokens stand in front of the first window alone.
absl::StatusOr<Window> TokenizeWindow(const Client& client, const CallOptions& call,
                                      v1::TokenizeRequest request, const std::string& text,
                                      bool first) {
  request.set_text(text);
  if (!first) request.set_add_special_tokens(false);
  absl::StatusOr<v1::TokenizeResponse> tokens = client.Tokenize(request, call);
  if (!tokens.ok()) return tokens.status();
  Window window;
  window.tokens = *std::move(tokens);
  return window;
}

// Vocabularies write bytes in one of two ways; takes the one that accounts for the window.
absl::Status FindPlaces(size_t bytes, bool exact, size_t (**bytes_of)(absl::string_view),
                        Window* window) {
  if (*bytes_of != nullptr) return SetPlaces(bytes, exact, *bytes_of, window);
  *bytes_of = &MetaspaceBytes;
  if (SetPlaces(bytes, exact, *bytes_of, window).ok()) return absl::OkStatus();
  *bytes_of = &Characters;
  return SetPlaces(bytes, exact, *bytes_of, window);
}

}  // namespace

absl::Status TokenizeAll(const Client& client, const CallOptions& call,
                         const v1::TokenizeRequest& request, std::istream* in,
                         absl::FunctionRef<bool(const v1::TokenizeResponse& part)> on_part) {
  TextReader reader(in);
  std::string text;
  absl::Status status = reader.Append(kWindowBytes, &text);
  if (status.ok() && !reader.at_end()) status = reader.Append(1, &text);
  if (!status.ok()) return status;
  absl::StatusOr<Window> window = TokenizeWindow(client, call, request, text, /*first=*/true);
  if (!window.ok()) return window.status();
  size_t (*bytes_of)(absl::string_view) = nullptr;
  int begin = 0;  // the first token of `window` that was not given yet
  while (!reader.at_end()) {
    // Between characters: the overlap begins at one's first byte.
    size_t keep = std::min(kOverlapBytes, text.size());
    while (keep < text.size() && (text[text.size() - keep] & 0xC0) == 0x80) ++keep;
    std::string next_text = text.substr(text.size() - keep);
    status = reader.Append(kWindowBytes - keep, &next_text);
    if (!status.ok()) return status;
    if (next_text.size() == keep) break;  // the end came without another character
    absl::StatusOr<Window> next = TokenizeWindow(client, call, request, next_text, /*first=*/false);
    if (!next.ok()) return next.status();
    status = FindPlaces(next_text.size(), /*exact=*/true, &bytes_of, &*next);
    if (status.ok()) status = FindPlaces(text.size(), /*exact=*/false, &bytes_of, &*window);
    if (!status.ok()) return status;
    int i = 0;
    int j = 0;
    if (!FindCut(*window, *next, next_text.size() - keep, &i, &j) || i < begin) {
      return absl::InvalidArgumentError(
          "the tokenizer looks further than 16 KiB around a token, so a text above 256 KiB must be "
          "given in parts");
    }
    if (!on_part(Slice(window->tokens, begin, i))) return absl::OkStatus();
    begin = j;
    window = *std::move(next);
    text = std::move(next_text);
  }
  on_part(Slice(window->tokens, begin, window->tokens.token_ids_size()));
  return absl::OkStatus();
}

}  // namespace sluice
