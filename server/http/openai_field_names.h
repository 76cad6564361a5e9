// The fields that clients of this and of other servers send, by name: those that a call honours,
// those that change no answer, and those that would change it and are refused.
#ifndef SLUICE_SERVER_HTTP_OPENAI_FIELD_NAMES_H_
#define SLUICE_SERVER_HTTP_OPENAI_FIELD_NAMES_H_

#include <string>
#include <vector>

#include "server/http/json_fields.h"

namespace sluice {

// Refuses each field that would change the answer and cannot be honoured, unless its value is the
// one that changes nothing. Returns the names that are not known, which are passed over. Pure.
std::vector<std::string> CheckFieldNames(const JsonFields& fields, bool chat);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_OPENAI_FIELD_NAMES_H_
