// What SessionService offers, for whichever door a call comes through: each call is validated here
// and done on the device thread, which owns the sessions.
//
// `done` is called once: at once with the error of a call that is refused, else on the answering
// thread. A caller has proved whose `tenant` it is. Any thread.
#ifndef SLUICE_SERVER_SESSION_CALLS_H_
#define SLUICE_SERVER_SESSION_CALLS_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/sessions/sessions.h"
#include "engine/state/state_blob.h"
#include "google/protobuf/empty.pb.h"
#include "server/session_parts.h"
#include "server/validate.h"
#include "server/validate_session.h"
#include "sluice/v1/session.pb.h"

namespace sluice {

class SessionCalls;

// A session whose bytes come in, in pieces of any size. It counts among the imports that hold
// memory until its destruction. One thread at a time.
class SessionImport {
 public:
  ~SessionImport();
  SessionImport(const SessionImport&) = delete;
  SessionImport& operator=(const SessionImport&) = delete;

  // Takes the next bytes, by the rules of BlobReader::Add.
  absl::Status Add(absl::string_view piece) { return reader_.Add(piece); }
  // After the last piece, once: makes the session.
  void Finish(const SessionSettings& settings, Done<v1::Session> done);

 private:
  friend class SessionCalls;
  SessionImport(SessionCalls* calls, const std::string& tenant);

  SessionCalls* const calls_;
  const std::string tenant_;
  BlobReader reader_;
};

class SessionCalls {
 public:
  // What `parts` refers to outlives the object.
  SessionCalls(const SessionParts& parts, const RequestBounds& bounds)
      : parts_(parts), bounds_(bounds) {}

  const SessionParts& parts() const { return parts_; }
  // UNIMPLEMENTED on a daemon that was told to have no sessions.
  absl::Status Offered() const;

  void Create(const std::string& tenant, const v1::CreateSessionRequest& message,
              Done<v1::Session> done) const;
  void Get(const std::string& tenant, const v1::GetSessionRequest& message,
           Done<v1::Session> done) const;
  // The same for the daemon's own use.
  void Look(const std::string& tenant, const v1::GetSessionRequest& message,
            Done<SessionInfo> done) const;
  void List(const std::string& tenant, const v1::ListSessionsRequest& message,
            Done<v1::ListSessionsResponse> done) const;
  void Update(const std::string& tenant, const v1::UpdateSessionRequest& message,
              Done<v1::Session> done) const;
  void Fork(const std::string& tenant, const v1::ForkSessionRequest& message,
            Done<v1::Session> done) const;
  void Delete(const std::string& tenant, const v1::DeleteSessionRequest& message,
              Done<google::protobuf::Empty> done) const;
  // `done` gets the committed state, for NewBlob.
  void Export(const std::string& tenant, const v1::ExportSessionRequest& message,
              Done<ExportedState> done) const;
  std::unique_ptr<BlobWriter> NewBlob(const std::string& tenant, const ExportedState& state) const;
  // FAILED_PRECONDITION without a state key, RESOURCE_EXHAUSTED when too many come in. Outlives
  // what it gives.
  absl::StatusOr<std::unique_ptr<SessionImport>> StartImport(const std::string& tenant);

 private:
  friend class SessionImport;

  // Has `act` run on the device thread for a query that was understood.
  template <typename Query, typename Result>
  void Run(absl::StatusOr<Query> query, std::function<void(Sessions&, const Query&)> act,
           const Done<Result>& done) const;
  // `done` on the answering thread: the device's has better things to do than to make messages.
  template <typename T>
  Done<T> OnAnswers(Done<T> done) const;
  Done<SessionInfo> AsMessage(Done<v1::Session> done) const;
  v1::ListSessionsResponse ToMessage(const std::string& tenant, const ListQuery& query,
                                     const SessionPage& page) const;

  const SessionParts parts_;
  const RequestBounds bounds_;
  std::atomic<int> imports_{0};
};

}  // namespace sluice

#endif  // SLUICE_SERVER_SESSION_CALLS_H_
