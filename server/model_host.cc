#include "server/model_host.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/model_tokenizer.h"
#include "server/device.h"
#include "server/log.h"
#include "server/signals.h"

namespace sluice {
namespace {

// Interval at which a start that waits for another daemon's end looks for it.
constexpr std::chrono::milliseconds kLookAgain(100);

// Messages begin with a file's name. Its directory is logged for the operator, and never sent to a
// client.
absl::Status InModel(const ServerOptions& options, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat("model '", options.model, "': ", status.message()));
}

void DescribeSessions(const ServerOptions& options, v1::SessionSupport* out) {
  out->set_max_sessions(options.max_sessions);
  out->set_durable(!options.session_dir.empty());
  out->set_transferable(!options.state_key_file.empty());
  if (options.session_ttl != absl::InfiniteDuration()) {
    absl::Duration rest;
    out->mutable_default_ttl()->set_seconds(
        absl::IDivDuration(options.session_ttl, absl::Seconds(1), &rest));
    out->mutable_default_ttl()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  }
}

v1::Model Describe(const ServerOptions& options, const Checkpoint& checkpoint,
                   const BackendInfo& info, const Tokenizer& tokenizer,
                   const std::string& fingerprint, const StateTable& table) {
  const ModelConfig& config = checkpoint.config();
  v1::Model out;
  out.set_name(options.model_name.empty() ? checkpoint.name() : options.model_name);
  out.set_fingerprint(fingerprint);
  out.set_architecture(config.model_type());
  out.set_parameters(checkpoint.parameters());
  out.set_vocab_size(static_cast<int32_t>(config.spec.vocab));
  out.set_layers(static_cast<int32_t>(config.spec.layers.size()));
  out.set_hidden_size(static_cast<int32_t>(config.spec.hidden));
  out.set_state_bytes(table.bytes());
  out.set_state_bytes_per_token(table.token_bytes());
  out.set_device(DeviceName(info));
  out.set_weight_dtype(info.weight_dtype.empty() ? checkpoint.weight_dtype() : info.weight_dtype);
  out.set_state_dtype("fp32");
  out.set_bos_token_id(config.bos_token_id.value_or(tokenizer.bos_id().value_or(-1)));
  out.mutable_eos_token_ids()->Assign(config.eos_token_ids.begin(), config.eos_token_ids.end());
  out.set_numerics_id(info.numerics_id);
  DescribeSessions(options, out.mutable_sessions());
  return out;
}

SessionLimits LimitsOf(const ServerOptions& options) {
  SessionLimits limits;
  limits.max_sessions = options.max_sessions;
  limits.max_sessions_per_tenant = options.max_sessions_per_tenant;
  limits.default_ttl = options.session_ttl;
  limits.host_state_bytes = options.host_state_bytes;
  limits.disk_state_bytes = options.disk_state_bytes;
  return limits;
}

// A daemon that drains has the directory until it ends. This waits for it, but no longer than the
// flag says. CANCELLED means that this daemon was told to end meanwhile.
absl::StatusOr<std::unique_ptr<SessionStore>> WaitForStore(const ServerOptions& options,
                                                           const ModelHost& host,
                                                           const Clock* clock) {
  char name[256] = "unknown";
  gethostname(name, sizeof(name) - 1);
  const StoreOptions store_options = {
      .shared = options.session_dir_shared,
      .about = absl::StrCat(
          "process ", getpid(), " on ", name,
          options.session_dir_shared ? ", which shares it" : ", which has it for itself"),
      .on_quarantine =
          [dir = options.session_dir](const std::string& file) {
            Log(LogLevel::kError, "session_file_quarantined",
                {{"session_dir", dir}, {"file", file}});
          },
      .now_us = absl::ToUnixMicros(clock->WallNow())};
  const absl::Duration end = clock->Now() + options.session_dir_wait;
  bool told = false;
  while (true) {
    auto store =
        SessionStore::Open(PosixFiles(), options.session_dir, host.state_spec, store_options);
    if (!absl::IsAborted(store.status()) || clock->Now() >= end) return store;
    if (Signals::Pending()) return absl::CancelledError("told to end");
    if (!std::exchange(told, true)) {
      Log(LogLevel::kWarn, "session_dir_wait",
          {{"why", store.status().message()}, {"seconds", options.session_dir_wait}});
    }
    std::this_thread::sleep_for(kLookAgain);
  }
}

// The keys, and the sessions that are there already.
absl::Status OpenStore(const ServerOptions& options, const Clock* clock, ModelHost* host) {
  if (!options.state_key_file.empty()) {
    absl::StatusOr<StateKeys> keys = LoadStateKeys(options.state_key_file);
    if (!keys.ok()) {
      return absl::Status(keys.status().code(),
                          absl::StrCat("--state_key_file: ", keys.status().message()));
    }
    host->state_keys = *std::move(keys);
  }
  if (options.session_dir.empty()) {
    if (!options.session_dir_shared) return absl::OkStatus();
    return absl::InvalidArgumentError("--session_dir_shared needs --session_dir");
  }
  absl::StatusOr<std::unique_ptr<SessionStore>> store = WaitForStore(options, *host, clock);
  if (absl::IsCancelled(store.status())) return store.status();
  if (!store.ok()) {
    // A full disk is bad input, not a lack of memory.
    return absl::FailedPreconditionError(absl::StrCat("--session_dir: ", store.status().message()));
  }
  host->store = *std::move(store);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int32_t> CountSlots(int64_t device_state_bytes, int32_t max_batch_tokens,
                                   const BackendInfo& info, int64_t slot_bytes,
                                   int64_t budget_bytes) {
  const int64_t room = int64_t{max_batch_tokens} - info.prompt_grid;
  if (room < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max_batch_tokens is ", max_batch_tokens, ", must be at least ",
                     info.prompt_grid + 1, " on this device: a chunk of a prompt and a token"));
  }
  if (device_state_bytes == 0) {
    const int64_t most = std::min<int64_t>(info.default_slots, room);
    return static_cast<int32_t>(std::clamp<int64_t>(budget_bytes / slot_bytes, 1, most));
  }
  const int64_t slots = device_state_bytes / slot_bytes;
  if (slots < 1) {
    return absl::InvalidArgumentError(absl::StrCat("--device_state_bytes is ", device_state_bytes,
                                                   ", one state of this model takes ", slot_bytes));
  }
  return static_cast<int32_t>(std::min(slots, room));
}

absl::StatusOr<AttentionSizes> SizeAttention(int64_t device_state_bytes, int64_t asked_tokens,
                                             int64_t trained_tokens, int32_t max_batch_tokens,
                                             const BackendInfo& info, int64_t slot_bytes,
                                             int64_t page_bytes, int64_t budget_bytes) {
  const int64_t bytes = device_state_bytes > 0 ? device_state_bytes : budget_bytes;
  const absl::StatusOr<int32_t> slots =
      CountSlots(std::max<int64_t>(bytes / 2, slot_bytes), max_batch_tokens, info, slot_bytes, 0);
  if (!slots.ok()) return slots.status();
  AttentionSizes sizes;
  sizes.slots = std::min(*slots, info.default_slots);
  const int64_t pages = (bytes - sizes.slots * slot_bytes) / page_bytes;
  const int64_t most = std::max<int64_t>(pages, 0) * kPageTokens;
  sizes.room.max_tokens = asked_tokens > 0 ? asked_tokens : std::min(trained_tokens, most);
  if (sizes.room.max_tokens < 1 || PagesFor(sizes.room.max_tokens) > pages) {
    const std::string asked =
        asked_tokens > 0 ? absl::StrCat("--max_attention_tokens is ", asked_tokens)
                         : std::string("a sequence has at least one page of attention memory");
    return absl::InvalidArgumentError(absl::StrCat(
        asked, ", the memory for states has room for ", most,
        " tokens beside the slots (--device_state_bytes", device_state_bytes > 0 ? "" : " of 0",
        ", ", bytes, " bytes; a page of ", kPageTokens, " tokens takes ", page_bytes, ")"));
  }
  sizes.room.pages = std::min(pages, sizes.slots * PagesFor(sizes.room.max_tokens));
  return sizes;
}

namespace {

absl::StatusOr<std::unique_ptr<const Tokenizer>> OpenTokenizer(const ServerOptions& options,
                                                               const ModelConfig& config) {
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer =
      LoadModelTokenizer(options.model, config, options.tokenizer);
  if (tokenizer.ok()) return tokenizer;
  if (!options.tokenizer.empty()) {
    return absl::Status(
        tokenizer.status().code(),
        absl::StrCat("--tokenizer '", options.tokenizer, "': ", tokenizer.status().message()));
  }
  if (!absl::IsNotFound(tokenizer.status())) return InModel(options, tokenizer.status());
  return InModel(options,
                 absl::NotFoundError(absl::StrCat(tokenizer.status().message(),
                                                  "; see --tokenizer=DIR and --tokenizer=none")));
}

// Slots and everything else that a step needs, after the weights.
absl::Status AllocateSteps(const ServerOptions& options, const ModelConfig& config, Weights weights,
                           ModelHost* host) {
  const ModelSpec spec = SpecWithTokenizer(config, *host->tokenizer);
  Backend* backend = host->backend.get();
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Create(backend, spec, std::move(weights), host->max_batch_tokens);
  if (!model.ok()) return model.status();
  host->model = *std::move(model);
  const absl::StatusOr<int64_t> budget = backend->StateBudget(spec, host->max_batch_tokens);
  if (!budget.ok()) return budget.status();
  BackendInfo info = backend->info();
  info.prompt_grid = PromptGrid(info.kind, spec);
  const int64_t page_bytes = backend->PageBytes(spec);
  if (page_bytes > 0) {
    const absl::StatusOr<AttentionSizes> sizes = SizeAttention(
        options.device_state_bytes, options.max_attention_tokens, config.max_position_embeddings,
        host->max_batch_tokens, info, host->slot_bytes, page_bytes, *budget);
    if (!sizes.ok()) return sizes.status();
    host->slots = sizes->slots;
    host->attention = sizes->room;
    backend->SetAttentionRoom(sizes->room);
  } else {
    const absl::StatusOr<int32_t> slots = CountSlots(
        options.device_state_bytes, host->max_batch_tokens, info, host->slot_bytes, *budget);
    if (!slots.ok()) return slots.status();
    host->slots = *slots;
  }
  const int64_t asked = options.device_state_bytes / host->slot_bytes;
  if (page_bytes == 0 && asked > host->slots) {
    Log(LogLevel::kWarn, "slots_capped",
        {{"device_state_bytes_give", asked},
         {"slots", int64_t{host->slots}},
         {"why", "a step has one token of each slot and a chunk of a prompt"},
         {"max_batch_tokens", int64_t{host->max_batch_tokens}}});
  }
  absl::Status status =
      backend->AllocateStates(spec, host->slots, host->slots, host->max_batch_tokens);
  if (status.ok()) status = host->model->Prepare();
  return status;
}

}  // namespace

absl::StatusOr<ModelHost> LoadModel(const ServerOptions& options, const Clock* clock,
                                    StartupTimer* timer) {
  ModelHost host;
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(options.model);
  if (!checkpoint.ok()) return InModel(options, checkpoint.status());
  const ModelConfig& config = (*checkpoint)->config();
  for (const std::string& note : config.notes) Log(LogLevel::kWarn, "config", {{"note", note}});
  timer->Done("checkpoint");

  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer = OpenTokenizer(options, config);
  if (!tokenizer.ok()) return tokenizer.status();
  host.tokenizer = *std::move(tokenizer);
  if (const std::string note = TokenizerNote(*host.tokenizer); !note.empty()) {
    Log(LogLevel::kWarn, "tokenizer", {{"note", note}});
  }
  timer->Done("tokenizer");

  absl::StatusOr<Device> device = OpenDevice(options, config.spec);
  if (!device.ok()) return device.status();
  host.why_cpu = device->why_cpu;
  host.backend = std::move(device->backend);
  const BackendInfo& info = host.backend->info();
  host.slot_bytes = host.backend->SlotBytes(config.spec);
  host.max_batch_tokens =
      options.max_batch_tokens > 0 ? options.max_batch_tokens : info.default_batch_tokens;
  timer->Done("backend");

  std::string fingerprint;
  absl::StatusOr<Weights> weights =
      (*checkpoint)->Load(host.backend.get(), LoadOptions(), &fingerprint);
  if (!weights.ok()) return InModel(options, weights.status());
  timer->Done("weights");

  const absl::Status allocated = AllocateSteps(options, config, *std::move(weights), &host);
  if (!allocated.ok()) return allocated;
  host.state_spec = {fingerprint, MakeStateTable(config.spec), host.attention.max_tokens};
  const absl::Status store = OpenStore(options, clock, &host);
  if (!store.ok()) return store;
  timer->Done("sessions");
  EngineOptions engine_options;
  engine_options.slots = host.slots;
  engine_options.max_batch_tokens = host.max_batch_tokens;
  engine_options.eos_token_ids = config.eos_token_ids;
  engine_options.fingerprint = fingerprint;
  engine_options.session_limits = LimitsOf(options);
  engine_options.max_attention_tokens = host.attention.max_tokens;
  engine_options.prefix_cache_bytes = options.prefix_cache_bytes;
  if (host.store != nullptr) {
    engine_options.has_store = true;
    engine_options.shared_store = options.session_dir_shared;
    engine_options.last_uses_since = absl::FromUnixMicros(host.store->first_start_us());
    engine_options.on_wrong_clock = [](const std::string& why) {
      Log(LogLevel::kWarn, "wrong_clock",
          {{"why", why}, {"consequence", "no session ends for a time to live from now on"}});
    };
    engine_options.session_index = host.store->TakeIndex();
  }
  host.engine = std::make_unique<Engine>(host.backend.get(), host.model.get(), host.tokenizer.get(),
                                         clock, engine_options);
  host.description =
      Describe(options, **checkpoint, info, *host.tokenizer, fingerprint, host.state_spec.table);
  timer->Done("states");
  return host;
}

}  // namespace sluice
