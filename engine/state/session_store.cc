#include "engine/state/session_store.h"

#include <sys/random.h>

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/state/record_file.h"
#include "engine/state/state_file.h"
#include "kernels/check.h"

namespace sluice {
namespace {

constexpr absl::string_view kRecordSuffix = ".session";
constexpr absl::string_view kStateSuffix = ".state";
constexpr absl::string_view kLost = "lost";
constexpr absl::string_view kTenant = "t-";
constexpr absl::string_view kSession = "s-";
constexpr size_t kMaxName = 255;  // of most file systems

uint64_t RandomBits() {
  uint64_t bits = 0;
  SLUICE_CHECK(getrandom(&bits, sizeof(bits), 0) == sizeof(bits));
  return bits;
}

std::string RandomName() { return absl::StrCat(absl::Hex(RandomBits(), absl::kZeroPad16)); }

std::string RecordName(uint64_t generation) {
  return absl::StrCat(absl::Hex(generation, absl::kZeroPad16), kRecordSuffix);
}

// The number that a file's name begins with.
std::optional<uint64_t> GenerationOf(absl::string_view name) {
  uint64_t generation = 0;
  if (name.size() < 16 || !absl::SimpleHexAtoi(name.substr(0, 16), &generation)) return {};
  return generation;
}

bool IsPlain(char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-'; }

// One message for what happened to the session, whoever noticed and how.
absl::Status Moved() { return absl::AbortedError("the session was changed by another daemon"); }
absl::Status Lost() { return absl::DataLossError("the session's state on disk is damaged"); }

}  // namespace

std::string EscapeName(absl::string_view prefix, absl::string_view name) {
  std::string out(prefix);
  for (char c : name) {
    if (IsPlain(c)) {
      out += c;
    } else {
      absl::StrAppend(&out, "=", absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad2));
    }
  }
  return out;
}

bool UnescapeName(absl::string_view prefix, absl::string_view escaped, std::string* name) {
  if (!absl::StartsWith(escaped, prefix)) return false;
  name->clear();
  for (size_t i = prefix.size(); i < escaped.size(); ++i) {
    uint32_t code = 0;
    if (IsPlain(escaped[i])) {
      *name += escaped[i];
    } else if (escaped[i] == '=' && absl::SimpleHexAtoi(escaped.substr(i + 1, 2), &code)) {
      *name += static_cast<char>(code);
      i += 2;
    } else {
      return false;
    }
  }
  return EscapeName(prefix, *name) == escaped;
}

struct SessionStore::Entry {
  std::vector<std::string> names;
  uint64_t generation = 0;  // the highest; 0: no record
  bool lost = false;
};

// ---- Opening ----

absl::StatusOr<std::unique_ptr<SessionStore>> SessionStore::Open(Files* files,
                                                                 const std::string& dir,
                                                                 const StateSpec& spec) {
  std::unique_ptr<SessionStore> store(new SessionStore(files, dir, spec));
  absl::Status status = store->Prepare();
  if (status.ok()) status = store->Claim();
  if (status.ok()) {
    store->CleanUp();
    status = store->ListAll();
  }
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("session directory '", dir, "': ", status.message()));
  }
  return store;
}

absl::Status SessionStore::Prepare() {
  absl::Status status = files_->MakeDir(dir_);
  // Of a directory that was there already the parent may be closed to us, and need no sync.
  files_->SyncDir(absl::StrCat(dir_, "/..")).IgnoreError();
  for (absl::string_view name : {"/sessions", "/tmp", "/quarantine"}) {
    if (status.ok()) status = files_->MakeDir(absl::StrCat(dir_, name));
  }
  return status.ok() ? files_->SyncDir(dir_) : status;
}

absl::Status SessionStore::Claim() {
  temp_dir_ = absl::StrCat(dir_, "/tmp/", RandomName());
  absl::StatusOr<std::unique_ptr<Files::Lock>> lock = files_->TryLock(temp_dir_ + ".lock");
  // Another daemon that starts now may take a lock for a dead one's until it is held.
  for (int attempt = 0; attempt < 8 && absl::IsAlreadyExists(lock.status()); ++attempt) {
    temp_dir_ = absl::StrCat(dir_, "/tmp/", RandomName());
    lock = files_->TryLock(temp_dir_ + ".lock");
  }
  if (!lock.ok()) return lock.status();
  temp_lock_ = *std::move(lock);
  absl::Status status = files_->MakeDir(temp_dir_);
  if (!status.ok()) return status;
  // What everything rests on: a file system without second names is no place for sessions.
  const absl::StatusOr<std::string> temp = WriteTemp({"probe"});
  if (!temp.ok()) return temp.status();
  status = files_->Link(*temp, absl::StrCat(*temp, "-link"));
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("its file system has no hard links: ", status.message()));
  }
  status = files_->Remove(absl::StrCat(*temp, "-link"));
  return status.ok() ? files_->Remove(*temp) : status;
}

// What cannot be removed now is tried again at the next start.
void SessionStore::CleanUp() {
  const std::string tmp = absl::StrCat(dir_, "/tmp/");
  for (const std::string& name : files_->List(tmp).value_or(std::vector<std::string>())) {
    if (!absl::EndsWith(name, ".lock")) continue;
    const std::string of = absl::StrCat(tmp, name.substr(0, name.size() - 5));
    if (of == temp_dir_) continue;
    const auto lock = files_->TryLock(tmp + name);
    if (!lock.ok()) continue;  // its daemon lives
    RemoveTree(of);
    files_->Remove(tmp + name).IgnoreError();
  }
}

absl::Status SessionStore::ListAll() {
  const std::string sessions = absl::StrCat(dir_, "/sessions");
  const absl::StatusOr<std::vector<std::string>> tenants = files_->List(sessions);
  if (!tenants.ok()) return tenants.status();
  for (const std::string& tenant_dir : *tenants) {
    std::string tenant;
    if (!UnescapeName(kTenant, tenant_dir, &tenant)) continue;
    const absl::StatusOr<std::vector<std::string>> ids =
        files_->List(absl::StrCat(sessions, "/", tenant_dir));
    if (!ids.ok()) return ids.status();
    for (const std::string& id_dir : *ids) {
      std::string id;
      if (UnescapeName(kSession, id_dir, &id)) index_.push_back({tenant, std::move(id), 0});
    }
  }
  return absl::OkStatus();
}

// ---- Reading ----

absl::StatusOr<SessionStore::Entry> SessionStore::Look(const std::string& session_dir) {
  Entry entry;
  // A list need not be of one moment: it may miss a record that was just made and the one before,
  // which that one replaced. Then another look finds it.
  for (int attempt = 0; attempt < 3; ++attempt) {
    absl::StatusOr<std::vector<std::string>> names = files_->List(session_dir);
    if (!names.ok()) return names.status();
    for (const std::string& name : *names) {
      if (name == kLost) entry.lost = true;
      if (!absl::EndsWith(name, kRecordSuffix)) continue;
      entry.generation = std::max(entry.generation, GenerationOf(name).value_or(0));
    }
    entry.names = *std::move(names);
    if (entry.names.empty() || entry.generation > 0 || entry.lost) break;
  }
  return entry;
}

namespace {

std::string SessionDir(const std::string& dir, absl::string_view tenant, absl::string_view id) {
  return absl::StrCat(dir, "/sessions/", EscapeName(kTenant, tenant), "/",
                      EscapeName(kSession, id));
}

}  // namespace

absl::StatusOr<SessionRecord> SessionStore::ReadRecord(const std::string& tenant,
                                                       const std::string& id) {
  absl::StatusOr<SessionRecord> record = ReadCurrent(tenant, id);
  if (!record.ok()) return record;
  const absl::Status synced = files_->SyncDir(SessionDir(dir_, tenant, id));
  if (!synced.ok()) return synced;
  return record;
}

absl::StatusOr<SessionRecord> SessionStore::ReadCurrent(const std::string& tenant,
                                                        const std::string& id) {
  const std::string session_dir = SessionDir(dir_, tenant, id);
  // Another daemon may replace the record between the look and the read; not for ever.
  for (int attempt = 0; attempt < 8; ++attempt) {
    const absl::StatusOr<Entry> entry = Look(session_dir);
    if (!entry.ok()) return entry.status();
    if (entry->lost) return Lost();
    if (entry->generation == 0) return absl::NotFoundError("no record");
    const std::string name = RecordName(entry->generation);
    const std::string path = absl::StrCat(session_dir, "/", name);
    const absl::StatusOr<int64_t> size = files_->Size(path);
    if (absl::IsNotFound(size.status())) continue;
    if (!size.ok()) return size.status();
    std::string bytes(static_cast<size_t>(std::min(*size, kMaxRecordBytes)), '\0');
    const absl::Status read = files_->ReadAt(path, 0, absl::MakeSpan(bytes));
    if (absl::IsNotFound(read)) continue;
    if (!read.ok()) return read;
    absl::StatusOr<SessionRecord> record = ParseRecordFile(bytes);
    if (absl::IsFailedPrecondition(record.status())) return record;
    const bool right = record.ok() && record->tenant == tenant && record->id == id &&
                       record->generation == entry->generation;
    if (right) return record;
    Quarantine(session_dir, name);
    return Lost();
  }
  return absl::UnavailableError("the session's record keeps changing");
}

absl::StatusOr<StateData> SessionStore::ReadState(const SessionRecord& record) {
  if (record.info.position == 0) return StateData();
  const std::string session_dir = SessionDir(dir_, record.tenant, record.id);
  const std::string name = absl::StrCat(record.state_id, kStateSuffix);
  StateInfo info;
  absl::StatusOr<StateData> data =
      ReadStateFile(files_, absl::StrCat(session_dir, "/", name), spec_, &info);
  if (absl::IsNotFound(data.status())) {
    const absl::StatusOr<SessionRecord> now = ReadCurrent(record.tenant, record.id);
    if (now.ok() && now->generation == record.generation) {
      Quarantine(session_dir, RecordName(record.generation));
      return Lost();
    }
    return absl::IsDataLoss(now.status()) ? now.status() : Moved();
  }
  const bool other =
      data.ok() &&
      (info.position != record.info.position || info.last_token != record.info.last_token ||
       info.undecoded != record.info.undecoded || info.numerics_id != record.info.numerics_id);
  if (absl::IsDataLoss(data.status()) || absl::IsInvalidArgument(data.status()) || other) {
    Quarantine(session_dir, name);
    return Lost();
  }
  return data;
}

// ---- Writing ----

absl::StatusOr<std::string> SessionStore::WriteTemp(absl::Span<const absl::string_view> pieces) {
  const std::string path = absl::StrCat(temp_dir_, "/", RandomName());
  const absl::Status written = files_->WriteNew(path, pieces);
  if (written.ok()) return path;
  files_->Remove(path).IgnoreError();
  return written;
}

absl::StatusOr<std::string> SessionStore::MakeSessionDir(const SessionRecord& record) {
  const std::string tenant_dir =
      absl::StrCat(dir_, "/sessions/", EscapeName(kTenant, record.tenant));
  absl::Status status = files_->MakeDir(tenant_dir);
  if (status.ok()) status = files_->SyncDir(absl::StrCat(dir_, "/sessions"));
  const std::string session_dir = SessionDir(dir_, record.tenant, record.id);
  if (status.ok()) status = files_->MakeDir(session_dir);
  if (status.ok()) status = files_->SyncDir(tenant_dir);
  if (!status.ok()) return status;
  return session_dir;
}

absl::Status SessionStore::PutRecord(SessionRecord* record, const StateData* data,
                                     const SessionRecord* source) {
  SLUICE_CHECK(record->generation >= 1);
  std::string session_dir = SessionDir(dir_, record->tenant, record->id);
  if (EscapeName(kTenant, record->tenant).size() > kMaxName ||
      EscapeName(kSession, record->id).size() > kMaxName) {
    return absl::InvalidArgumentError("the name is too long");
  }
  const bool is_new = record->generation == 1;
  SessionRecord next = *record;
  next.lineage = {RandomBits()};
  if (is_new) {
    const absl::StatusOr<std::string> made = MakeSessionDir(*record);
    if (!made.ok()) return made.status();
    const absl::StatusOr<Entry> entry = Look(session_dir);
    if (!entry.ok()) return entry.status();
    if (entry->generation != 0 || entry->lost) {
      return absl::AlreadyExistsError("there is a session of this name");
    }
  } else {
    const absl::StatusOr<SessionRecord> now = ReadCurrent(record->tenant, record->id);
    if (!now.ok()) return now.status();
    if (now->generation != record->generation - 1) return Moved();
    next.lineage.insert(next.lineage.end(), now->lineage.begin(), now->lineage.end());
    if (next.lineage.size() > kMaxLineage) next.lineage.pop_back();
  }

  absl::Status status = PutState(session_dir, &next, data, source);
  // Or a file system that writes names in any order could have the record without its state.
  if (status.ok() && next.state_id != record->state_id) status = files_->SyncDir(session_dir);
  if (status.ok()) status = LinkRecord(session_dir, next);
  if (!status.ok()) {
    // The new state, if it got that far, is nobody's; so is the directory of a session that is not.
    if (next.state_id != record->state_id) {
      files_->Remove(absl::StrCat(session_dir, "/", next.state_id, kStateSuffix)).IgnoreError();
    }
    if (is_new) files_->Remove(session_dir).IgnoreError();
    return status;
  }
  // From here on a crash may bring the new record to light, acknowledged or not, so its state stays
  // whatever happens; RemoveOld takes it once another record has followed.
  status = Confirm(session_dir, next);
  if (!status.ok()) return status;
  *record = std::move(next);
  RemoveOld(session_dir, *record);
  return absl::OkStatus();
}

absl::Status SessionStore::PutState(const std::string& session_dir, SessionRecord* record,
                                    const StateData* data, const SessionRecord* source) {
  const bool linked = source != nullptr && !source->state_id.empty();
  if (data == nullptr && !linked) return absl::OkStatus();
  const std::string state_id =
      absl::StrCat(absl::Hex(record->generation, absl::kZeroPad16), "-", RandomName());
  const std::string to = absl::StrCat(session_dir, "/", state_id, kStateSuffix);
  record->state_id = state_id;
  return linked ? ShareState(to, data, *source) : WriteState(to, record->info, *data);
}

absl::Status SessionStore::ShareState(const std::string& to, const StateData* data,
                                      const SessionRecord& source) {
  const absl::Status status = files_->Link(
      absl::StrCat(SessionDir(dir_, source.tenant, source.id), "/", source.state_id, kStateSuffix),
      to);
  if (status.ok()) return status;
  // The source has moved on, or the file has as many names as the file system allows.
  if (data != nullptr) return WriteState(to, source.info, *data);
  if (absl::IsNotFound(status)) return status;
  const absl::StatusOr<StateData> copy = ReadState(source);
  return copy.ok() ? WriteState(to, source.info, *copy) : copy.status();
}

absl::Status SessionStore::WriteState(const std::string& to, const StateInfo& info,
                                      const StateData& data) {
  SLUICE_CHECK(static_cast<int64_t>(data.size()) == spec_.layout.elements);
  const std::string prefix = EncodeStateFilePrefix(info, spec_, AsBytes(data));
  const absl::StatusOr<std::string> temp = WriteTemp({prefix, AsBytes(data)});
  if (!temp.ok()) return temp.status();
  const absl::Status status = files_->Link(*temp, to);
  files_->Remove(*temp).IgnoreError();
  return status;
}

absl::Status SessionStore::LinkRecord(const std::string& session_dir, const SessionRecord& record) {
  const std::string bytes = EncodeRecordFile(record);
  if (static_cast<int64_t>(bytes.size()) > kMaxRecordBytes) {
    return absl::InvalidArgumentError("the session's record is too large");
  }
  const absl::StatusOr<std::string> temp = WriteTemp({bytes});
  if (!temp.ok()) return temp.status();
  const std::string path = absl::StrCat(session_dir, "/", RecordName(record.generation));
  absl::Status status = files_->Link(*temp, path);
  files_->Remove(*temp).IgnoreError();
  if (absl::IsAlreadyExists(status)) {
    return record.generation == 1 ? absl::AlreadyExistsError("there is a session of this name")
                                  : Moved();
  }
  return status;
}

// OK once the record is on disk for good and is the session.
absl::Status SessionStore::Confirm(const std::string& session_dir, const SessionRecord& record) {
  absl::Status status = files_->SyncDir(session_dir);
  if (status.ok()) {
    const absl::StatusOr<Entry> entry = Look(session_dir);
    status = entry.status();
    if (entry.ok() && entry->generation == record.generation) return status;
    // Another daemon has followed up on this record; or it had been two generations ahead, and had
    // removed the name that was taken now.
    if (entry.ok() && IsFollowed(record)) return status;
    if (entry.ok()) status = Moved();
  }
  files_->Remove(absl::StrCat(session_dir, "/", RecordName(record.generation))).IgnoreError();
  // Or a loss of power could bring it back, long after the session was found without it.
  files_->SyncDir(session_dir).IgnoreError();
  return absl::IsNotFound(status) ? Moved() : status;
}

// Whether the session's later record descends from `record`.
bool SessionStore::IsFollowed(const SessionRecord& record) {
  const absl::StatusOr<SessionRecord> now = ReadCurrent(record.tenant, record.id);
  if (!now.ok() || now->generation < record.generation) return false;
  const uint64_t age = now->generation - record.generation;
  return age < now->lineage.size() && now->lineage[age] == record.lineage.front();
}

// Records of earlier generations, and states that neither this record nor a later one can name.
void SessionStore::RemoveOld(const std::string& session_dir, const SessionRecord& record) {
  const absl::StatusOr<Entry> entry = Look(session_dir);
  if (!entry.ok()) return;
  for (const std::string& name : entry->names) {
    const std::optional<uint64_t> generation = GenerationOf(name);
    if (!generation.has_value() || *generation > record.generation) continue;
    const bool is_own = name == RecordName(record.generation) ||
                        name == absl::StrCat(record.state_id, kStateSuffix);
    if (!is_own) files_->Remove(absl::StrCat(session_dir, "/", name)).IgnoreError();
  }
}

absl::Status SessionStore::Delete(const std::string& tenant, const std::string& id,
                                  uint64_t generation) {
  const std::string session_dir = SessionDir(dir_, tenant, id);
  const std::string trash = absl::StrCat(temp_dir_, "/", RandomName());
  const auto is_other = [&](const Entry& entry) {
    return generation != 0 && !entry.lost && entry.generation != generation;
  };
  absl::StatusOr<Entry> entry = Look(session_dir);
  if (absl::IsNotFound(entry.status())) return absl::OkStatus();
  if (!entry.ok()) return entry.status();
  if (is_other(*entry)) return Moved();
  absl::Status status = files_->Rename(session_dir, trash);
  if (absl::IsNotFound(status)) return absl::OkStatus();
  if (!status.ok()) return status;
  // Another daemon's commit may have come in between: then it stands.
  entry = Look(trash);
  if (entry.ok() && is_other(*entry)) status = Moved();
  const std::string tenant_dir = absl::StrCat(dir_, "/sessions/", EscapeName(kTenant, tenant));
  if (status.ok()) status = files_->SyncDir(tenant_dir);
  if (!status.ok()) {
    files_->Rename(trash, session_dir).IgnoreError();
    files_->SyncDir(tenant_dir).IgnoreError();
    return status;
  }
  RemoveTree(trash);
  return absl::OkStatus();
}

// ---- What went wrong ----

void SessionStore::Quarantine(const std::string& session_dir, const std::string& name) {
  ++quarantined_;
  const std::string to = absl::StrCat(dir_, "/quarantine/", RandomName(), "-", name);
  // The mark first: a session that is neither there nor lost would be taken for one that never was.
  const absl::Status marked = files_->WriteNew(absl::StrCat(session_dir, "/", kLost),
                                               {"quarantine/", to.substr(to.rfind('/') + 1), "\n"});
  if (!marked.ok() && !absl::IsAlreadyExists(marked)) return;
  files_->Rename(absl::StrCat(session_dir, "/", name), to).IgnoreError();
  files_->SyncDir(session_dir).IgnoreError();
}

void SessionStore::RemoveTree(const std::string& dir) {
  for (const std::string& name : files_->List(dir).value_or(std::vector<std::string>())) {
    const std::string path = absl::StrCat(dir, "/", name);
    if (!files_->Remove(path).ok()) RemoveTree(path);
  }
  files_->Remove(dir).IgnoreError();
}

}  // namespace sluice
