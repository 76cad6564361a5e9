#include "engine/state/directory_claim.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/state/names.h"

namespace sluice {
namespace {

using Mode = Files::ByteLocks::Mode;

constexpr absl::string_view kLockSuffix = ".lock";
constexpr absl::string_view kAbout = "/daemon";
constexpr int64_t kMaxAbout = 512;
constexpr int64_t kHolderByte = 0;
// Bytes from here on are for trying out whether locks work.
constexpr int64_t kFirstProbeByte = int64_t{1} << 40;

// A daemon's line about itself; "" if its version writes none.
std::string AboutOf(Files* files, const std::string& temp_dir) {
  const std::string path = absl::StrCat(temp_dir, kAbout);
  const int64_t size = std::min(files->Size(path).value_or(0), kMaxAbout);
  std::string text(static_cast<size_t>(size), '\0');
  if (!files->ReadAt(path, 0, absl::MakeSpan(text)).ok()) return "";
  return std::string(absl::StripAsciiWhitespace(text));
}

}  // namespace

absl::Status CheckLocks(Files* files, const std::string& path) {
  const int64_t byte = kFirstProbeByte + static_cast<int64_t>(RandomNumber() >> 24);
  const auto one = files->OpenLocks(path);
  if (!one.ok()) return one.status();
  const auto other = files->OpenLocks(path);
  if (!other.ok()) return other.status();
  const absl::Status taken = (*one)->Set(byte, Mode::kExclusive);
  if (!taken.ok()) return taken;
  const absl::StatusOr<Mode> seen = (*other)->HeldByOthers(byte, 1);
  if (!seen.ok()) return seen.status();
  const absl::Status refused = (*other)->Set(byte, Mode::kShared);
  if (*seen == Mode::kExclusive && absl::IsAlreadyExists(refused)) return absl::OkStatus();
  return absl::UnavailableError("its file system takes locks and does not keep them");
}

void RemoveTree(Files* files, const std::string& dir) {
  for (const std::string& name : files->List(dir).value_or(std::vector<std::string>())) {
    const std::string path = absl::StrCat(dir, "/", name);
    if (!files->Remove(path).ok()) RemoveTree(files, path);
  }
  files->Remove(dir).IgnoreError();
}

absl::StatusOr<std::unique_ptr<DirectoryClaim>> DirectoryClaim::Take(Files* files,
                                                                     const std::string& dir,
                                                                     bool shared,
                                                                     const std::string& about) {
  std::unique_ptr<DirectoryClaim> claim(new DirectoryClaim(files, dir));
  absl::Status status = claim->LockHolder(shared);
  if (status.ok()) status = claim->ClearUp(shared);
  if (status.ok()) status = claim->MakeTemp(about);
  if (status.ok()) status = claim->Probe();
  if (!status.ok()) return status;
  return claim;
}

absl::Status DirectoryClaim::LockHolder(bool shared) {
  const std::string path = absl::StrCat(dir_, "/holder");
  const absl::Status works = CheckLocks(files_, path);
  if (!works.ok()) return works;
  absl::StatusOr<std::unique_ptr<Files::ByteLocks>> holder = files_->OpenLocks(path);
  if (!holder.ok()) return holder.status();
  holder_ = *std::move(holder);
  const absl::Status locked = holder_->Set(kHolderByte, shared ? Mode::kShared : Mode::kExclusive);
  return absl::IsAlreadyExists(locked) ? Refusal() : locked;
}

// Says who is there: all that live have a locked file under tmp.
absl::Status DirectoryClaim::Refusal() {
  const std::string tmp = absl::StrCat(dir_, "/tmp/");
  std::string who;
  for (const std::string& name : files_->List(tmp).value_or(std::vector<std::string>())) {
    if (!absl::EndsWith(name, kLockSuffix)) continue;
    const auto lock = files_->TryLock(tmp + name);
    if (!absl::IsAlreadyExists(lock.status())) continue;
    const std::string about =
        AboutOf(files_, tmp + name.substr(0, name.size() - kLockSuffix.size()));
    absl::StrAppend(&who, who.empty() ? "" : ", ",
                    about.empty() ? "a daemon of an earlier version" : about);
  }
  return absl::AbortedError(
      absl::StrCat("in use by ", who.empty() ? "a daemon that starts or ends" : who));
}

// Removes what dead daemons left in the making. What cannot be removed now is tried again at the
// next start.
absl::Status DirectoryClaim::ClearUp(bool shared) {
  const std::string tmp = absl::StrCat(dir_, "/tmp/");
  for (const std::string& name : files_->List(tmp).value_or(std::vector<std::string>())) {
    if (!absl::EndsWith(name, kLockSuffix)) continue;
    const std::string folder = tmp + name.substr(0, name.size() - kLockSuffix.size());
    const auto lock = files_->TryLock(tmp + name);
    if (absl::IsAlreadyExists(lock.status())) {
      if (!shared || AboutOf(files_, folder).empty()) return Refusal();
    }
    if (!lock.ok()) continue;
    RemoveTree(files_, folder);
    files_->Remove(tmp + name).IgnoreError();
  }
  return absl::OkStatus();
}

absl::Status DirectoryClaim::MakeTemp(const std::string& about) {
  temp_dir_ = absl::StrCat(dir_, "/tmp/", RandomName());
  absl::StatusOr<std::unique_ptr<Files::Lock>> lock =
      files_->TryLock(absl::StrCat(temp_dir_, kLockSuffix));
  // Another daemon that starts now may take a lock for a dead one's until it is held.
  for (int attempt = 0; attempt < 8 && absl::IsAlreadyExists(lock.status()); ++attempt) {
    temp_dir_ = absl::StrCat(dir_, "/tmp/", RandomName());
    lock = files_->TryLock(absl::StrCat(temp_dir_, kLockSuffix));
  }
  if (!lock.ok()) return lock.status();
  temp_lock_ = *std::move(lock);
  const absl::Status made = files_->MakeDir(temp_dir_);
  if (!made.ok()) return made;
  return files_->WriteNew(absl::StrCat(temp_dir_, kAbout), {about, "\n"});
}

// A file system without second names is no place for sessions: everything rests on them.
absl::Status DirectoryClaim::Probe() {
  const std::string path = absl::StrCat(temp_dir_, "/", RandomName());
  const std::string second = absl::StrCat(path, "-link");
  absl::Status status = files_->WriteNew(path, {"probe"});
  if (!status.ok()) return status;
  status = files_->Link(path, second);
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("its file system has no hard links: ", status.message()));
  }
  status = files_->Remove(second);
  return status.ok() ? files_->Remove(path) : status;
}

}  // namespace sluice
