#include "server/admit_request.h"

#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/status.h"
#include "server/validate.h"

namespace sluice {

uint64_t RandomBits() {
  thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

std::string RequestIdFrom(const std::string& id) {
  if (!id.empty() && IsRequestId(id)) return id;
  return absl::StrFormat("%016x%016x", RandomBits(), RandomBits());
}

absl::StatusOr<Permit> AdmitRequest(const Tenant& tenant, Admission* admission, Request* request) {
  absl::Duration retry_delay;
  absl::StatusOr<Permit> permit =
      admission->Admit(static_cast<int64_t>(request->prompt.size()), tenant, &retry_delay);
  if (absl::IsResourceExhausted(permit.status())) return WithRetry(permit.status(), retry_delay);
  request->tenant = tenant.name;
  request->tenant_weight = tenant.limits.weight;
  request->inter_token = tenant.limits.inter_token;
  return permit;
}

LiveCalls::End EndOf(const std::shared_ptr<Stream>& stream) {
  return [weak = std::weak_ptr<Stream>(stream)](absl::Status status) {
    if (const std::shared_ptr<Stream> live = weak.lock()) live->End(std::move(status));
  };
}

}  // namespace sluice
