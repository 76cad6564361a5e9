#include "client/bench/shapes.h"

#include <fstream>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/bench/lengths.h"
#include "client/open_file.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

constexpr absl::string_view kHeader = "prompt_tokens,output_tokens";

absl::Status OutOfRange(absl::string_view field) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " must be a whole number in [1, ", kMaxLength, "]"));
}

absl::StatusOr<int64_t> Length(const nlohmann::json& object, const char* field) {
  const auto found = object.find(field);
  if (found == object.end()) return absl::InvalidArgumentError(absl::StrCat(field, " is missing"));
  if (!found->is_number_integer()) return OutOfRange(field);
  // A number beyond int64_t is an unsigned one.
  if (found->is_number_unsigned() && found->get<uint64_t>() > kMaxLength) return OutOfRange(field);
  const int64_t length = found->get<int64_t>();
  if (length < 1 || length > kMaxLength) return OutOfRange(field);
  return length;
}

absl::StatusOr<RequestShape> ParseObject(absl::string_view line) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  // The parser takes a NUL byte for the end of the line.
  if (!object.is_object() || line.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError("is not a JSON object");
  }
  RequestShape shape;
  const absl::StatusOr<int64_t> output = Length(object, "output_tokens");
  if (!output.ok()) return output.status();
  shape.new_tokens = static_cast<int32_t>(*output);
  if (const auto prompt = object.find("prompt"); prompt != object.end()) {
    if (!prompt->is_string() || prompt->get_ref<const std::string&>().empty()) {
      return absl::InvalidArgumentError("prompt must be a text that is not empty");
    }
    shape.prompt = prompt->get<std::string>();
    return shape;
  }
  const absl::StatusOr<int64_t> tokens = Length(object, "prompt_tokens");
  if (!tokens.ok()) return tokens.status();
  shape.prompt_tokens = *tokens;
  return shape;
}

absl::StatusOr<RequestShape> ParseNumbers(absl::string_view line) {
  const std::vector<absl::string_view> fields = absl::StrSplit(line, ',');
  if (fields.size() != 2) {
    return absl::InvalidArgumentError("must be a JSON object or PROMPT_TOKENS,OUTPUT_TOKENS");
  }
  RequestShape shape;
  if (!absl::SimpleAtoi(fields[0], &shape.prompt_tokens) || shape.prompt_tokens < 1 ||
      shape.prompt_tokens > kMaxLength) {
    return OutOfRange("PROMPT_TOKENS");
  }
  if (!absl::SimpleAtoi(fields[1], &shape.new_tokens) || shape.new_tokens < 1 ||
      shape.new_tokens > kMaxLength) {
    return OutOfRange("OUTPUT_TOKENS");
  }
  return shape;
}

}  // namespace

absl::StatusOr<std::vector<RequestShape>> ParseShapes(absl::string_view text,
                                                      absl::string_view name) {
  std::vector<RequestShape> shapes;
  int64_t line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    if (shapes.empty() && line == kHeader) continue;
    absl::StatusOr<RequestShape> shape = line[0] == '{' ? ParseObject(line) : ParseNumbers(line);
    if (!shape.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ":", line_number, ": ", shape.status().message()));
    }
    shapes.push_back(*std::move(shape));
  }
  if (shapes.empty()) return absl::InvalidArgumentError(absl::StrCat(name, ": has no request"));
  return shapes;
}

absl::StatusOr<std::vector<RequestShape>> ReadShapes(const std::string& file) {
  std::ifstream in;
  const absl::Status opened = OpenFile(file, &in);
  if (!opened.ok()) return opened;
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return absl::InvalidArgumentError(absl::StrCat("cannot read ", file));
  return ParseShapes(text, file);
}

}  // namespace sluice
