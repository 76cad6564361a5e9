// Whom a call belongs to, and what they may take of the daemon.
#ifndef SLUICE_SERVER_CORE_TENANT_H_
#define SLUICE_SERVER_CORE_TENANT_H_

#include <cstdint>
#include <limits>
#include <string>

#include "absl/time/time.h"

namespace sluice {

struct TenantLimits {
  static constexpr int64_t kNoBound = std::numeric_limits<int64_t>::max();

  // The same bounds as in AdmissionLimits, for this tenant alone.
  int64_t max_streams = kNoBound;
  int64_t max_queued_requests = kNoBound;
  int64_t max_queued_tokens = kNoBound;
  int32_t weight = 1;  // its share of the device beside other tenants that wait
  // The time promised between two tokens of a sequence, at the cost of tenants without a promise.
  absl::Duration inter_token = absl::InfiniteDuration();
};

struct Tenant {
  std::string name;  // empty: everyone, where nobody has to say who they are
  TenantLimits limits;
  bool by_certificate = false;  // the call showed a certificate, not a token
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_TENANT_H_
