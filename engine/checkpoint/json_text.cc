#include "engine/checkpoint/json_text.h"

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxPrintable = 128;

// Walks a text without building anything: is it JSON, and how deep?
class SyntaxCheck {
 public:
  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(Json::number_integer_t) { return true; }
  bool number_unsigned(Json::number_unsigned_t) { return true; }
  bool number_float(Json::number_float_t, const Json::string_t&) { return true; }
  bool string(Json::string_t&) { return true; }
  bool binary(Json::binary_t&) { return true; }
  bool key(Json::string_t&) { return true; }
  bool start_object(size_t) { return Enter(); }
  bool end_object() { return Leave(); }
  bool start_array(size_t) { return Enter(); }
  bool end_array() { return Leave(); }
  bool parse_error(size_t position, const std::string&, const Json::exception&) {
    error_ = absl::StrCat("is not valid JSON at byte ", position);
    return false;
  }

  const std::string& error() const { return error_; }

 private:
  bool Enter() {
    if (++depth_ <= kMaxJsonDepth) return true;
    error_ = absl::StrCat("is nested more than ", kMaxJsonDepth, " deep");
    return false;
  }
  bool Leave() {
    --depth_;
    return true;
  }

  int depth_ = 0;
  std::string error_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text,
                                               absl::string_view file_name) {
  // The parser takes a NUL byte for the end of the text.
  if (const size_t nul = text.find('\0'); nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_name, ": is not valid JSON at byte ", nul + 1));
  }
  SyntaxCheck check;
  if (!Json::sax_parse(text.begin(), text.end(), &check)) {
    return absl::InvalidArgumentError(absl::StrCat(file_name, ": ", check.error()));
  }
  Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(file_name, ": is not a JSON object"));
  }
  return json;
}

std::string Printable(absl::string_view text) {
  if (text.size() <= kMaxPrintable) return absl::CHexEscape(text);
  return absl::StrCat(absl::CHexEscape(text.substr(0, kMaxPrintable)), "...");
}

std::string PrintableValue(const nlohmann::json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  if (value.is_string()) {
    return absl::StrCat("\"", Printable(absl::string_view(*value.get_ptr<const std::string*>())),
                        "\"");
  }
  return value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace sluice
