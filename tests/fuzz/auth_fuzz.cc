// --auth_tokens_file on any bytes: one line of error that repeats no token, or a table whose limits
// are in their bounds.

#include <cstddef>
#include <cstdint>

#include "kernels/check.h"
#include "server/auth_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<sluice::AuthTable> table = sluice::AuthTable::Parse(text, "f");
  if (!table.ok()) {
    const absl::string_view message = table.status().message();
    SLUICE_CHECK(message.find('\n') == absl::string_view::npos && message.size() < 200);
    return 0;
  }
  for (const auto& [name, tenant] : table->tenants()) {
    SLUICE_CHECK(!name.empty() && name.size() <= 64 && name == tenant->name && name != "*");
    const sluice::TenantLimits& limits = tenant->limits;
    SLUICE_CHECK(limits.max_streams >= 1 && limits.max_queued_requests >= 1);
    SLUICE_CHECK(limits.max_queued_tokens >= 1 && limits.weight >= 1 && limits.weight <= 1000);
    SLUICE_CHECK(limits.inter_token > absl::ZeroDuration());
  }
  const sluice::TenantRef found = table->FindToken(text.substr(0, 64));
  SLUICE_CHECK(found == nullptr || table->tokens() > 0);
  (void)table->FindSubject(text.substr(0, 64));
  return 0;
}
