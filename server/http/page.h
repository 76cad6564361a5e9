// The page at /, and what it may do.
#ifndef SLUICE_SERVER_HTTP_PAGE_H_
#define SLUICE_SERVER_HTTP_PAGE_H_

#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

// server/http/page.html.
absl::string_view Page();

// Its Content-Security-Policy: it talks to this port alone, and runs nothing but its own script,
// which is named by its hash.
std::string PagePolicy();

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_PAGE_H_
