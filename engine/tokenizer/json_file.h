// tokenizer.json as JSON: parsed within bounds, its two long tables apart from the rest.
#ifndef SLUICE_ENGINE_TOKENIZER_JSON_FILE_H_
#define SLUICE_ENGINE_TOKENIZER_JSON_FILE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

struct TokenizerJson {
  nlohmann::json rest;                                      // an object, without the two below
  std::vector<std::pair<std::string, int64_t>> vocab;       // model.vocab, in the file's order
  std::vector<std::pair<std::string, std::string>> merges;  // model.merges
  bool has_merges = false;                                  // an empty list of them included
};

// INVALID_ARGUMENT names the byte or the field, and the rule. Memory is bounded by a small multiple
// of the file.
absl::StatusOr<TokenizerJson> ParseTokenizerJson(absl::string_view bytes);

// A value and the name to report it by. The value may be missing, which reads as null.
class JsonField {
 public:
  JsonField(const nlohmann::json* value, std::string name)
      : value_(value), name_(std::move(name)) {}

  bool is_null() const { return value_ == nullptr || value_->is_null(); }
  bool is_object() const { return value_ != nullptr && value_->is_object(); }
  bool is_array() const { return value_ != nullptr && value_->is_array(); }
  const std::string& name() const { return name_; }

  // The member of an object; a missing one of anything else.
  JsonField At(absl::string_view key) const;
  // The keys of an object; none of anything else.
  std::vector<std::string> Keys() const;

  // Readers: a wrong type becomes `status`, unless that holds an error already, and gives an empty
  // value. With a fallback, null and missing are allowed and give that.
  std::vector<JsonField> Elements(absl::Status* status) const;
  bool Bool(bool fallback, absl::Status* status) const;
  std::string String(absl::Status* status) const;
  int64_t Integer(absl::Status* status) const;
  double Number(double fallback, absl::Status* status) const;

  // Makes `status`, unless it holds an error already, INVALID_ARGUMENT: this field's name, a colon,
  // `rule`.
  void Fail(absl::string_view rule, absl::Status* status) const;

 private:
  const nlohmann::json* value_;
  std::string name_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_JSON_FILE_H_
