// Any bytes as what comes over a connection: the parser ends, takes no more than there is, tells
// its events in order, and tells the same ones however the bytes are cut.
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/check.h"
#include "server/http/http_parser.h"

namespace sluice {
namespace {

constexpr size_t kMaxHeadBytes = 2048;

void CheckHead(const HttpHead& head) {
  SLUICE_CHECK(!head.method.empty() && !head.path.empty());
  SLUICE_CHECK(!head.chunked || head.content_length == 0);
  SLUICE_CHECK(head.FindAll("host").size() == 1 || head.http_1_0);
  SLUICE_CHECK(head.FindAll("content-length").size() + head.FindAll("transfer-encoding").size() <=
               1);
  for (const auto& [name, value] : head.fields) {
    SLUICE_CHECK(!name.empty());
    for (const char c : value) SLUICE_CHECK(c != '\r' && c != '\n' && c != '\0');
  }
}

// The parser's view of `text`, which comes in pieces of `piece` bytes.
std::string Parse(absl::string_view text, size_t piece) {
  HttpParser parser(kMaxHeadBytes);
  std::string seen;
  size_t used = 0;
  bool in_request = false;
  for (size_t there = 0; there < text.size();) {
    there = text.size() - there > piece ? there + piece : text.size();
    while (true) {
      size_t part = 0;
      const HttpParser::Event event = parser.Next(text.substr(used, there - used), &part);
      SLUICE_CHECK(part <= there - used);
      used += part;
      if (event == HttpParser::Event::kMore) break;
      if (event == HttpParser::Event::kFault) {
        SLUICE_CHECK(parser.fault().status >= 400 && !parser.fault().why.empty());
        return absl::StrCat(seen, "!", parser.fault().status);
      }
      SLUICE_CHECK(in_request == (event != HttpParser::Event::kHead));
      in_request = event != HttpParser::Event::kEnd;
      if (event == HttpParser::Event::kHead) {
        CheckHead(parser.head());
        absl::StrAppend(&seen, "{", parser.head().path, ":");
      } else if (event == HttpParser::Event::kBody) {
        SLUICE_CHECK(!parser.body().empty());
        absl::StrAppend(&seen, parser.body());
      } else {
        seen.push_back('}');
      }
    }
  }
  return seen;
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string whole = Parse(text, size);
  for (const size_t piece : {size_t{1}, size_t{7}}) SLUICE_CHECK(Parse(text, piece) == whole);
  return 0;
}
