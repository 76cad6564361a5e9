// Certificates for tests, made by OpenSSL in the process.
#ifndef SLUICE_TESTS_SERVER_MAKE_CERTIFICATE_H_
#define SLUICE_TESTS_SERVER_MAKE_CERTIFICATE_H_

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <string>

#include "absl/time/time.h"

namespace sluice {

struct TestCertificate {
  std::string cert;           // PEM
  std::string key;            // PEM
  std::string encrypted_key;  // PEM, its passphrase is "secret"
};

struct CertificateOptions {
  const char* name = "test";
  absl::Time begins = absl::InfinitePast();
  absl::Time ends = absl::InfiniteFuture();
  int rsa_bits = 0;  // 0: an elliptic curve
};

inline std::string TakeText(BIO* bio) {
  char* data = nullptr;
  const auto size = static_cast<size_t>(BIO_get_mem_data(bio, &data));
  std::string text(data, size);
  BIO_free(bio);
  return text;
}

// Signed by its own key, valid from `begins` (by default an hour before `now`) to `ends` (a day
// after).
inline TestCertificate MakeCertificate(absl::Time now, const CertificateOptions& options = {}) {
  EVP_PKEY* key = options.rsa_bits > 0 ? EVP_RSA_gen(static_cast<unsigned>(options.rsa_bits))
                                       : EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  const absl::Time begins =
      options.begins == absl::InfinitePast() ? now - absl::Hours(1) : options.begins;
  const absl::Time ends =
      options.ends == absl::InfiniteFuture() ? now + absl::Hours(24) : options.ends;
  ASN1_TIME_set(X509_getm_notBefore(certificate), absl::ToTimeT(begins));
  ASN1_TIME_set(X509_getm_notAfter(certificate), absl::ToTimeT(ends));
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(options.name), -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_sign(certificate, key, EVP_sha256());

  TestCertificate out;
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate);
  out.cert = TakeText(bio);
  bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PKCS8PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  out.key = TakeText(bio);
  bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PKCS8PrivateKey(bio, key, EVP_aes_128_cbc(), "secret", 6, nullptr, nullptr);
  out.encrypted_key = TakeText(bio);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return out;
}

}  // namespace sluice

#endif  // SLUICE_TESTS_SERVER_MAKE_CERTIFICATE_H_
