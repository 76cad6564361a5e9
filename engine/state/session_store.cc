#include "engine/state/session_store.h"

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/state/names.h"
#include "engine/state/record_file.h"
#include "engine/state/state_file.h"
#include "kernels/check.h"

namespace sluice {
namespace {

constexpr absl::string_view kLost = "lost";

// One message for what happened to the session, whoever noticed and how.
absl::Status Moved() { return absl::AbortedError("the session was changed by another daemon"); }
absl::Status TooManySessions(int64_t bound) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the daemons have all the sessions they may have: ", bound));
}
absl::Status TooManyOfTenant(int64_t bound) {
  return absl::ResourceExhaustedError(
      absl::StrCat("you have all the sessions you may have: ", bound));
}
absl::Status Lost() {
  return absl::DataLossError("the session's record or state on disk is damaged");
}

}  // namespace

struct SessionStore::Entry {
  std::vector<std::string> names;
  uint64_t generation = 0;  // the highest; 0: no record
  bool lost = false;
};

// ---- Opening ----

absl::StatusOr<std::unique_ptr<SessionStore>> SessionStore::Open(Files* files,
                                                                 const std::string& dir,
                                                                 const StateSpec& spec,
                                                                 const StoreOptions& options) {
  std::unique_ptr<SessionStore> store(new SessionStore(files, dir, spec));
  store->on_quarantine_ = options.on_quarantine;
  absl::Status status = store->Prepare();
  if (status.ok()) status = store->Claim(options);
  if (status.ok()) status = store->NoteFirstStart(options.now_us);
  if (status.ok()) {
    absl::StatusOr<std::vector<SessionName>> index = store->ListNames(nullptr);
    status = index.status();
    if (index.ok()) store->index_ = *std::move(index);
  }
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("session directory '", dir, "': ", status.message()));
  }
  return store;
}

absl::Status SessionStore::Prepare() {
  absl::Status status = files_->MakeDir(dir_);
  // If the directory was there already, its parent may be closed to us, and needs no sync.
  files_->SyncDir(absl::StrCat(dir_, "/..")).IgnoreError();
  for (absl::string_view name : {"/sessions", "/tmp", "/quarantine"}) {
    if (!status.ok()) break;
    status = files_->MakeDir(absl::StrCat(dir_, name));
    if (!status.ok()) {
      status = absl::Status(status.code(), absl::StrCat("'", dir_, name, "': ", status.message()));
    }
  }
  return status.ok() ? files_->SyncDir(dir_) : status;
}

absl::Status SessionStore::Claim(const StoreOptions& options) {
  absl::StatusOr<std::unique_ptr<DirectoryClaim>> claim =
      DirectoryClaim::Take(files_, dir_, options.shared, options.about);
  if (!claim.ok()) return claim.status();
  claim_ = *std::move(claim);
  if (!options.shared) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<SessionLocks>> locks =
      SessionLocks::Open(files_, dir_, options.lock_slots);
  if (!locks.ok()) return locks.status();
  locks_ = *std::move(locks);
  return absl::OkStatus();
}

absl::Status SessionStore::NoteFirstStart(int64_t now_us) {
  const std::string path = absl::StrCat(dir_, "/first-start");
  first_start_us_ = now_us;
  const std::string text = absl::StrCat(now_us, "\n");
  const absl::Status written = files_->WriteNew(path, {text});
  if (!absl::IsAlreadyExists(written)) return written.ok() ? files_->SyncDir(dir_) : written;
  const absl::StatusOr<int64_t> size = files_->Size(path);
  if (!size.ok()) return size.status();
  std::string noted(static_cast<size_t>(std::min<int64_t>(*size, 64)), '\0');
  const absl::Status read = files_->ReadAt(path, 0, absl::MakeSpan(noted));
  if (!read.ok()) return read;
  // One that a death left half written: nothing ends early if it is taken for now.
  int64_t first = 0;
  if (absl::SimpleAtoi(noted, &first)) first_start_us_ = first;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SessionName>> SessionStore::ListNames(const std::string* tenant) {
  const std::string sessions = absl::StrCat(dir_, "/sessions");
  std::vector<std::string> tenant_dirs;
  if (tenant != nullptr) {
    tenant_dirs = {EscapeName(kTenantPrefix, *tenant)};
  } else {
    absl::StatusOr<std::vector<std::string>> all = files_->List(sessions);
    if (!all.ok()) return all.status();
    tenant_dirs = *std::move(all);
  }
  std::vector<SessionName> names;
  for (const std::string& tenant_dir : tenant_dirs) {
    std::string owner;
    if (!UnescapeName(kTenantPrefix, tenant_dir, &owner)) continue;
    const absl::StatusOr<std::vector<std::string>> ids =
        files_->List(absl::StrCat(sessions, "/", tenant_dir));
    if (absl::IsNotFound(ids.status())) {  // gone, or never was a tenant's
      QuarantineFile(absl::StrCat(sessions, "/", tenant_dir));
      continue;
    }
    if (!ids.ok()) return ids.status();
    for (const std::string& id_dir : *ids) {
      std::string id;
      if (UnescapeName(kSessionPrefix, id_dir, &id)) names.push_back({owner, std::move(id), 0});
    }
  }
  return names;
}

int64_t SessionStore::CountStates(const std::vector<SessionName>& names) {
  std::set<uint64_t> files;
  for (const SessionName& name : names) {
    const std::string session_dir = SessionDir(dir_, name.tenant, name.id);
    const auto entries = files_->List(session_dir);
    if (!entries.ok()) continue;
    for (const std::string& entry : *entries) {
      if (!absl::EndsWith(entry, kStateSuffix)) continue;
      const auto stamp = files_->Stamp(absl::StrCat(session_dir, "/", entry));
      if (stamp.ok()) files.insert(stamp->number);
    }
  }
  return static_cast<int64_t>(files.size());
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

absl::StatusOr<SessionRecord> SessionStore::ReadRecord(const std::string& tenant,
                                                       const std::string& id) {
  absl::StatusOr<SessionRecord> record = ReadCurrent(tenant, id);
  if (!record.ok()) return record;
  const absl::Status synced = files_->SyncDir(SessionDir(dir_, tenant, id));
  if (!synced.ok()) return synced;
  return record;
}

absl::StatusOr<SessionRecord> SessionStore::ReadNewer(const SessionRecord& known) {
  if (known.generation == 0 || known.file_number == 0) return ReadRecord(known.tenant, known.id);
  const std::string session_dir = SessionDir(dir_, known.tenant, known.id);
  const absl::StatusOr<Entry> entry = Look(session_dir);
  if (!entry.ok()) return entry.status();
  if (entry->lost) return Lost();
  if (entry->generation == known.generation) {
    // A session that was deleted and made again may have come as far.
    const auto stamp = files_->Stamp(absl::StrCat(session_dir, "/", RecordName(known.generation)));
    if (stamp.ok() && stamp->number == known.file_number) {
      SessionRecord same = known;
      same.last_use_us = stamp->time_us;
      return same;
    }
  }
  return ReadRecord(known.tenant, known.id);
}

absl::StatusOr<SessionRecord> SessionStore::ReadCurrent(const std::string& tenant,
                                                        const std::string& id) {
  const std::string session_dir = SessionDir(dir_, tenant, id);
  // Another daemon may replace the record between the look and the read; not for ever.
  for (int attempt = 0; attempt < 8; ++attempt) {
    const absl::StatusOr<Entry> entry = Look(session_dir);
    if (absl::IsNotFound(entry.status())) QuarantineFile(session_dir);
    if (!entry.ok()) return entry.status();
    if (entry->lost) return Lost();
    if (entry->generation == 0) return absl::NotFoundError("no record");
    const std::string name = RecordName(entry->generation);
    const std::string path = absl::StrCat(session_dir, "/", name);
    const absl::StatusOr<FileStamp> stamp = files_->Stamp(path);
    if (absl::IsNotFound(stamp.status())) continue;
    if (!stamp.ok()) return stamp.status();
    if (!stamp->is_file) {
      Quarantine(session_dir, name);
      return Lost();
    }
    std::string bytes(static_cast<size_t>(std::min(stamp->size, kMaxRecordBytes)), '\0');
    const absl::Status read = files_->ReadAt(path, 0, absl::MakeSpan(bytes));
    if (absl::IsNotFound(read)) continue;
    if (!read.ok()) return read;
    absl::StatusOr<SessionRecord> record = ParseRecordFile(bytes);
    if (absl::IsFailedPrecondition(record.status())) return record;
    if (record.ok()) {
      record->file_number = stamp->number;
      record->last_use_us = stamp->time_us;
    }
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
    if (now.ok() && now->generation == record.generation && now->state_id == record.state_id) {
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

absl::Status SessionStore::CheckState(const SessionRecord& record, bool trusted, FileStamp* known) {
  const absl::StatusOr<FileStamp> now = files_->Stamp(
      absl::StrCat(SessionDir(dir_, record.tenant, record.id), "/", record.state_id, kStateSuffix));
  const bool is_known = now.ok() && (known->number == 0 ? trusted : *now == *known);
  const absl::Status status = is_known ? absl::OkStatus() : ReadState(record).status();
  if (status.ok() && now.ok()) *known = *now;
  // Another daemon has removed it for a newer one: nothing of it was damaged.
  return trusted && absl::IsAborted(status) ? absl::OkStatus() : status;
}

// ---- Writing ----

absl::StatusOr<std::string> SessionStore::WriteTemp(absl::Span<const absl::string_view> pieces) {
  const std::string path = absl::StrCat(claim_->temp_dir(), "/", RandomName());
  const absl::Status written = files_->WriteNew(path, pieces);
  if (written.ok()) return path;
  files_->Remove(path).IgnoreError();
  return written;
}

absl::StatusOr<std::string> SessionStore::MakeSessionDir(const SessionRecord& record) {
  const std::string tenant_dir = TenantDir(dir_, record.tenant);
  const auto make = [&](const std::string& path) {
    const absl::Status made = files_->MakeDir(path);
    return absl::IsNotFound(made) && QuarantineFile(path) ? files_->MakeDir(path) : made;
  };
  absl::Status status = make(tenant_dir);
  if (status.ok()) status = files_->SyncDir(absl::StrCat(dir_, "/sessions"));
  const std::string session_dir = SessionDir(dir_, record.tenant, record.id);
  if (status.ok()) status = make(session_dir);
  if (status.ok()) status = files_->SyncDir(tenant_dir);
  if (!status.ok()) return status;
  return session_dir;
}

absl::Status SessionStore::CheckQuota(const std::string& tenant, const SessionQuota& quota) {
  const absl::StatusOr<std::vector<SessionName>> names = ListNames(nullptr);
  if (!names.ok()) return names.status();
  const auto all = static_cast<int64_t>(names->size());
  const auto of_tenant = std::count_if(
      names->begin(), names->end(), [&](const SessionName& name) { return name.tenant == tenant; });
  if (all > quota.all) return TooManySessions(quota.all);
  if (of_tenant > quota.of_tenant) return TooManyOfTenant(quota.of_tenant);
  return absl::OkStatus();
}

absl::Status SessionStore::PutRecord(SessionRecord* record, const StateData* data,
                                     const SessionRecord* source, const SessionQuota& quota) {
  SLUICE_CHECK(record->generation >= 1);
  std::string session_dir = SessionDir(dir_, record->tenant, record->id);
  if (EscapeName(kTenantPrefix, record->tenant).size() > kMaxName ||
      EscapeName(kSessionPrefix, record->id).size() > kMaxName) {
    return absl::InvalidArgumentError("the name is too long");
  }
  const bool is_new = record->generation == 1;
  SessionRecord next = *record;
  next.lineage = {RandomNumber()};
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
  if (status.ok() && is_new && locks_ != nullptr) {
    // Counted with this one in it: of two daemons that make the last one, none may overlook the
    // other's.
    status = CheckQuota(record->tenant, quota);
    if (!status.ok()) {
      files_->Remove(absl::StrCat(session_dir, "/", RecordName(1))).IgnoreError();
    }
  }
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
  if (locks_ != nullptr) {
    const std::string path = absl::StrCat(session_dir, "/", RecordName(next.generation));
    next.file_number = files_->Stamp(path).value_or(FileStamp()).number;
  }
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
  SLUICE_CHECK(static_cast<int64_t>(data.size()) == spec_.table.BytesAt(info.seen()));
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
  // Without it the file system's own clock says when, which is as good.
  if (record.last_use_us > 0) files_->SetTime(*temp, record.last_use_us).IgnoreError();
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

// True if the session's later record descends from `record`.
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

absl::Status SessionStore::TouchRecord(const SessionRecord& record) {
  return files_->SetTime(
      absl::StrCat(SessionDir(dir_, record.tenant, record.id), "/", RecordName(record.generation)),
      record.last_use_us);
}

absl::Status SessionStore::Delete(const std::string& tenant, const std::string& id,
                                  uint64_t generation) {
  const std::string session_dir = SessionDir(dir_, tenant, id);
  const std::string trash = absl::StrCat(claim_->temp_dir(), "/", RandomName());
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
  const std::string tenant_dir = TenantDir(dir_, tenant);
  if (status.ok()) status = files_->SyncDir(tenant_dir);
  if (!status.ok()) {
    files_->Rename(trash, session_dir).IgnoreError();
    files_->SyncDir(tenant_dir).IgnoreError();
    return status;
  }
  RemoveTree(files_, trash);
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
  if (on_quarantine_) {
    on_quarantine_(absl::StrCat(session_dir.substr(dir_.size() + 1), "/", name));
  }
}

bool SessionStore::QuarantineFile(const std::string& path) {
  if (!files_->Size(path).ok()) return false;
  const std::string to =
      absl::StrCat(dir_, "/quarantine/", RandomName(), "-", path.substr(path.rfind('/') + 1));
  if (!files_->Rename(path, to).ok()) return false;
  files_->SyncDir(path.substr(0, path.rfind('/'))).IgnoreError();
  ++quarantined_;
  if (on_quarantine_) on_quarantine_(path.substr(dir_.size() + 1));
  return true;
}

}  // namespace sluice
