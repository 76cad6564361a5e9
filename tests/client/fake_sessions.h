// Sessions without states: enough of SessionService for the client's tests.
#ifndef SLUICE_TESTS_CLIENT_FAKE_SESSIONS_H_
#define SLUICE_TESTS_CLIENT_FAKE_SESSIONS_H_

#include <map>
#include <string>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "sluice/v1/generate.pb.h"
#include "sluice/v1/session.grpc.pb.h"

namespace sluice {

// Metadata x-sluice-affinity; "" without.
std::string AffinityOf(const grpc::ServerContext& context);

// One call at a time.
class FakeSessions : public v1::SessionService::Service {
 public:
  // Facts of the last call.
  std::string affinity;
  v1::SessionOptions options;       // of Create, Fork and Import
  v1::UpdateSessionRequest update;  // of Update
  std::vector<std::string> export_pieces = {"SLUI", "CE"};
  std::string imported;        // data of the last Import
  grpc::Status import_status;  // spoken when the first piece has come
  std::string fork_refused;    // a session's id that no fork can get

  v1::Session& Add(const std::string& id);
  std::map<std::string, v1::Session>& all() { return sessions_; }
  // A call moved the session on.
  grpc::Status Commit(const v1::GenerateRequest& request, v1::Session* after);

  grpc::Status CreateSession(grpc::ServerContext* context, const v1::CreateSessionRequest* request,
                             v1::Session* session) override;
  grpc::Status GetSession(grpc::ServerContext* context, const v1::GetSessionRequest* request,
                          v1::Session* session) override;
  grpc::Status ListSessions(grpc::ServerContext* context, const v1::ListSessionsRequest* request,
                            v1::ListSessionsResponse* response) override;
  grpc::Status UpdateSession(grpc::ServerContext* context, const v1::UpdateSessionRequest* request,
                             v1::Session* session) override;
  grpc::Status ForkSession(grpc::ServerContext* context, const v1::ForkSessionRequest* request,
                           v1::Session* session) override;
  grpc::Status DeleteSession(grpc::ServerContext* context, const v1::DeleteSessionRequest* request,
                             google::protobuf::Empty* nothing) override;
  grpc::Status ExportSession(grpc::ServerContext* context, const v1::ExportSessionRequest* request,
                             grpc::ServerWriter<v1::ExportSessionResponse>* writer) override;
  grpc::Status ImportSession(grpc::ServerContext* context,
                             grpc::ServerReader<v1::ImportSessionRequest>* reader,
                             v1::Session* session) override;

 private:
  // The session of that id and etag, or why not.
  grpc::Status Find(const std::string& id, const std::string& etag, v1::Session** session);
  grpc::Status Make(const v1::SessionOptions& wanted, const v1::Session& from, v1::Session* out);

  std::map<std::string, v1::Session> sessions_;
  int etags_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CLIENT_FAKE_SESSIONS_H_
