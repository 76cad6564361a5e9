// Every door of the daemon starts its calls here: names them, lets their requests in, and submits
// them.
#ifndef SLUICE_SERVER_START_CALL_H_
#define SLUICE_SERVER_START_CALL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/request.h"
#include "server/core/stream.h"
#include "server/core/stream_transport.h"
#include "server/core/tenant.h"
#include "server/inference_parts.h"
#include "server/live_calls.h"

namespace sluice {

uint64_t RandomBits();

// The caller's, if it is one, else 128 random bits in hex.
std::string RequestIdFrom(const std::string& id);

// The sides of a call that its door provides.
struct CallEnds {
  // Gives the transport that the events of the request of this index go to.
  absl::FunctionRef<std::shared_ptr<StreamTransport>(size_t request)> transport;
  // Takes one stream for each request, before any of them starts.
  absl::FunctionRef<void(std::vector<std::shared_ptr<Stream>>)> attach;
  // Keeps the call's place among those that end when the tenant is no longer let in.
  absl::FunctionRef<void(LiveCalls::Place)> hold;
};

// Lets all requests of a call in, validated ones that are the tenant's from now on, and starts
// them. Not OK: none was started, and nothing of `ends` was called. As Admission::Admit, and
// RESOURCE_EXHAUSTED says when to come again. Any thread.
absl::Status StartCall(const InferenceParts& parts, const TenantRef& tenant,
                       std::vector<Request> requests, const CallEnds& ends);

}  // namespace sluice

#endif  // SLUICE_SERVER_START_CALL_H_
