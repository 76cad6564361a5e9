#include "engine/checkpoint/config_reader.h"

#include <cstddef>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxEosTokens = 64;
constexpr char kSpecialFloat[] = "__float__";

bool Convert(const Json& value, int64_t min, int64_t max, int64_t* out) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(max))
    return false;
  *out = value.get<int64_t>();
  return *out >= min && *out <= max;
}

bool IsSpecialFloat(const Json& value) {
  return value.is_object() && value.size() == 1 && value.contains(kSpecialFloat) &&
         value[kSpecialFloat].is_string();
}

bool Convert(const Json& value, double min, double max, double* out) {
  const std::optional<double> number = NumberOf(value);
  if (!number) return false;
  *out = *number;
  return *out >= min && *out <= max;  // false for a NaN
}

std::string Rule(int64_t min, int64_t max) {
  return absl::StrCat("an integer in [", min, ", ", max, "]");
}
std::string Rule(double min, double max) {
  return absl::StrCat("a number in [", min, ", ", max, "]");
}

}  // namespace

std::optional<double> NumberOf(const Json& value) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (value.is_number()) return value.get<double>();
  if (!IsSpecialFloat(value)) return std::nullopt;
  const std::string& word = *value[kSpecialFloat].get_ptr<const std::string*>();
  if (word == "Infinity") return kInfinity;
  if (word == "-Infinity") return -kInfinity;
  return std::nullopt;
}

void ConfigReader::Refuse(absl::string_view message) {
  refusals_.push_back(absl::StrCat(file_name_, ": ", message));
  if (status_.ok()) status_ = absl::InvalidArgumentError(refusals_.back());
}

void ConfigReader::Take(const ConfigReader& section) {
  status_.Update(section.status_);
  refusals_.insert(refusals_.end(), section.refusals_.begin(), section.refusals_.end());
}

void ConfigReader::RefuseValue(const char* name, absl::string_view rule) {
  const Json& value = object_[name];
  Refuse(absl::StrCat(name, " is ",
                      IsSpecialFloat(value)
                          ? Printable(*value[kSpecialFloat].get_ptr<const std::string*>())
                          : PrintableValue(value),
                      ", must be ", rule));
}

const char* ConfigReader::NameOf(FieldNames names) const {
  for (const char* name : names) {
    if (object_.contains(name)) return name;
  }
  return *names.begin();
}

const Json* ConfigReader::Find(FieldNames names) const {
  const auto it = object_.find(NameOf(names));
  return it == object_.end() ? nullptr : &*it;
}

bool ConfigReader::Has(const char* name) const {
  const Json* value = Find({name});
  return value != nullptr && !value->is_null();
}

int64_t ConfigReader::Integer(FieldNames names, int64_t missing, int64_t min, int64_t max) {
  const Json* value = Find(names);
  int64_t out = missing;
  if (value == nullptr || Convert(*value, min, max, &out)) return out;
  RefuseValue(NameOf(names), Rule(min, max));
  return missing;
}

double ConfigReader::Number(FieldNames names, double missing, double min, double max) {
  const Json* value = Find(names);
  double out = missing;
  if (value == nullptr || Convert(*value, min, max, &out)) return out;
  RefuseValue(NameOf(names), Rule(min, max));
  return missing;
}

bool ConfigReader::Boolean(FieldNames names, bool missing) {
  const Json* value = Find(names);
  if (value == nullptr) return missing;
  if (value->is_boolean()) return value->get<bool>();
  RefuseValue(NameOf(names), "true or false");
  return missing;
}

std::optional<int64_t> ConfigReader::OptionalInteger(FieldNames names, int64_t min, int64_t max) {
  const Json* value = Find(names);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return Integer(names, min, min, max);
}

std::optional<double> ConfigReader::OptionalNumber(FieldNames names, double min, double max) {
  const Json* value = Find(names);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return Number(names, min, min, max);
}

std::optional<bool> ConfigReader::OptionalBoolean(FieldNames names) {
  const Json* value = Find(names);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return Boolean(names, false);
}

const std::string* ConfigReader::WordOf(const char* name, bool nullable,
                                        absl::string_view allowed) {
  const Json* value = Find({name});
  if (value == nullptr || (nullable && value->is_null())) return nullptr;
  const std::string* word = value->get_ptr<const std::string*>();
  if (word == nullptr) RefuseValue(name, allowed);
  return word;
}

void ConfigReader::RequireWord(const char* name, absl::Span<const char* const> words,
                               absl::string_view allowed) {
  const std::string* word = WordOf(name, /*nullable=*/false, allowed);
  if (word == nullptr) return;
  for (const char* known : words) {
    if (*word == known) return;
  }
  RefuseValue(name, allowed);
}

void ConfigReader::RequireBoolean(const char* name, bool value) {
  const Json* found = Find({name});
  if (found == nullptr || (found->is_boolean() && found->get<bool>() == value)) return;
  RefuseValue(name, value ? "true" : "false");
}

void ConfigReader::RequireNull(const char* name, absl::string_view what) {
  const Json* value = Find({name});
  if (value == nullptr || value->is_null() || (value->is_array() && value->empty())) return;
  RefuseValue(name, absl::StrCat("null: ", what, " are not supported"));
}

std::optional<int32_t> ConfigReader::Token(const char* name, const Json& value, int64_t vocab) {
  int64_t id = 0;
  if (Convert(value, int64_t{0}, vocab - 1, &id)) return static_cast<int32_t>(id);
  Refuse(
      absl::StrCat(name, " is ", PrintableValue(value), ", must be ", Rule(int64_t{0}, vocab - 1)));
  return std::nullopt;
}

std::vector<int32_t> ConfigReader::Tokens(const char* name, const Json& value, int64_t vocab) {
  std::vector<int32_t> ids;
  if (value.is_null()) return ids;
  if (!value.is_array()) {
    if (const auto id = Token(name, value, vocab)) ids.push_back(*id);
    return ids;
  }
  if (value.size() > kMaxEosTokens) {
    Refuse(absl::StrCat(name, " lists ", value.size(), " tokens, must be at most ", kMaxEosTokens));
    return ids;
  }
  for (const Json& element : value) {
    if (const auto id = Token(name, element, vocab)) ids.push_back(*id);
  }
  return ids;
}

std::string WithSpecialFloats(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    if (!in_string) {
      bool replaced = false;
      for (absl::string_view word : {"Infinity", "-Infinity", "NaN"}) {
        if (!absl::StartsWith(text.substr(i), word)) continue;
        absl::StrAppend(&out, "{\"", kSpecialFloat, "\": \"", word, "\"}");
        i += word.size();
        replaced = true;
        break;
      }
      if (replaced) continue;
    }
    if (text[i] == '"') in_string = !in_string;
    if (in_string && text[i] == '\\' && i + 1 < text.size()) out.push_back(text[i++]);
    out.push_back(text[i++]);
  }
  return out;
}

}  // namespace sluice
