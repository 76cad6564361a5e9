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

// What a status of the daemon is on this door. Fields of our own API get the names they have in
// OpenAI's: of a chat's, where `chat` says so. As ToRpcStatus: nothing of the inside gets out.
HttpError ToHttpError(const absl::Status& status, bool chat);

// An error of the request itself, before it is anybody's.
HttpError BadRequest(int status, std::string message, std::string code);

std::string ErrorJson(const HttpError& error);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_ERROR_H_
