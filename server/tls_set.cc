#include "server/tls_set.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/file_watch.h"

namespace sluice {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Freer<&BIO_free>>;
using Certificate = std::unique_ptr<X509, Freer<&X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<&EVP_PKEY_free>>;
using Context = std::unique_ptr<SSL_CTX, Freer<&SSL_CTX_free>>;

// OpenSSL's text for its last failure in this thread.
std::string Reason() {
  const auto code = ERR_peek_last_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return reason == nullptr ? "cannot be used" : reason;
}

absl::Status Bad(absl::string_view why) { return absl::InvalidArgumentError(why); }

Bio Reader(absl::string_view pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);  // NOLINT: OpenSSL's own type
  return std::string(data, static_cast<size_t>(size));
}

// A file that is cut off in the line that begins a block would otherwise pass for one without it.
bool EndsWithinBlock(absl::string_view pem) {
  constexpr absl::string_view kBegin = "-----BEGIN ";
  const size_t last = pem.rfind("\n-");
  const absl::string_view rest = last == absl::string_view::npos ? pem : pem.substr(last + 1);
  const absl::string_view line = rest.substr(0, rest.find_first_of("\r\n"));
  return absl::StartsWith(line, kBegin) || (!line.empty() && absl::StartsWith(kBegin, line));
}

absl::StatusOr<std::vector<Certificate>> ParseCertificates(absl::string_view pem) {
  if (pem.empty()) return Bad("the file is empty");
  const Bio bio = Reader(pem);
  std::vector<Certificate> certificates;
  ERR_clear_error();
  while (X509* one = PEM_read_bio_X509_AUX(bio.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(one);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (!at_end) return Bad(Reason());
  ERR_clear_error();
  if (EndsWithinBlock(pem)) return Bad("the file ends within a PEM block");
  if (certificates.empty()) return Bad("no start line of a PEM certificate");
  return certificates;
}

// PEM asks for a passphrase: there is nobody to ask.
int NotePassphrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

absl::StatusOr<Key> ParseKey(absl::string_view pem) {
  if (pem.empty()) return Bad("the file is empty");
  const Bio bio = Reader(pem);
  bool encrypted = false;
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &NotePassphrase, &encrypted));
  if (key != nullptr) return key;
  ERR_clear_error();  // its reason for most files is "unsupported"
  return Bad(encrypted ? "the key is encrypted; it must have no passphrase"
                       : "no private key in PEM, or a part of one alone");
}

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm utc{};
  if (ASN1_TIME_to_tm(time, &utc) != 1) return absl::InfinitePast();
  return absl::FromTimeT(timegm(&utc));
}

// OK, or how a certificate misses `now`.
absl::Status CheckDates(const X509* certificate, absl::Time now) {
  const absl::Time begins = TimeOf(X509_get0_notBefore(certificate));
  const absl::Time ends = TimeOf(X509_get0_notAfter(certificate));
  const auto utc = [](absl::Time time) { return absl::FormatTime(time, absl::UTCTimeZone()); };
  if (now < begins) return Bad(absl::StrCat("the certificate is not valid before ", utc(begins)));
  if (now > ends) return Bad(absl::StrCat("the certificate expired at ", utc(ends)));
  return absl::OkStatus();
}

absl::Status CheckAuthorities(const std::vector<Certificate>& authorities, absl::Time now) {
  absl::Status status;
  for (const Certificate& authority : authorities) {
    status = CheckDates(authority.get(), now);
    if (status.ok()) return status;
  }
  return status;
}

// Lets OpenSSL check what no parser does: its security level refuses small keys, for instance.
absl::Status CheckUsable(X509* certificate) {
  const Context context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr) return absl::InternalError("OpenSSL does not start");
  if (SSL_CTX_use_certificate(context.get(), certificate) != 1) return Bad(Reason());
  return absl::OkStatus();
}

std::string ChainPem(const std::vector<Certificate>& chain) {
  const Bio bio(BIO_new(BIO_s_mem()));
  for (const Certificate& one : chain) PEM_write_bio_X509(bio.get(), one.get());
  return TextOf(bio.get());
}

// The trust settings of each authority are kept, where the file has some.
std::string AuthoritiesPem(const std::vector<Certificate>& authorities) {
  const Bio bio(BIO_new(BIO_s_mem()));
  for (const Certificate& one : authorities) PEM_write_bio_X509_AUX(bio.get(), one.get());
  return TextOf(bio.get());
}

std::string KeyPem(EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return TextOf(bio.get());
}

// `status` with the flag and the file in front.
absl::Status Named(absl::string_view flag, const std::string& path, const absl::Status& status) {
  absl::string_view why = status.message();
  absl::ConsumePrefix(&why, absl::StrCat(path, ": "));
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", path, ": ", why));
}

// Reads `path` and parses it. The error names both.
template <typename Parse>
auto Load(absl::string_view flag, const std::string& path, Parse parse)
    -> decltype(parse(absl::string_view())) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxFileBytes);
  if (!text.ok()) return Named(flag, path, text.status());
  auto parsed = parse(*text);
  if (!parsed.ok()) return Named(flag, path, parsed.status());
  return parsed;
}

}  // namespace

absl::StatusOr<TlsSet> ReadTlsSet(const TlsFiles& files, absl::Time now) {
  const auto chain = Load("tls_cert", files.cert, &ParseCertificates);
  if (!chain.ok()) return chain.status();
  X509* const certificate = chain->front().get();
  absl::Status status = CheckDates(certificate, now);
  if (!status.ok()) return Named("tls_cert", files.cert, status);

  const auto key = Load("tls_key", files.key, &ParseKey);
  if (!key.ok()) return key.status();
  ERR_clear_error();
  if (X509_check_private_key(certificate, key->get()) != 1) {
    return Named("tls_key", files.key, Bad(Reason()));
  }
  TlsSet set;
  if (!files.client_ca.empty()) {
    const auto authorities = Load("tls_client_ca", files.client_ca, &ParseCertificates);
    if (!authorities.ok()) return authorities.status();
    status = CheckAuthorities(*authorities, now);
    if (!status.ok()) return Named("tls_client_ca", files.client_ca, status);
    set.client_ca = AuthoritiesPem(*authorities);
  }
  status = CheckUsable(certificate);
  if (!status.ok()) return Named("tls_cert", files.cert, status);
  set.cert = ChainPem(*chain);
  set.key = KeyPem(key->get());
  set.expires = TimeOf(X509_get0_notAfter(certificate));
  return set;
}

}  // namespace sluice
