// Implements ParseHttpHead. Boost.Beast knows the grammar; this file checks what Beast forgives.
#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/http/http_parser.h"

namespace sluice {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr size_t kMaxFields = 100;

std::string Copy(beast::string_view text) { return std::string(text.data(), text.size()); }

// Collects the request line and every field, repeated ones too. The body is none of its business.
class HeadParser final : public http::basic_parser<true> {
 public:
  explicit HeadParser(HttpHead* out) : out_(*out) {
    skip(true);
    eager(false);
  }

 private:
  using ErrorCode = boost::system::error_code;

  void on_request_impl(http::verb, beast::string_view method, beast::string_view target,
                       int version, ErrorCode& error) override {
    error = {};
    out_.method = Copy(method);
    out_.target = Copy(target);
    out_.http_1_0 = version < 11;
  }
  void on_field_impl(http::field, beast::string_view name, beast::string_view value,
                     ErrorCode& error) override {
    error = {};
    out_.fields.emplace_back(Copy(name), Copy(value));
  }
  void on_header_impl(ErrorCode& error) override {
    error = {};
    out_.keep_alive = keep_alive();
  }
  void on_finish_impl(ErrorCode& error) override { error = {}; }
  // Never called: there is no response here, and the body is skipped.
  void on_response_impl(int, beast::string_view, int, ErrorCode& error) override { error = {}; }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, ErrorCode& error) override {
    error = {};
  }
  std::size_t on_body_impl(beast::string_view text, ErrorCode& error) override {
    error = {};
    return text.size();
  }
  void on_chunk_header_impl(std::uint64_t, beast::string_view, ErrorCode& error) override {
    error = {};
  }
  std::size_t on_chunk_body_impl(std::uint64_t, beast::string_view text,
                                 ErrorCode& error) override {
    error = {};
    return text.size();
  }

  HttpHead& out_;
};

HttpFault Bad(std::string why) { return {400, std::move(why)}; }

// True for versions of HTTP other than 1.0 and 1.1.
bool IsOtherVersion(absl::string_view text) {
  const absl::string_view line = text.substr(0, text.find("\r\n"));
  const size_t space = line.rfind(' ');
  if (space == absl::string_view::npos) return false;
  absl::string_view version = line.substr(space + 1);
  return absl::ConsumePrefix(&version, "HTTP/") && version.size() == 3 && version[1] == '.' &&
         absl::ascii_isdigit(static_cast<unsigned char>(version[0])) &&
         absl::ascii_isdigit(static_cast<unsigned char>(version[2])) && version != "1.0" &&
         version != "1.1";
}

constexpr char kUnknownCoding[] = "a Transfer-Encoding other than chunked is not implemented";

// Beast stops at the first field at fault, whichever comes first: the answer depends on no order.
bool HasUnknownCoding(absl::string_view text) {
  for (const absl::string_view line : absl::StrSplit(text, "\r\n")) {
    const size_t colon = line.find(':');
    if (colon != absl::string_view::npos &&
        absl::EqualsIgnoreCase(line.substr(0, colon), "transfer-encoding") &&
        !absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(line.substr(colon + 1)), "chunked")) {
      return true;
    }
  }
  return false;
}

HttpFault FaultOf(const boost::system::error_code& error, absl::string_view text) {
  if (error == http::error::bad_content_length || error == http::error::bad_transfer_encoding) {
    if (HasUnknownCoding(text)) return {501, kUnknownCoding};
  }
  if (error == http::error::bad_version && IsOtherVersion(text)) {
    return {505, "this is not HTTP/1.1 or HTTP/1.0"};
  }
  if (error == http::error::bad_content_length) {
    return Bad("the Content-Length is not one whole number, or stands beside Transfer-Encoding");
  }
  if (error == http::error::bad_transfer_encoding) {
    return Bad("Transfer-Encoding stands beside Content-Length, or twice");
  }
  return Bad(absl::StrCat("the head of the request is malformed: ", error.message()));
}

bool IsHost(absl::string_view host) {
  return std::all_of(host.begin(), host.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           absl::StrContains("-._~!$&'()*+,;=:%[]", c);
  });
}

HttpFault CheckHost(const HttpHead& head) {
  const std::vector<absl::string_view> hosts = head.FindAll("host");
  if (hosts.size() > 1) return Bad("there is more than one Host");
  if (hosts.empty()) return head.http_1_0 ? HttpFault() : Bad("there is no Host");
  return IsHost(hosts[0]) ? HttpFault() : Bad("the Host is no host");
}

HttpFault CheckFraming(HttpHead* head) {
  const std::vector<absl::string_view> codings = head->FindAll("transfer-encoding");
  const std::vector<absl::string_view> lengths = head->FindAll("content-length");
  if (!codings.empty()) {
    if (codings.size() > 1 || !absl::EqualsIgnoreCase(codings[0], "chunked")) {
      return {501, kUnknownCoding};
    }
    if (!lengths.empty()) return Bad("there are Content-Length and Transfer-Encoding");
    if (head->http_1_0) return Bad("HTTP/1.0 has no Transfer-Encoding");
    head->chunked = true;
  }
  if (lengths.size() > 1) return Bad("there is more than one Content-Length");
  if (lengths.empty()) return {};
  const bool digits =
      !lengths[0].empty() && std::all_of(lengths[0].begin(), lengths[0].end(), [](char c) {
        return absl::ascii_isdigit(static_cast<unsigned char>(c));
      });
  if (!digits || !absl::SimpleAtoi(lengths[0], &head->content_length)) {
    return Bad("the Content-Length is not a whole number");
  }
  return {};
}

// RFC 9112 3.2: the origin's form, the absolute one, or '*'.
HttpFault CheckTarget(HttpHead* head) {
  absl::string_view target = head->target;
  const auto visible = [](char c) { return c > 0x20 && c < 0x7f; };
  if (!std::all_of(target.begin(), target.end(), visible)) return Bad("the target is no URI");
  if (absl::StartsWithIgnoreCase(target, "http://") ||
      absl::StartsWithIgnoreCase(target, "https://")) {
    target.remove_prefix(target.find("//") + 2);
    const size_t path = target.find_first_of("/?");
    if (path == 0 || !IsHost(target.substr(0, path))) return Bad("the target has no host");
    target = path == absl::string_view::npos ? "/" : target.substr(path);
    if (target[0] == '?') target = "/";
  }
  if (target[0] != '/' && target != "*") return Bad("the target is no path");
  std::optional<std::string> path = PercentDecode(target.substr(0, target.find_first_of("?#")));
  if (!path.has_value()) return Bad("the target has a '%' without two hexadecimal digits");
  head->path = *std::move(path);
  return {};
}

HttpFault CheckExpect(HttpHead* head) {
  for (const absl::string_view expected : head->FindAll("expect")) {
    if (!absl::EqualsIgnoreCase(expected, "100-continue")) {
      return {417, "an Expect other than 100-continue cannot be met"};
    }
    head->expects_continue = !head->http_1_0 && head->has_body();
  }
  return {};
}

}  // namespace

HttpFault ParseHttpHead(absl::string_view text, HttpHead* out) {
  // Beast's own bound is for the whole, which is bounded here by the caller.
  if (static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) > kMaxFields + 2) {
    return {431, absl::StrCat("the head has more than ", kMaxFields, " fields")};
  }
  *out = HttpHead();
  HeadParser parser(out);
  parser.header_limit(static_cast<std::uint32_t>(text.size() + 1));
  boost::system::error_code error;
  const size_t used = parser.put(boost::asio::const_buffer(text.data(), text.size()), error);
  if (error) return FaultOf(error, text);
  if (!parser.is_header_done() || used != text.size()) return Bad("the head is malformed");
  for (const auto check : {&CheckFraming, &CheckTarget, &CheckExpect}) {
    HttpFault fault = check(out);
    if (fault.status != 0) return fault;
  }
  return CheckHost(*out);
}

}  // namespace sluice
