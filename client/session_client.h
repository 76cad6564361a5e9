// Sessions of a daemon: made, found, forked, moved and ended.
//
//   const sluice::SessionClient sessions(client);
//   absl::StatusOr<sluice::v1::Session> story = sessions.Create({}, {});
//   request.set_session_id(story->id());
//   client.Generate(request, {.affinity = story->affinity()}, on_event);
//
// Calls block, and fail, as those of Client do. Each carries the session's affinity, by which a
// proxy finds the daemon that has the state: CallOptions::affinity, or the session's id. Threads
// may share one.
#ifndef SLUICE_CLIENT_SESSION_CLIENT_H_
#define SLUICE_CLIENT_SESSION_CLIENT_H_

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/client.h"
#include "sluice/v1/session.pb.h"

namespace sluice {

// 128 random bits in hex, which name a session that is given no id.
std::string NewSessionId();

class SessionClient {
 public:
  // Shares the client's connection, and may outlive the client.
  explicit SessionClient(const Client& client)
      : channel_(client.channel()), address_(client.address()) {}

  // An absent id is chosen here, and the affinity is the id where the options have none, so that
  // the call itself goes to the daemon that later calls go to. The same holds for Import.
  absl::StatusOr<v1::Session> Create(v1::CreateSessionRequest request,
                                     const CallOptions& call) const;
  absl::StatusOr<v1::Session> Get(const std::string& id, const CallOptions& call) const;
  // Calls on_session for each, in the order of ids, until it returns false. Asks for page after
  // page: request.page_size is the size of those.
  absl::Status List(v1::ListSessionsRequest request, const CallOptions& call,
                    absl::FunctionRef<bool(const v1::Session&)> on_session) const;
  absl::StatusOr<v1::Session> Update(const v1::UpdateSessionRequest& request,
                                     const CallOptions& call) const;
  absl::StatusOr<v1::Session> Fork(const v1::ForkSessionRequest& request,
                                   const CallOptions& call) const;
  absl::Status Remove(const v1::DeleteSessionRequest& request, const CallOptions& call) const;
  // Hands out the session's bytes, piece by piece. An error of on_data ends the call and is
  // returned. The bytes are whole only when this returns OK.
  absl::Status Export(const v1::ExportSessionRequest& request, const CallOptions& call,
                      absl::FunctionRef<absl::Status(absl::string_view)> on_data) const;
  // Sends what next_piece returns until that is empty. An error of next_piece ends the call and is
  // returned: no session is made.
  absl::StatusOr<v1::Session> Import(
      v1::SessionOptions options, const CallOptions& call,
      absl::FunctionRef<absl::StatusOr<std::string>()> next_piece) const;

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::string address_;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_SESSION_CLIENT_H_
