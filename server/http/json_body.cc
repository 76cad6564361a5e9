#include "server/http/json_body.h"

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/status.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// Requests use at most four levels of nesting.
constexpr int kMaxDepth = 32;
// What the parser calls a number that no double holds.
constexpr int kNumberOutOfRange = 406;
constexpr size_t kShownBytes = 64;

// The deepest nesting of arrays and objects. It does not check that the text is JSON.
int DepthOf(absl::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

// Reads a text that is no JSON, for the reason.
class FaultFinder {
 public:
  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(Json::number_integer_t) { return true; }
  bool number_unsigned(Json::number_unsigned_t) { return true; }
  bool number_float(Json::number_float_t, const Json::string_t&) { return true; }
  bool string(Json::string_t&) { return true; }
  bool binary(Json::binary_t&) { return true; }
  bool key(Json::string_t& key) {
    key_ = key;
    return true;
  }
  bool start_object(size_t) { return true; }
  bool end_object() { return true; }
  bool start_array(size_t) { return true; }
  bool end_array() { return true; }
  bool parse_error(size_t position, const std::string& token, const Json::exception& error) {
    if (error.id == kNumberOutOfRange) {
      FieldViolations violations;
      violations.Add(
          key_.empty() ? "the body" : absl::CHexEscape(key_.substr(0, kShownBytes)),
          absl::StrCat("has the number ", token.substr(0, kShownBytes), ", which is out of range"));
      status_ = violations.ToStatus();
    } else {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("the body is not valid JSON in UTF-8 at byte ", position));
    }
    return false;
  }

  const absl::Status& status() const { return status_; }

 private:
  std::string key_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonBody(absl::string_view body) {
  if (DepthOf(body) > kMaxDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("the body is nested more than ", kMaxDepth, " deep"));
  }
  // The parser takes a NUL byte for the end of the text.
  if (const size_t nul = body.find('\0'); nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("the body is not valid JSON in UTF-8 at byte ", nul + 1));
  }
  Json json = Json::parse(body.begin(), body.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    FaultFinder finder;
    Json::sax_parse(body.begin(), body.end(), &finder);
    if (!finder.status().ok()) return finder.status();
    return absl::InvalidArgumentError("the body is not valid JSON in UTF-8");
  }
  if (!json.is_object()) return absl::InvalidArgumentError("the body must be a JSON object");
  return json;
}

}  // namespace sluice
