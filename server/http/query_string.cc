#include "server/http/query_string.h"

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "server/http/http_message.h"

namespace sluice {
namespace {

std::optional<std::string> Decode(absl::string_view text) {
  return PercentDecode(absl::StrReplaceAll(text, {{"+", " "}}));
}

}  // namespace

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseQuery(
    absl::string_view target) {
  std::vector<std::pair<std::string, std::string>> out;
  target = target.substr(0, target.find('#'));
  const size_t mark = target.find('?');
  if (mark == absl::string_view::npos) return out;
  for (const absl::string_view pair :
       absl::StrSplit(target.substr(mark + 1), '&', absl::SkipEmpty())) {
    const size_t equals = pair.find('=');
    if (equals == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("the query has '", pair.substr(0, 64), "' without a value"));
    }
    std::optional<std::string> name = Decode(pair.substr(0, equals));
    std::optional<std::string> value = Decode(pair.substr(equals + 1));
    if (!name.has_value() || !value.has_value()) {
      return absl::InvalidArgumentError(
          "the query has a '%' without two hexadecimal digits behind it");
    }
    out.emplace_back(*std::move(name), *std::move(value));
  }
  return out;
}

}  // namespace sluice
