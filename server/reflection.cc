#include "server/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "server/core/mutex.h"
#include "server/live_calls.h"
#include "server/status.h"

namespace sluice {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

// Frames and headers around a message, generously.
constexpr int64_t kMessageSlack = 1024;

const DescriptorPool& Pool() { return *DescriptorPool::generated_pool(); }

void SetError(grpc::StatusCode code, const char* message, ServerReflectionResponse* response) {
  response->mutable_error_response()->set_error_code(code);
  response->mutable_error_response()->set_error_message(message);
}

// `file` and all that it imports, each once.
void AddFiles(const FileDescriptor* file, std::set<const FileDescriptor*>* added,
              ServerReflectionResponse* response) {
  if (!added->insert(file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  response->mutable_file_descriptor_response()->add_file_descriptor_proto(
      proto.SerializeAsString());
  for (int i = 0; i < file->dependency_count(); ++i) {
    AddFiles(file->dependency(i), added, response);
  }
}

void AnswerFile(const FileDescriptor* file, const char* otherwise,
                ServerReflectionResponse* response) {
  if (file == nullptr) return SetError(grpc::StatusCode::NOT_FOUND, otherwise, response);
  std::set<const FileDescriptor*> added;
  AddFiles(file, &added, response);
}

void AnswerExtension(const std::string& type, int number, ServerReflectionResponse* response) {
  const auto* message = Pool().FindMessageTypeByName(type);
  const FieldDescriptor* extension =
      message == nullptr ? nullptr : Pool().FindExtensionByNumber(message, number);
  AnswerFile(extension == nullptr ? nullptr : extension->file(), "Extension not found.", response);
}

void AnswerExtensionNumbers(const std::string& type, ServerReflectionResponse* response) {
  const auto* message = Pool().FindMessageTypeByName(type);
  if (message == nullptr) {
    return SetError(grpc::StatusCode::NOT_FOUND, "Type not found.", response);
  }
  std::vector<const FieldDescriptor*> extensions;
  Pool().FindAllExtensions(message, &extensions);
  auto* answer = response->mutable_all_extension_numbers_response();
  answer->set_base_type_name(type);
  for (const FieldDescriptor* extension : extensions) {
    answer->add_extension_number(extension->number());
  }
}

void Answer(const ServerReflectionRequest& request, const std::vector<std::string>& services,
            ServerReflectionResponse* response) {
  response->set_valid_host(request.host());
  *response->mutable_original_request() = request;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kFileByFilename:
      return AnswerFile(Pool().FindFileByName(request.file_by_filename()), "File not found.",
                        response);
    case ServerReflectionRequest::kFileContainingSymbol:
      return AnswerFile(Pool().FindFileContainingSymbol(request.file_containing_symbol()),
                        "Symbol not found.", response);
    case ServerReflectionRequest::kFileContainingExtension:
      return AnswerExtension(request.file_containing_extension().containing_type(),
                             request.file_containing_extension().extension_number(), response);
    case ServerReflectionRequest::kAllExtensionNumbersOfType:
      return AnswerExtensionNumbers(request.all_extension_numbers_of_type(), response);
    case ServerReflectionRequest::kListServices:
      for (const std::string& service : services) {
        response->mutable_list_services_response()->add_service()->set_name(service);
      }
      return;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      break;
  }
  SetError(grpc::StatusCode::INVALID_ARGUMENT, "message_request is not set", response);
}

}  // namespace

// Reads a question, writes its answer, reads the next: one of both is in flight at a time.
class ReflectionService::Stream final
    : public grpc::ServerBidiReactor<ServerReflectionRequest, ServerReflectionResponse>,
      public std::enable_shared_from_this<Stream> {
 public:
  explicit Stream(const std::vector<std::string>& services) : services_(services) {}

  // Lives until OnDone.
  void Start(ConnectionCall connection, LiveCalls::Place place) {
    connection_ = std::move(connection);
    place_ = std::move(place);
    StartRead(&request_);
  }

  // Ends the stream, once: after the write that is in flight. Any thread.
  void End(grpc::Status status) {
    {
      MutexLock lock(&mutex_);
      if (ended_) return;
      if (writing_) {
        end_ = std::move(status);
        return;
      }
      ended_ = true;
    }
    connection_.End(status.error_code() == grpc::StatusCode::CANCELLED);
    Finish(std::move(status));
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(grpc::Status::OK);
    connection_.Claim(static_cast<int64_t>(request_.ByteSizeLong()) + kMessageSlack);
    response_.Clear();
    Answer(request_, services_, &response_);
    {
      MutexLock lock(&mutex_);
      if (ended_) return;
      writing_ = true;
    }
    StartWrite(&response_);
  }

  void OnWriteDone(bool ok) override {
    std::optional<grpc::Status> end;
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      end = std::move(end_);
    }
    if (end.has_value()) return End(*std::move(end));
    if (!ok) return End(grpc::Status::CANCELLED);
    StartRead(&request_);
  }

  void OnDone() override { self_.reset(); }

  void set_self(std::shared_ptr<Stream> self) { self_ = std::move(self); }

 private:
  const std::vector<std::string>& services_;
  std::shared_ptr<Stream> self_;
  ConnectionCall connection_;
  LiveCalls::Place place_;
  ServerReflectionRequest request_;
  ServerReflectionResponse response_;

  Mutex mutex_;
  std::optional<grpc::Status> end_ SLUICE_GUARDED_BY(mutex_);  // waits for a write
  bool writing_ SLUICE_GUARDED_BY(mutex_) = false;
  bool ended_ SLUICE_GUARDED_BY(mutex_) = false;
};

ReflectionService::ReflectionService(const Authenticator* auth, EarlyCalls* early_calls,
                                     Listener* listener, std::vector<std::string> services)
    : auth_(auth), early_calls_(early_calls), listener_(listener), services_(std::move(services)) {
  services_.emplace_back(grpc::reflection::v1alpha::ServerReflection::service_full_name());
  std::sort(services_.begin(), services_.end());
}

grpc::ServerBidiReactor<ServerReflectionRequest, ServerReflectionResponse>*
ReflectionService::ServerReflectionInfo(grpc::CallbackServerContext* context) {
  early_calls_->Arrive(*context);
  const auto stream = std::make_shared<Stream>(services_);
  stream->set_self(stream);
  LiveCalls::Place place;
  if (auth_ != nullptr) {
    const absl::StatusOr<TenantRef> tenant = auth_->TenantOf(*context);
    if (!tenant.ok()) {
      stream->End(ToGrpcStatus(tenant.status()));
      return stream.get();
    }
    place = auth_->Watch(*tenant, [weak = stream->weak_from_this()](const absl::Status& status) {
      if (const std::shared_ptr<Stream> live = weak.lock()) live->End(ToGrpcStatus(status));
    });
  }
  stream->Start(BeginConnectionCall(listener_, *context), std::move(place));
  return stream.get();
}

}  // namespace sluice
