#include "server/start_call.h"

#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/status.h"
#include "server/validate.h"

namespace sluice {
namespace {

absl::StatusOr<Permit> Admit(const Tenant& tenant, Admission* admission, Request* request) {
  absl::Duration retry_delay;
  absl::StatusOr<Permit> permit =
      admission->Admit(static_cast<int64_t>(request->prompt.size()), tenant, &retry_delay);
  if (absl::IsResourceExhausted(permit.status())) return WithRetry(permit.status(), retry_delay);
  request->tenant = tenant.name;
  request->tenant_weight = tenant.limits.weight;
  request->inter_token = tenant.limits.inter_token;
  return permit;
}

// What ends the streams' call, for as long as there is one.
LiveCalls::End EndOf(const std::vector<std::shared_ptr<Stream>>& streams) {
  return [weak = std::vector<std::weak_ptr<Stream>>(streams.begin(), streams.end())](
             const absl::Status& status) {
    for (const std::weak_ptr<Stream>& one : weak) {
      // One of its own for each: the threads that they end up on share none.
      const std::shared_ptr<Stream> live = one.lock();
      if (live != nullptr) live->End(absl::Status(status.code(), status.message()));
    }
  };
}

}  // namespace

uint64_t RandomBits() {
  thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

std::string RequestIdFrom(const std::string& id) {
  if (!id.empty() && IsRequestId(id)) return id;
  return absl::StrFormat("%016x%016x", RandomBits(), RandomBits());
}

absl::Status StartCall(const InferenceParts& parts, const TenantRef& tenant,
                       std::vector<Request> requests, const CallEnds& ends) {
  std::vector<Permit> permits;
  for (Request& request : requests) {
    absl::StatusOr<Permit> permit = Admit(*tenant, parts.admission, &request);
    if (!permit.ok()) return permit.status();
    permits.push_back(*std::move(permit));
  }
  std::vector<std::shared_ptr<Stream>> streams;
  for (size_t i = 0; i < requests.size(); ++i) {
    streams.push_back(
        Stream::Create(ends.transport(i), parts.emitter, std::move(permits[i]), requests[i].n));
  }
  ends.attach(streams);
  ends.hold(parts.auth->Watch(tenant, EndOf(streams)));
  for (size_t i = 0; i < requests.size(); ++i) {
    parts.device->Submit(std::move(requests[i]), std::move(streams[i]));
  }
  return absl::OkStatus();
}

}  // namespace sluice
