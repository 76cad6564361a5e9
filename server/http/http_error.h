// Errors as OpenAI's API tells them: an HTTP status, and {"error": {message, type, param, code}}.
#ifndef SLUICE_SERVER_HTTP_HTTP_ERROR_H_
#define SLUICE_SERVER_HTTP_HTTP_ERROR_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace sluice {

struct HttpError {
  int status = 500;
  std::string type{};
  std::string message{};
  std::string param{};  // the field of the request; empty: none
  std::string code{};   // empty: none
  std::optional<int64_t> retry_ms{};
};

// Turns a status of the daemon into an HTTP error. Fields of our own API get the names that they
// have in OpenAI's API, those of chats if `chat`. Like ToRpcStatus, it lets no internal error text
// out.
HttpError ToHttpError(const absl::Status& status, bool chat);

// An error of the request itself, found before its caller is known.
HttpError BadRequest(int status, std::string message, std::string code);

std::string ErrorJson(const HttpError& error);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_ERROR_H_
