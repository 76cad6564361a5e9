// Reads the fields of a config.json one by one, each with its bounds. A field that is refused reads
// as its default, so that all that is wrong can be said at once.
#ifndef SLUICE_ENGINE_CHECKPOINT_CONFIG_READER_H_
#define SLUICE_ENGINE_CHECKPOINT_CONFIG_READER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"

namespace sluice {

// The names that a field may have, today's name first: the first name that the file has is read.
using FieldNames = std::initializer_list<const char*>;

// A word of a config and what it stands for.
template <typename T>
struct NamedValue {
  const char* name;
  T value;
};

class ConfigReader {
 public:
  // Both outlive the reader. Errors begin with `file_name`.
  ConfigReader(const nlohmann::json& object, absl::string_view file_name)
      : object_(object), file_name_(file_name) {}

  const absl::Status& status() const { return status_; }  // the first refusal
  absl::string_view file_name() const { return file_name_; }
  void Refuse(absl::string_view message);
  // Takes over the refusals of a reader of one of the fields, an object.
  void Take(const ConfigReader& section);
  // All that was refused, in order.
  const std::vector<std::string>& refusals() const { return refusals_; }

  // Null when the field is missing.
  const nlohmann::json* Find(FieldNames names) const;
  // There and not null.
  bool Has(const char* name) const;

  // A missing field is `missing`; one that is null, of another kind or out of bounds is refused.
  int64_t Integer(FieldNames names, int64_t missing, int64_t min, int64_t max);
  // Numbers may be infinite where the bounds are: transformers writes Infinity, or the object
  // {"__float__": "Infinity"}.
  double Number(FieldNames names, double missing, double min, double max);
  bool Boolean(FieldNames names, bool missing);
  // The same readers, but null counts as missing.
  std::optional<int64_t> OptionalInteger(FieldNames names, int64_t min, int64_t max);
  std::optional<double> OptionalNumber(FieldNames names, double min, double max);
  std::optional<bool> OptionalBoolean(FieldNames names);

  // One of `words`; missing, or null where `nullable`: `missing`. `allowed` says them in an error.
  template <typename T>
  T Word(const char* name, T missing, absl::Span<const NamedValue<T>> words, bool nullable,
         absl::string_view allowed) {
    const std::string* word = WordOf(name, nullable, allowed);
    if (word == nullptr) return missing;
    for (const NamedValue<T>& known : words) {
      if (*word == known.name) return known.value;
    }
    RefuseValue(name, allowed);
    return missing;
  }
  // Refuses a field that is there and is another word.
  void RequireWord(const char* name, absl::Span<const char* const> words,
                   absl::string_view allowed);
  // Refuses a field that is there and is not `value`.
  void RequireBoolean(const char* name, bool value);
  // Refuses a field that is neither missing, null nor an empty list; `what` names in the plural
  // what it asks for.
  void RequireNull(const char* name, absl::string_view what);

  // A token id below `vocab`: missing, or null, none.
  std::optional<int32_t> Token(const char* name, const nlohmann::json& value, int64_t vocab);
  // One id or a list of them; null is none.
  std::vector<int32_t> Tokens(const char* name, const nlohmann::json& value, int64_t vocab);

 private:
  // The name under which the file has the field.
  const char* NameOf(FieldNames names) const;
  const std::string* WordOf(const char* name, bool nullable, absl::string_view allowed);
  void RefuseValue(const char* name, absl::string_view rule);

  const nlohmann::json& object_;
  const absl::string_view file_name_;
  absl::Status status_;
  std::vector<std::string> refusals_;
};

// A number, which may be infinite in the spelling of transformers; none: another kind of value.
std::optional<double> NumberOf(const nlohmann::json& value);

// ParseJsonObject for what Python's json writes and JSON has no word for: a bare Infinity,
// -Infinity or NaN outside of strings becomes {"__float__": "Infinity"} and the like.
std::string WithSpecialFloats(absl::string_view text);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_CONFIG_READER_H_
