// /v1/sessions: HTTP's door to SessionCalls, beside gRPC's SessionService.
#ifndef SLUICE_SERVER_HTTP_SESSION_DOOR_H_
#define SLUICE_SERVER_HTTP_SESSION_DOOR_H_

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "server/auth_table.h"
#include "server/call_stats.h"
#include "server/http/http_exchange.h"
#include "server/http/http_server.h"
#include "server/inference_parts.h"
#include "server/session_calls.h"

namespace sluice {

// A request about sessions whose caller is known.
struct SessionHttpCall {
  std::shared_ptr<HttpExchange> exchange;
  TenantRef tenant;
  CallRecord record;
  std::string id;  // in the path; empty: none
};

// Its methods run on the HTTP server's thread: none of them waits.
class SessionDoor {
 public:
  // Both outlive the object.
  SessionDoor(SessionCalls* calls, const InferenceParts* parts) : calls_(calls), parts_(parts) {}

  // Does what the record's method is, and answers.
  void Serve(const SessionHttpCall& call, absl::string_view body) const;
  // Takes the body as it comes. Gives what is to be called at its end, or null if it has answered.
  HttpServer::BodyHandler Import(const SessionHttpCall& call) const;

 private:
  void Create(const SessionHttpCall& call, absl::string_view body) const;
  void Get(const SessionHttpCall& call) const;
  void List(const SessionHttpCall& call) const;
  void Update(const SessionHttpCall& call, absl::string_view body) const;
  void Fork(const SessionHttpCall& call, absl::string_view body) const;
  void Delete(const SessionHttpCall& call) const;
  void Export(const SessionHttpCall& call) const;

  void Refuse(const SessionHttpCall& call, const absl::Status& status) const;
  void Reply(const SessionHttpCall& call, HttpReply reply) const;
  // Answers with the session, or with the error.
  Done<v1::Session> Answer(const SessionHttpCall& call) const;

  SessionCalls* const calls_;
  const InferenceParts* const parts_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_SESSION_DOOR_H_
