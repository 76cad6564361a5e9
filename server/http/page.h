// The page at /, as it is in page.html.
#ifndef SLUICE_SERVER_HTTP_PAGE_H_
#define SLUICE_SERVER_HTTP_PAGE_H_

#include "absl/strings/string_view.h"

namespace sluice {

absl::string_view Page();
// Its Content-Security-Policy: nothing from anywhere else, nothing to anywhere else.
absl::string_view PagePolicy();

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_PAGE_H_
