#include "server/early_calls.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/auth_metadata_processor.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"

namespace sluice {
namespace {

// The property of gRPC's context that holds the connection's number.
constexpr char kProperty[] = "sluice-connection";
// Connections that are closed are forgotten behind as many newer ones.
constexpr size_t kConnections = 4096;
constexpr char kRefused[] =
    "too many calls of this connection have begun and not come whole: send their messages, or "
    "make a new connection";

uint64_t Parse(absl::string_view number) {
  uint64_t value = 0;
  return absl::SimpleAtoi(number, &value) ? value : 0;
}

uint64_t NumberOf(const grpc_auth_context* context) {
  grpc_auth_property_iterator it = grpc_auth_context_find_properties_by_name(context, kProperty);
  const grpc_auth_property* property = grpc_auth_property_iterator_next(&it);
  return property == nullptr ? 0 : Parse({property->value, property->value_length});
}

uint64_t NumberOf(const grpc::AuthContext& context) {
  const std::vector<grpc::string_ref> values = context.FindPropertyValues(kProperty);
  return values.empty() ? 0 : Parse({values.front().data(), values.front().size()});
}

// gRPC's processor in C, which is the only one that plaintext can have.
void ProcessHead(void* state, grpc_auth_context* context, const grpc_metadata*, size_t,
                 grpc_process_auth_metadata_done_cb done, void* user_data) {
  auto* calls = static_cast<EarlyCalls*>(state);
  uint64_t number = NumberOf(context);
  if (number == 0) {
    number = calls->Number();
    grpc_auth_context_add_cstring_property(context, kProperty, std::to_string(number).c_str());
  }
  const bool admitted = calls->Begin(number);
  done(user_data, nullptr, 0, nullptr, 0,
       admitted ? GRPC_STATUS_OK : GRPC_STATUS_RESOURCE_EXHAUSTED, admitted ? nullptr : kRefused);
}

class Plaintext final : public grpc::ServerCredentials {
 public:
  explicit Plaintext(EarlyCalls* calls) : calls_(calls) {}
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    grpc_server_credentials* insecure = grpc_insecure_server_credentials_create();
    grpc_server_credentials_set_auth_metadata_processor(insecure, {&ProcessHead, nullptr, calls_});
    const int port = grpc_server_add_http2_port(server, address.c_str(), insecure);
    grpc_server_credentials_release(insecure);
    return port;
  }

  EarlyCalls* const calls_;
};

class HeadProcessor final : public grpc::AuthMetadataProcessor {
 public:
  explicit HeadProcessor(EarlyCalls* calls) : calls_(calls) {}
  bool IsBlocking() const override { return false; }
  grpc::Status Process(const InputMetadata&, grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    uint64_t number = NumberOf(*context);
    if (number == 0) {
      number = calls_->Number();
      context->AddProperty(kProperty, std::to_string(number));
    }
    if (calls_->Begin(number)) return grpc::Status::OK;
    return {grpc::StatusCode::RESOURCE_EXHAUSTED, kRefused};
  }

 private:
  EarlyCalls* const calls_;
};

}  // namespace

uint64_t EarlyCalls::Number() {
  MutexLock lock(&mutex_);
  return ++last_number_;
}

bool EarlyCalls::Begin(uint64_t connection) {
  MutexLock lock(&mutex_);
  int32_t& early = early_[connection];
  if (early >= limit_) {
    refused_.Add();
    return false;
  }
  ++early;
  if (early_.size() > kConnections) early_.erase(early_.begin());
  return true;
}

void EarlyCalls::Arrive(uint64_t connection) {
  MutexLock lock(&mutex_);
  const auto found = early_.find(connection);
  if (found == early_.end()) return;
  found->second -= 2;
  if (found->second <= 0) early_.erase(found);
}

void EarlyCalls::Arrive(const grpc::ServerContextBase& context) {
  if (const uint64_t number = NumberOf(*context.auth_context())) Arrive(number);
}

std::shared_ptr<grpc::ServerCredentials> PlaintextCredentials(EarlyCalls* calls) {
  return std::make_shared<Plaintext>(calls);
}

void CountEarlyCalls(EarlyCalls* calls, grpc::ServerCredentials* credentials) {
  credentials->SetAuthMetadataProcessor(std::make_shared<HeadProcessor>(calls));
}

}  // namespace sluice
