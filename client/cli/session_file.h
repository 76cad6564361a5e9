// Sessions in files: what ExportSession sends, byte for byte.
#ifndef SLUICE_CLIENT_CLI_SESSION_FILE_H_
#define SLUICE_CLIENT_CLI_SESSION_FILE_H_

#include <cstdint>
#include <istream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/session_client.h"

namespace sluice {

// Returns the bytes written. The file is written whole or not at all; an older one stays until
// then.
absl::StatusOr<int64_t> SaveSession(const SessionClient& sessions,
                                    const v1::ExportSessionRequest& request,
                                    const CallOptions& call, const std::string& file);

absl::StatusOr<v1::Session> LoadSession(const SessionClient& sessions,
                                        const v1::SessionOptions& options, const CallOptions& call,
                                        const std::string& file);
absl::StatusOr<v1::Session> LoadSession(const SessionClient& sessions,
                                        const v1::SessionOptions& options, const CallOptions& call,
                                        std::istream& in);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_SESSION_FILE_H_
