// The fields of a JSON object, whose faults are told by name.
#ifndef SLUICE_SERVER_HTTP_JSON_FIELDS_H_
#define SLUICE_SERVER_HTTP_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"
#include "server/status.h"

namespace sluice {

bool IsInt64(const nlohmann::json& value);
bool IsInt32(const nlohmann::json& value);
// True for a number that a float holds.
bool IsFloat(const nlohmann::json& value);

// Appends the values of an array of token ids. False, with a violation that names the element, if
// it is none.
bool TakeTokens(absl::string_view name, const nlohmann::json& ids, FieldViolations* violations,
                google::protobuf::RepeatedField<int32_t>* out);

// The fields of one object. Each getter gives null, or leaves `out` alone, where the field is
// absent, null, or of the wrong type, which it then notes. Object and violations outlive it.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, FieldViolations* violations)
      : object_(object), violations_(violations) {}

  const nlohmann::json* Find(const char* name) const;
  bool Int(const char* name, int32_t* out) const;
  bool Float(const char* name, float* out) const;
  // False where the field is absent or null.
  bool Bool(const char* name) const;
  const std::string* String(const char* name) const;

  void Refuse(absl::string_view name, absl::string_view why) const { violations_->Add(name, why); }
  const nlohmann::json& object() const { return object_; }
  FieldViolations* violations() const { return violations_; }

 private:
  // `what`: "must be a number".
  bool Is(const char* name, const nlohmann::json& value, bool right, const char* what) const;

  const nlohmann::json& object_;
  FieldViolations* const violations_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_JSON_FIELDS_H_
