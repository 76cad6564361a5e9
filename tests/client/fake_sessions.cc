#include "tests/client/fake_sessions.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sluice {

std::string AffinityOf(const grpc::ServerContext& context) {
  const auto found = context.client_metadata().find("x-sluice-affinity");
  if (found == context.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
}

v1::Session& FakeSessions::Add(const std::string& id) {
  v1::Session& session = sessions_[id];
  session.set_id(id);
  session.set_affinity(id);
  session.set_etag(absl::StrCat("e", ++etags_));
  return session;
}

grpc::Status FakeSessions::Find(const std::string& id, const std::string& etag,
                                v1::Session** session) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) {
    return {grpc::StatusCode::NOT_FOUND, absl::StrCat("there is no session '", id, "'")};
  }
  *session = &found->second;
  if (etag.empty() || etag == found->second.etag()) return grpc::Status::OK;
  return {grpc::StatusCode::ABORTED, "the etag is not current"};
}

grpc::Status FakeSessions::Commit(const v1::GenerateRequest& request, v1::Session* after) {
  v1::Session* session = nullptr;
  grpc::Status status = Find(request.session_id(), request.etag(), &session);
  if (!status.ok()) return status;
  session->set_position(session->position() + 10);
  session->set_etag(absl::StrCat("e", ++etags_));
  *after = *session;
  return grpc::Status::OK;
}

grpc::Status FakeSessions::Make(const v1::SessionOptions& wanted, const v1::Session& from,
                                v1::Session* out) {
  options = wanted;
  if (wanted.id() == fork_refused && !fork_refused.empty()) {
    return {grpc::StatusCode::RESOURCE_EXHAUSTED, "full"};
  }
  if (sessions_.count(wanted.id()) > 0) return {grpc::StatusCode::ALREADY_EXISTS, "taken"};
  v1::Session& session = Add(wanted.id().empty() ? absl::StrCat("s", etags_) : wanted.id());
  session.set_position(from.position());
  if (!from.affinity().empty()) session.set_affinity(from.affinity());
  if (!wanted.affinity().empty()) session.set_affinity(wanted.affinity());
  *session.mutable_labels() = wanted.labels();
  *out = session;
  return grpc::Status::OK;
}

grpc::Status FakeSessions::CreateSession(grpc::ServerContext* context,
                                         const v1::CreateSessionRequest* request,
                                         v1::Session* session) {
  affinity = AffinityOf(*context);
  return Make(request->options(), {}, session);
}

grpc::Status FakeSessions::GetSession(grpc::ServerContext* context,
                                      const v1::GetSessionRequest* request, v1::Session* session) {
  affinity = AffinityOf(*context);
  v1::Session* found = nullptr;
  grpc::Status status = Find(request->id(), "", &found);
  if (status.ok()) *session = *found;
  return status;
}

grpc::Status FakeSessions::ListSessions(grpc::ServerContext*,
                                        const v1::ListSessionsRequest* request,
                                        v1::ListSessionsResponse* response) {
  constexpr int kPage = 2;
  auto next = sessions_.upper_bound(request->page_token());
  for (; next != sessions_.end() && response->sessions_size() < kPage; ++next) {
    const bool wanted =
        std::all_of(request->labels().begin(), request->labels().end(), [&](const auto& label) {
          const auto found = next->second.labels().find(label.first);
          return found != next->second.labels().end() && found->second == label.second;
        });
    if (wanted) *response->add_sessions() = next->second;
  }
  if (next != sessions_.end()) response->set_next_page_token(std::prev(next)->first);
  return grpc::Status::OK;
}

grpc::Status FakeSessions::UpdateSession(grpc::ServerContext*,
                                         const v1::UpdateSessionRequest* request,
                                         v1::Session* session) {
  update = *request;
  v1::Session* found = nullptr;
  grpc::Status status = Find(request->session().id(), request->session().etag(), &found);
  if (!status.ok()) return status;
  *found->mutable_labels() = request->session().labels();
  *session = *found;
  return status;
}

grpc::Status FakeSessions::ForkSession(grpc::ServerContext* context,
                                       const v1::ForkSessionRequest* request,
                                       v1::Session* session) {
  affinity = AffinityOf(*context);
  v1::Session* found = nullptr;
  grpc::Status status = Find(request->id(), request->etag(), &found);
  return status.ok() ? Make(request->options(), v1::Session(*found), session) : status;
}

grpc::Status FakeSessions::DeleteSession(grpc::ServerContext*,
                                         const v1::DeleteSessionRequest* request,
                                         google::protobuf::Empty*) {
  v1::Session* found = nullptr;
  grpc::Status status = Find(request->id(), request->etag(), &found);
  if (status.ok()) sessions_.erase(request->id());
  return status;
}

grpc::Status FakeSessions::ExportSession(grpc::ServerContext* context,
                                         const v1::ExportSessionRequest* request,
                                         grpc::ServerWriter<v1::ExportSessionResponse>* writer) {
  affinity = AffinityOf(*context);
  v1::Session* found = nullptr;
  grpc::Status status = Find(request->id(), request->etag(), &found);
  if (!status.ok()) return status;
  for (const std::string& piece : export_pieces) {
    v1::ExportSessionResponse response;
    response.set_data(piece);
    writer->Write(response);
  }
  return status;
}

grpc::Status FakeSessions::ImportSession(grpc::ServerContext* context,
                                         grpc::ServerReader<v1::ImportSessionRequest>* reader,
                                         v1::Session* session) {
  affinity = AffinityOf(*context);
  v1::ImportSessionRequest request;
  v1::SessionOptions wanted;
  if (reader->Read(&request)) wanted = request.options();
  imported.clear();
  while (reader->Read(&request)) {
    imported += request.data();
    if (!import_status.ok()) return import_status;
  }
  if (context->IsCancelled()) return grpc::Status::CANCELLED;
  return Make(wanted, {}, session);
}

}  // namespace sluice
