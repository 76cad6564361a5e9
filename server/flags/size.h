// Sizes in bytes, as people write them.
#ifndef SLUICE_SERVER_FLAGS_SIZE_H_
#define SLUICE_SERVER_FLAGS_SIZE_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace sluice {

// "4096", "64K", "1.5G", "2GiB": K, M, G and T are powers of 1,024, in either case, and may be
// followed by "B" or "iB". Nullopt for anything else, for a fraction of a byte, and beyond int64_t.
absl::optional<int64_t> ParseSize(absl::string_view text);

}  // namespace sluice

#endif  // SLUICE_SERVER_FLAGS_SIZE_H_
