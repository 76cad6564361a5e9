#include "server/server.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <limits>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/sampling_defaults.h"
#include "kernels/check.h"
#include "server/address.h"
#include "server/grpc_settings.h"
#include "server/log.h"
#include "server/thread_check.h"

namespace sluice {
namespace {

constexpr size_t kMaxWaitingTexts = 64;
// When all streams have ended, what is still open is cancelled, then cut off.
constexpr std::chrono::seconds kCancelAfter(1);
constexpr absl::Duration kCutAfter = absl::Seconds(2);
constexpr std::chrono::seconds kGrpcEndsWithin(10);
// A client that has not read the bound on streams yet may open some more of them.
constexpr int32_t kEarlyShare = 4;
// The name that gRPC gives the thread of its timers, as far as the system keeps it.
constexpr char kGrpcTimerThread[] = "grpc_global_tim";
constexpr std::chrono::milliseconds kGrpcTimer(2);
constexpr std::chrono::seconds kGrpcTimerWithin(1);
constexpr std::chrono::seconds kGrpcAnswersWithin(5);
// Threads of the daemon's own parts: the log, file watches, device, store, emitter, ports and
// signals.
constexpr int kOwnThreads = 24;

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                                      const DeviceEvents& events) {
  std::unique_ptr<Server> server(new Server(options));
  absl::Status status;
  try {
    status = server->StartParts(events);
  } catch (const std::system_error& error) {
    status = NoThread(error.code().message());  // std::thread's
  }
  if (!status.ok()) {
    // If a thread is missing, gRPC's destructor would wait for it forever.
    if (absl::IsResourceExhausted(status)) (void)server.release();
    return status;
  }
  server->health_->SetServing(true);
  for (const auto& [stage, duration] : server->timer_.stages()) {
    Log(LogLevel::kDebug, "startup", {{"stage", stage}, {"seconds", duration}});
  }
  if (const std::string& why = server->host_.why_cpu; !why.empty())
    Log(LogLevel::kInfo, "device", {{"device", "cpu"}, {"why", why}});
  Log(LogLevel::kInfo, "serving",
      {{"model", server->model().name()},
       {"device", server->host_.backend->info().device},
       {"address", server->address_},
       {"admin", server->admin_address()},
       {"http", server->http_ == nullptr ? "none" : server->http_address()},
       {"slots", server->host_.slots},
       {"startup_seconds", server->timer_.total()}});
  return server;
}

Server::Server(const ServerOptions& options)
    : options_(options),
      timer_(&clock_),
      early_calls_(kEarlyShare * options.max_streams_per_connection) {}

int Server::ThreadsOf(const ServerOptions& options) {
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return kOwnThreads + (options.threads > 0 ? options.threads : cores) + GrpcThreads(cores);
}

absl::Status Server::StartParts(const DeviceEvents& events) {
  absl::Status status = OpenDoor();
  if (!status.ok()) return status;
  absl::StatusOr<ModelHost> host = LoadModel(options_, &clock_, &timer_);
  if (!host.ok()) return host.status();
  host_ = *std::move(host);
  options_.max_batch_tokens = host_.max_batch_tokens;
  status = Bind();
  if (!status.ok()) return status;
  BuildCore();
  status = Listen();
  if (!status.ok()) return status;
  status = StartHttp();
  if (!status.ok()) return status;
  timer_.Done("listen");
  status = StartAdmin();
  if (status.ok()) WatchDevice(events);
  return status;
}

// Checks everything that needs no model, because a model may take long to load.
absl::Status Server::OpenDoor() {
  const absl::StatusOr<Address> address = ParseAddress(options_.listen);
  if (!address.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--listen: ", address.status().message()));
  }
  listen_ = *address;
  if (options_.tls_cert.empty() && !options_.allow_plaintext && ReachableByOthers(listen_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen=", options_.listen,
                     " without TLS can be read by others: give --tls_cert and --tls_key, or "
                     "--allow_plaintext on a network that is trusted"));
  }
  const absl::Status tls = OpenTls();
  if (!tls.ok()) return tls;
  const absl::Status http = CheckHttp();
  if (!http.ok()) return http;
  const absl::Status admin = CheckAdmin();
  if (!admin.ok()) return admin;
  AuthOptions auth;
  auth.tokens_file = options_.auth_tokens_file;
  auth.client_certificates = !options_.tls_client_ca.empty();
  auth.failures_per_minute = options_.auth_failures_per_minute;
  auth.finish_revoked_calls = options_.auth_finish_revoked_calls;
  absl::StatusOr<std::unique_ptr<Authenticator>> authenticator =
      Authenticator::Create(auth, &clock_);
  if (!authenticator.ok()) return authenticator.status();
  auth_ = *std::move(authenticator);
  return absl::OkStatus();
}

absl::Status Server::OpenTls() {
  const TlsFiles files = {options_.tls_cert, options_.tls_key, options_.tls_client_ca};
  absl::Status status = CheckTlsFlags(files);
  if (!status.ok() || files.cert.empty()) return status;
  absl::StatusOr<std::unique_ptr<ServerTls>> tls = ServerTls::Create(files);
  if (!tls.ok()) return tls.status();
  tls_ = *std::move(tls);
  return absl::OkStatus();
}

absl::Status Server::CheckHttp() {
  const absl::StatusOr<ChatTemplate> chat_template = ChatTemplate::Parse(options_.chat_template);
  if (!chat_template.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--chat_template ", chat_template.status().message()));
  }
  const absl::StatusOr<OriginPolicy> origins = OriginPolicy::Parse(options_.cors_origins);
  if (!origins.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--cors_origins: ", origins.status().message()));
  }
  if (!HttpIsAskedFor() && !options_.tls_client_ca.empty() && options_.auth_tokens_file.empty()) {
    Log(LogLevel::kInfo, "http",
        {{"address", "none"}, {"why", "nobody shows --tls_client_ca's certificates over HTTP"}});
    options_.http_listen.clear();
  }
  if (options_.http_listen.empty()) return absl::OkStatus();
  const absl::StatusOr<Address> address = ParseAddress(options_.http_listen);
  if (!address.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--http_listen: ", address.status().message()));
  }
  http_listen_ = *address;
  if (!options_.allow_plaintext && ReachableByOthers(http_listen_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--http_listen=", options_.http_listen,
                     " is plain HTTP, which others can read: listen on loopback behind a proxy "
                     "with TLS, or give --allow_plaintext on a network that is trusted"));
  }
  if (!options_.tls_client_ca.empty() && options_.auth_tokens_file.empty()) {
    return absl::InvalidArgumentError(
        "--http_listen with --tls_client_ca needs --auth_tokens_file: over HTTP nobody shows a "
        "certificate");
  }
  return absl::OkStatus();
}

bool Server::HttpIsAskedFor() const {
  return std::find(options_.given.begin(), options_.given.end(), "http_listen") !=
         options_.given.end();
}

absl::Status Server::CheckAdmin() {
  if (options_.admin_listen.empty()) return absl::OkStatus();
  const absl::StatusOr<Address> address = ParseAddress(options_.admin_listen);
  if (!address.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--admin_listen: ", address.status().message()));
  }
  admin_listen_ = *address;
  if (options_.allow_plaintext || !ReachableByOthers(admin_listen_)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--admin_listen=", options_.admin_listen,
                   " is plain HTTP for everybody who reaches it: listen on loopback, or give "
                   "--allow_plaintext on a network that is trusted"));
}

void Server::BuildCore() {
  AdmissionLimits limits;
  limits.max_streams = options_.max_streams;
  limits.max_queued_requests = options_.max_queued_requests;
  limits.max_queued_tokens = options_.max_queued_tokens;
  admission_ = std::make_unique<Admission>(limits, &clock_);
  if (options_.memory_limit == 0) options_.memory_limit = CgroupMemoryLimit();
  memory_ = std::make_unique<MemoryGuard>(options_.memory_limit, admission_.get(), &clock_);
  StreamLimits stream_limits;
  stream_limits.ring_events = options_.ring_events;
  stream_limits.write_stall = options_.write_stall;
  emitter_ = std::make_unique<Emitter>(&clock_, stream_limits);
  if (host_.store != nullptr) {
    store_thread_ = std::make_unique<StoreThread>(
        [store = host_.store.get()](StoreJob* job) { RunStoreJob(store, job); });
  }
  device_thread_ = std::make_unique<DeviceThread>(host_.engine.get(), &clock_, emitter_.get(),
                                                  store_thread_.get());
  DrainOptions drain;
  drain.drain = options_.drain_timeout;
  drain_ = std::make_unique<Drain>(admission_.get(), device_thread_.get(), emitter_.get(), drain);
  worker_ = std::make_unique<Worker>(kMaxWaitingTexts);
  ending_ = std::make_unique<Worker>(1);
  session_answers_ = std::make_unique<Worker>(std::numeric_limits<size_t>::max());

  const RequestBounds bounds = Bounds();
  v1::Limits* described = host_.description.mutable_limits();
  described->set_max_prompt_tokens(bounds.max_prompt_tokens);
  described->set_max_new_tokens(bounds.max_new_tokens);
  described->set_max_attention_tokens(host_.attention.max_tokens);
  described->set_max_sequences(bounds.max_sequences);
  described->set_max_stop_strings(bounds.max_stop_strings);
  described->set_max_logprobs(bounds.max_logprobs);
  described->set_max_message_bytes(bounds.max_message_bytes);
  inference_ = std::make_unique<InferenceService>(Parts(), bounds, host_.description);
  const SessionParts session_parts = {
      .auth = auth_.get(),
      .device = device_thread_.get(),
      .answers = session_answers_.get(),
      .keys = host_.state_keys.empty() ? nullptr : &host_.state_keys,
      .spec = &host_.state_spec,
      .stats = &calls_,
      .clock = &clock_,
      .listener = listener_.get(),
      .early_calls = &early_calls_,
  };
  session_calls_ = std::make_unique<SessionCalls>(session_parts, bounds);
  sessions_ = std::make_unique<SessionService>(session_calls_.get());
  health_ = std::make_unique<HealthService>(&calls_, &clock_, &early_calls_,
                                            EverybodyMayCall() ? listener_.get() : nullptr);
  const bool open = options_.open_reflection;
  reflection_ = std::make_unique<ReflectionService>(
      open ? nullptr : auth_.get(), &early_calls_,
      open && !EverybodyMayCall() ? nullptr : listener_.get(),
      std::vector<std::string>{v1::InferenceService::service_full_name(),
                               v1::SessionService::service_full_name(),
                               grpc::health::v1::Health::service_full_name()});
}

bool Server::EverybodyMayCall() const {
  return options_.auth_tokens_file.empty() && options_.tls_client_ca.empty();
}

InferenceParts Server::Parts() {
  return {
      .auth = auth_.get(),
      .tokenizer = host_.tokenizer.get(),
      .admission = admission_.get(),
      .emitter = emitter_.get(),
      .device = device_thread_.get(),
      .worker = worker_.get(),
      .stats = &calls_,
      .clock = &clock_,
      .listener = listener_.get(),
      .early_calls = &early_calls_,
  };
}

RequestBounds Server::Bounds() const {
  RequestBounds bounds;
  bounds.model_name = host_.description.name();
  bounds.vocab_size = host_.description.vocab_size();
  bounds.eos_token_ids.assign(host_.description.eos_token_ids().begin(),
                              host_.description.eos_token_ids().end());
  bounds.max_prompt_tokens = options_.max_prompt_tokens;
  bounds.max_new_tokens = options_.max_new_tokens;
  bounds.max_sequences = std::min(options_.max_sequences, host_.slots);
  bounds.max_stop_strings = options_.max_stop_strings;
  bounds.max_logprobs = options_.max_logprobs;
  bounds.max_message_bytes = options_.max_message_bytes;
  bounds.sessions = options_.max_sessions > 0;
  bounds.durable_sessions = host_.store != nullptr;
  return bounds;
}

ListenerOptions Server::Connections() const {
  return {.bounds = {.max_connections = options_.max_connections,
                     .max_connections_per_peer = options_.max_connections_per_peer},
          .lost_after = options_.keepalive_time + options_.keepalive_timeout};
}

absl::Status Server::Bind() {
  ListenerOptions options = Connections();
  options.bounds.calls_are_reported = true;
  options.bounds.max_call_bytes = options_.max_message_bytes + options_.max_metadata_bytes;
  // The largest allowed call must not count as a flood.
  if (options_.max_unclaimed_bytes > 0) {
    options.bounds.max_unclaimed_bytes =
        std::max(options_.max_unclaimed_bytes, 2 * options.bounds.max_call_bytes);
  }
  absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Bind(listen_, options);
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  address_ = FormatAddress(listener_->address());
  return absl::OkStatus();
}

absl::Status Server::Listen() {
  grpc::ServerBuilder builder;
  ApplyGrpcSettings(options_, &builder);
  builder.RegisterService(inference_.get());
  builder.RegisterService(sessions_.get());
  builder.RegisterService(health_.get());
  builder.RegisterService(reflection_.get());
  using Builder = grpc::ServerBuilder::experimental_type;
  const std::shared_ptr<grpc::ServerCredentials> credentials =
      tls_ == nullptr ? PlaintextCredentials(&early_calls_) : tls_->credentials();
  if (tls_ != nullptr) CountEarlyCalls(&early_calls_, credentials.get());
  std::shared_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor =
      builder.experimental().AddExternalConnectionAcceptor(Builder::ExternalConnectionType::FROM_FD,
                                                           credentials);
  {
    const AbortMeansNoThread guard;
    grpc_ = builder.BuildAndStart();
  }
  if (grpc_ == nullptr) return absl::InternalError("gRPC does not start");
  absl::Status status = CheckGrpc();
  if (!status.ok()) return status;
  listener_->Start([acceptor, listen_fd = listener_->fd()](int fd) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.listener_fd = listen_fd;
    connection.fd = fd;
    acceptor->HandleNewConnection(&connection);
  });
  return absl::OkStatus();
}

// gRPC does not say when it could not start a thread of its own. So this checks that the thread of
// its deadlines is there and that a call is answered. Neither check depends on the time of day,
// which may jump.
absl::Status Server::CheckGrpc() {
  if (!WaitForThread(kGrpcTimerThread, kGrpcAnswersWithin)) {
    return NoThread("gRPC has no thread for its timers");
  }
  // The first timer that runs out makes gRPC start a second timer thread. This makes it happen now,
  // while threads are available. It may be late if the time of day jumps.
  const auto run_out = std::make_shared<std::promise<void>>();
  grpc::Alarm alarm;
  alarm.Set(std::chrono::system_clock::now() + kGrpcTimer,
            [run_out](bool) { run_out->set_value(); });
  run_out->get_future().wait_for(kGrpcTimerWithin);
  const auto stub = grpc::health::v1::Health::NewStub(grpc_->InProcessChannel({}));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kGrpcAnswersWithin);
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status answer = stub->Check(&context, {}, &response);
  if (answer.ok()) return absl::OkStatus();
  return NoThread(absl::StrCat("gRPC does not answer: ", answer.error_message()));
}

absl::Status Server::StartHttp() {
  if (options_.http_listen.empty()) return absl::OkStatus();
  HttpServerOptions options;
  options.listen = http_listen_;
  options.connections = Connections();
  options.max_head_bytes = static_cast<size_t>(options_.max_metadata_bytes);
  options.keepalive_time = options_.keepalive_time;
  options.keepalive_timeout = options_.keepalive_timeout;
  options.callers_authenticate = !options_.auth_tokens_file.empty();
  options.events_silence = options_.http_stream_silence;
  absl::StatusOr<ChatTemplate> chat_template = ChatTemplate::Parse(options_.chat_template);
  if (!chat_template.ok()) return chat_template.status();
  absl::StatusOr<OriginPolicy> origins = OriginPolicy::Parse(options_.cors_origins);
  if (!origins.ok()) return origins.status();
  // A name that leads to loopback takes a page of its owner's behind everybody's firewall.
  if (options_.auth_tokens_file.empty() && !ReachableByOthers(http_listen_)) {
    origins->CheckHosts(options_.http_hosts);
  }
  HttpDoorParts parts{.chat_template = *std::move(chat_template),
                      .origins = *std::move(origins),
                      .sessions = session_calls_.get(),
                      .serving = [this] { return health_->serving(); }};
  if (options_.generation_config) {
    absl::StatusOr<SamplingDefaults> sampling = ReadSamplingDefaults(options_.model);
    if (!sampling.ok()) return sampling.status();
    parts.sampling = *sampling;
  }
  if (options_.http_metrics) {
    parts.metrics = [this] { return metrics_ready_ ? MetricsText(metric_sources_) : ""; };
  }
  absl::StatusOr<std::unique_ptr<HttpDoor>> http = HttpDoor::Start(
      options, &http_stats_, Parts(), Bounds(), host_.description, std::move(parts));
  if (!http.ok() && !HttpIsAskedFor()) {
    Log(LogLevel::kWarn, "http", {{"address", "none"}, {"why", http.status().message()}});
    return absl::OkStatus();
  }
  if (!http.ok()) return http.status();
  http_ = *std::move(http);
  return absl::OkStatus();
}

absl::Status Server::StartAdmin() {
  metric_sources_ = {
      .engine = &host_.engine->stats(),
      .emitter = emitter_.get(),
      .auth = auth_.get(),
      .tls = tls_.get(),
      .admission = admission_.get(),
      .device_thread = device_thread_.get(),
      .calls = &calls_,
      .listener = listener_.get(),
      .early_calls = &early_calls_,
      .http_listener = http_ == nullptr ? nullptr : http_->server().listener(),
      .http = &http_stats_,
      .options = &options_,
      .model = host_.description.name(),
      .device = host_.backend->info().device,
      .numerics_id = host_.description.numerics_id(),
      .slot_bytes = host_.slot_bytes,
      .prompt_grid = host_.backend->info().prompt_grid,
      .startup = timer_.stages(),
  };
  metrics_ready_ = true;
  if (options_.admin_listen.empty()) return absl::OkStatus();
  AdminHandlers handlers;
  handlers.metrics = [this] { return MetricsText(metric_sources_); };
  handlers.healthz = [this] {
    return device_thread_->device_status().ok() ? absl::OkStatus()
                                                : absl::UnavailableError("the device has failed");
  };
  handlers.readyz = [this] {
    return health_->serving() ? absl::OkStatus() : absl::UnavailableError("not ready");
  };
  absl::StatusOr<std::unique_ptr<AdminHttp>> admin =
      AdminHttp::Start(admin_listen_, &clock_, &http_stats_, std::move(handlers));
  if (!admin.ok()) return admin.status();
  admin_ = *std::move(admin);
  return absl::OkStatus();
}

void Server::WatchDevice(const DeviceEvents& events) {
  if (events.on_fault) {
    device_thread_->set_on_device_fault([this, on_fault = events.on_fault](absl::Status status) {
      health_->SetServing(false);
      on_fault(std::move(status));
    });
  }
  if (!events.on_stuck) return;
  watchdog_ = std::make_unique<Watchdog>(
      device_thread_.get(), &clock_, options_.step_timeout,
      [this, on_stuck = events.on_stuck](absl::Duration running) {
        inference_->Drain();
        if (http_ != nullptr) http_->Drain();
        health_->SetServing(false);
        Log(LogLevel::kError, "device_stuck", {{"step_seconds", running}});
        on_stuck();
      },
      [this] { memory_->Look(); });
}

DeviceThread::Rest Server::Shutdown() {
  // In this order, so that whoever has seen NOT_SERVING is refused.
  inference_->Drain();
  sessions_->Drain();
  if (http_ != nullptr) http_->Drain();
  health_->SetServing(false);
  const int64_t left = drain_->Run();
  if (left > 0) Log(LogLevel::kError, "drain", {{"streams_left", left}});
  if (host_.store != nullptr) Log(LogLevel::kInfo, "flushing");
  const DeviceThread::Rest rest = device_thread_->Stop(options_.flush_timeout);
  if (rest.unwritten_sessions > 0 || rest.store_hangs) {
    Log(LogLevel::kError, "sessions_not_written",
        {{"sessions", rest.unwritten_sessions},
         {"why", rest.store_hangs ? "the disk does not answer" : "the disk refuses"}});
  }
  health_->EndWatches();
  listener_->Stop();
  if (http_ != nullptr) http_->Stop();
  ShutDownGrpc();
  return rest;
}

// A call whose last write waits for a lost peer ends only with its connection.
void Server::ShutDownGrpc() {
  listener_->CutConnectionsIn(kCutAfter);
  const auto ended = std::make_shared<std::promise<void>>();
  const bool posted = ending_->Post([this, ended] {
    grpc_->Shutdown(std::chrono::system_clock::now() + kCancelAfter);
    grpc_->Wait();
    ended->set_value();
  });
  SLUICE_CHECK(posted);
  // gRPC waits forever for work that it gave to a thread that could not be started.
  grpc_hangs_ = ended->get_future().wait_for(kGrpcEndsWithin) != std::future_status::ready;
  if (grpc_hangs_) Log(LogLevel::kWarn, "grpc_does_not_end");
}

void Server::Reload() {
  auth_->Reload();
  if (tls_ != nullptr) tls_->Reload();
}

void Server::Hurry() {
  if (drain_->state() == DrainState::kStopped) {
    device_thread_->HurryStop();
  } else {
    drain_->Hurry();
  }
}

// Reactions refer to all of the core, so gRPC goes first; whoever did not Shutdown gets a hurried
// one.
Server::~Server() {
  if (grpc_ != nullptr && drain_->state() == DrainState::kServing) {
    Hurry();
    Shutdown();
  }
  watchdog_.reset();
  admin_.reset();
  if (http_ != nullptr) http_->Stop();  // what the worker has still to do refers to it
  grpc_.reset();
  worker_.reset();
  session_answers_.reset();
  if (device_thread_ != nullptr) device_thread_->Stop();
  store_thread_.reset();
  if (emitter_ != nullptr) emitter_->Stop();
  http_.reset();
}

}  // namespace sluice
