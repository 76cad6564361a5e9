#include "client/credentials.h"

#include <fstream>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/open_file.h"

namespace sluice {
namespace {

absl::Status ReadPem(const std::string& path, grpc::string* out) {
  if (path.empty()) return absl::OkStatus();
  std::ifstream file;
  const absl::Status opened = OpenFile(path, &file);
  if (!opened.ok()) return opened;
  out->assign(std::istreambuf_iterator<char>(file), {});
  if (!file.bad() && !out->empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, ": empty"));
}

class TokenInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit TokenInterceptor(const std::string* header) : header_(header) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using Point = grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(Point::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->emplace("authorization", *header_);
    }
    methods->Proceed();
  }

 private:
  const std::string* const header_;
};

class TokenInterceptorFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TokenInterceptorFactory(const std::string& token)
      : header_(absl::StrCat("Bearer ", token)) {}

  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new TokenInterceptor(&header_);
  }

 private:
  const std::string header_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsCredentials(const TlsFiles& files) {
  if (files.cert.empty() != files.key.empty()) {
    return absl::InvalidArgumentError("a client certificate and its key are given together");
  }
  grpc::SslCredentialsOptions options;
  absl::Status status = ReadPem(files.ca, &options.pem_root_certs);
  status.Update(ReadPem(files.cert, &options.pem_cert_chain));
  status.Update(ReadPem(files.key, &options.pem_private_key));
  if (!status.ok()) return status;
  return grpc::SslCredentials(options);
}

std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface> SendToken(
    const std::string& token) {
  return std::make_unique<TokenInterceptorFactory>(token);
}

}  // namespace sluice
