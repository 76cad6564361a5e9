#include "server/http/json_fields.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// " is 3e10,": for a number, so that one out of range is told.
std::string Told(const Json& value) {
  if (!value.is_number()) return "";
  return absl::StrCat("is ", value.dump(), ", ");
}

}  // namespace

bool IsInt64(const Json& value) {
  return value.is_number_integer() &&
         (!value.is_number_unsigned() ||
          value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
}

bool IsInt32(const Json& value) {
  return IsInt64(value) && value.get<int64_t>() >= std::numeric_limits<int32_t>::min() &&
         value.get<int64_t>() <= std::numeric_limits<int32_t>::max();
}

bool IsFloat(const Json& value) {
  return value.is_number() &&
         std::abs(value.get<double>()) <= double{std::numeric_limits<float>::max()};
}

bool TakeTokens(absl::string_view name, const Json& ids, FieldViolations* violations,
                google::protobuf::RepeatedField<int32_t>* out) {
  if (!ids.is_array()) {
    violations->Add(name, "must be an array of token ids");
    return false;
  }
  out->Reserve(static_cast<int>(ids.size()));
  for (const Json& id : ids) {
    if (!IsInt32(id)) {
      violations->Add(absl::StrCat(name, "[", out->size(), "]"),
                      absl::StrCat(Told(id), "must be a token id"));
      return false;
    }
    out->Add(id.get<int32_t>());
  }
  return true;
}

const Json* JsonFields::Find(const char* name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool JsonFields::Int(const char* name, int32_t* out) const {
  const Json* value = Find(name);
  if (value == nullptr || !Is(name, *value, IsInt32(*value), "must be a whole number of 32 bits")) {
    return false;
  }
  *out = value->get<int32_t>();
  return true;
}

bool JsonFields::Float(const char* name, float* out) const {
  const Json* value = Find(name);
  if (value == nullptr || !Is(name, *value, IsFloat(*value), "must be a number of 32 bits")) {
    return false;
  }
  *out = static_cast<float>(value->get<double>());
  return true;
}

bool JsonFields::Bool(const char* name) const {
  const Json* value = Find(name);
  return value != nullptr && Is(name, *value, value->is_boolean(), "must be true or false") &&
         value->get<bool>();
}

const std::string* JsonFields::String(const char* name) const {
  const Json* value = Find(name);
  if (value == nullptr || !Is(name, *value, value->is_string(), "must be a string")) {
    return nullptr;
  }
  return value->get_ptr<const Json::string_t*>();
}

bool JsonFields::Is(const char* name, const Json& value, bool right, const char* what) const {
  if (!right) violations_->Add(name, absl::StrCat(Told(value), what));
  return right;
}

}  // namespace sluice
