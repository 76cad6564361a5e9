// Every API of the daemon passes its validated requests through here, which gives each a name and a
// place.
#ifndef SLUICE_SERVER_ADMIT_REQUEST_H_
#define SLUICE_SERVER_ADMIT_REQUEST_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "server/core/admission.h"
#include "server/core/stream.h"
#include "server/core/tenant.h"
#include "server/live_calls.h"

namespace sluice {

uint64_t RandomBits();

// The caller's id if it is valid, else 128 random bits in hex.
std::string RequestIdFrom(const std::string& id);

// Gets a place for `request`, which from now on is the tenant's. Errors are those of
// Admission::Admit, and RESOURCE_EXHAUSTED says when to come again.
absl::StatusOr<Permit> AdmitRequest(const Tenant& tenant, Admission* admission, Request* request);

// Returns the function that ends the stream's call while there is one.
LiveCalls::End EndOf(const std::shared_ptr<Stream>& stream);

}  // namespace sluice

#endif  // SLUICE_SERVER_ADMIT_REQUEST_H_
