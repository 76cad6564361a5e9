#include "server/http/page.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "server/auth_table.h"

namespace sluice {
namespace {

// The hash of the text between <TAG> and </TAG>, which the page has once.
std::string HashOf(absl::string_view tag) {
  const absl::string_view page = Page();
  const std::string open = absl::StrCat("<", tag, ">");
  const size_t begin = page.find(open) + open.size();
  const size_t end = page.find(absl::StrCat("</", tag, ">"));
  SLUICE_CHECK(begin < end && end != absl::string_view::npos);
  const TokenDigest digest = DigestOf(page.substr(begin, end - begin));
  return absl::StrCat(
      "'sha256-", absl::Base64Escape({reinterpret_cast<const char*>(digest.data()), digest.size()}),
      "'");
}

}  // namespace

std::string PagePolicy() {
  return absl::StrCat("default-src 'none'; script-src ", HashOf("script"), "; style-src ",
                      HashOf("style"),
                      "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                      "frame-ancestors 'none'");
}

}  // namespace sluice
