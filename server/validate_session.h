// Turns messages of SessionService into what engine/sessions/sessions.h takes. Like validate.h, it
// is pure, and the only place where their bounds are checked.
#ifndef SLUICE_SERVER_VALIDATE_SESSION_H_
#define SLUICE_SERVER_VALIDATE_SESSION_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/sessions/sessions.h"
#include "server/validate.h"
#include "sluice/v1/session.pb.h"

namespace sluice {

struct NamedSession {
  std::string id;
  std::string etag;  // "": any
};

struct ListQuery {
  int32_t page_size = 0;
  std::string after_id;
  std::map<std::string, std::string> labels;
};

struct UpdateQuery {
  NamedSession session;
  SessionChange change;
};

struct ForkQuery {
  NamedSession session;
  SessionSettings settings;
};

absl::StatusOr<SessionSettings> ParseCreate(const v1::CreateSessionRequest& message,
                                            const RequestBounds& bounds);
absl::StatusOr<NamedSession> ParseGet(const v1::GetSessionRequest& message);
absl::StatusOr<ListQuery> ParseList(const v1::ListSessionsRequest& message,
                                    absl::string_view tenant);
absl::StatusOr<UpdateQuery> ParseUpdate(const v1::UpdateSessionRequest& message);
absl::StatusOr<ForkQuery> ParseFork(const v1::ForkSessionRequest& message);
absl::StatusOr<NamedSession> ParseDelete(const v1::DeleteSessionRequest& message);
absl::StatusOr<NamedSession> ParseExport(const v1::ExportSessionRequest& message);
absl::StatusOr<SessionSettings> ParseImportOptions(const v1::SessionOptions& message);

// Makes a token that asks for the sessions behind `after_id` of the same query. It is good for this
// tenant and these labels only, on any daemon.
std::string PageToken(absl::string_view tenant, const std::map<std::string, std::string>& labels,
                      absl::string_view after_id);

}  // namespace sluice

#endif  // SLUICE_SERVER_VALIDATE_SESSION_H_
