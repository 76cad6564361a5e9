// One call on its way: what client.cc and session_client.cc share.
#ifndef SLUICE_CLIENT_CALL_H_
#define SLUICE_CLIENT_CALL_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/cancellation.h"
#include "client/client.h"
#include "client/error.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/sync_stream.h"

namespace sluice {

// A call's context, which the caller's Cancellation can reach.
class Call {
 public:
  // `session_id`: of the session that the call names, empty when it names none. Its daemon is found
  // by options.affinity, or by the id when that is empty.
  explicit Call(const CallOptions& options, absl::string_view session_id = "");
  grpc::ClientContext* context() { return &context_; }

 private:
  grpc::ClientContext context_;
  Cancellation::Scope scope_;
};

// Reads a server stream to its end, or until on_message has enough (returns false), which is OK.
template <typename Message, typename OnMessage>
absl::Status ReadStream(grpc::ClientReader<Message>* reader, grpc::ClientContext* context,
                        absl::string_view address, const OnMessage& on_message) {
  Message message;
  while (reader->Read(&message)) {
    if (on_message(message)) continue;
    context->TryCancel();
    while (reader->Read(&message)) {
    }
    reader->Finish();
    return absl::OkStatus();
  }
  return ToAbslStatus(reader->Finish(), address);
}

}  // namespace sluice

#endif  // SLUICE_CLIENT_CALL_H_
