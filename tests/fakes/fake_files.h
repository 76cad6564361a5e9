// A file system in memory that can be full, broken, cut short in the middle of what it does, or
// lose what was never synced.
#ifndef SLUICE_TESTS_FAKES_FAKE_FILES_H_
#define SLUICE_TESTS_FAKES_FAKE_FILES_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/files.h"

namespace sluice {

class FakeFiles : public Files {
 public:
  FakeFiles() : root_(NewDir()) {}

  // ---- What goes wrong ----

  // The n-th call from now on (0: the next) fails with `status`; a write leaves half of its bytes.
  void FailAt(int64_t n, absl::Status status) { fail_at_ = calls_ + n, failure_ = status; }
  // From now on until told otherwise there is no space for anything new. A write leaves half of its
  // bytes.
  void SetFull(bool full) { full_ = full; }
  // From now on until told otherwise every call fails.
  void SetBroken(bool broken) { broken_ = broken; }
  // Every call from the n-th on fails and does nothing: the process is gone. A write that is the
  // n-th leaves half of its bytes.
  void DieAt(int64_t n) { die_at_ = calls_ + n; }
  // Another process comes: nothing fails any more, no lock is held.
  void Restart() {
    die_at_ = fail_at_ = -1;
    full_ = broken_ = false;
    locks_.clear();
    for (auto& [path, table] : byte_locks_) table->clear();
  }
  // Restarts like Restart, but only one of several processes died: the others keep their locks, and
  // its own go with its objects.
  void RestartOne() {
    die_at_ = fail_at_ = -1;
    full_ = broken_ = false;
  }
  // Restarts like Restart, after the power went: names and bytes that were not synced are gone.
  void PowerLoss() {
    Restart();
    Forget(root_.get(), nullptr);
  }
  // Restarts like PowerLoss, but each name that was not synced may have made it to the disk or not.
  void PowerLoss(uint64_t seed) {
    Restart();
    std::mt19937_64 random(seed);
    Forget(root_.get(), &random);
  }
  int64_t calls() const { return calls_; }
  // Called at the beginning of every call: a slow disk does not return.
  void set_before_call(std::function<void()> hook) { before_call_ = std::move(hook); }

  // ---- Looking and touching, past all of that ----

  // Paths of all files below `dir`.
  std::vector<std::string> AllFiles(const std::string& dir) {
    std::vector<std::string> out;
    if (const auto node = Find(dir)) Collect(*node, dir, &out);
    return out;
  }
  // nullptr when there is no such file.
  std::string* Bytes(const std::string& path) {
    const auto node = Find(path);
    return node == nullptr || node->is_dir ? nullptr : &node->bytes;
  }

  // ---- Files ----

  absl::Status MakeDir(const std::string& path) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto [parent, name] = Split(path);
    if (parent == nullptr) return absl::NotFoundError("mkdir");
    if (full_ && parent->entries.count(name) == 0) return NoSpace();
    const auto [it, made] = parent->entries.emplace(name, NewDir());
    return made || it->second->is_dir ? absl::OkStatus() : absl::NotFoundError("mkdir");
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& dir) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto node = Find(dir);
    if (node == nullptr || !node->is_dir) return absl::NotFoundError("opendir");
    std::vector<std::string> names;
    for (const auto& [name, entry] : node->entries) names.push_back(name);
    return names;
  }
  absl::StatusOr<int64_t> Size(const std::string& path) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const std::string* bytes = Bytes(path);
    if (bytes == nullptr) return absl::NotFoundError("stat");
    return static_cast<int64_t>(bytes->size());
  }
  absl::StatusOr<FileStamp> Stamp(const std::string& path) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto node = Find(path);
    if (node == nullptr) return absl::NotFoundError("stat");
    return FileStamp{node->number, node->time_us, static_cast<int64_t>(node->bytes.size()),
                     !node->is_dir};
  }
  absl::Status SetTime(const std::string& path, int64_t time_us) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto node = Find(path);
    if (node == nullptr) return absl::NotFoundError("utimensat");
    node->time_us = time_us;
    return absl::OkStatus();
  }
  absl::Status ReadAt(const std::string& path, int64_t offset, absl::Span<char> out) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const std::string* bytes = Bytes(path);
    if (bytes == nullptr) return absl::NotFoundError("open");
    if (offset + out.size() > bytes->size()) return absl::DataLossError("read");
    if (!out.empty()) std::memcpy(out.data(), bytes->data() + offset, out.size());
    return absl::OkStatus();
  }
  absl::Status WriteNew(const std::string& path,
                        absl::Span<const absl::string_view> pieces) override {
    const bool was_dead = dead();
    absl::Status status = Call();
    if (was_dead || broken_) return status;
    if (status.ok() && full_) status = NoSpace();
    const auto [parent, name] = Split(path);
    if (parent == nullptr) return absl::NotFoundError("create");
    const auto [it, made] = parent->entries.emplace(name, std::make_shared<Node>());
    if (!made) return absl::AlreadyExistsError("create");
    std::string bytes;
    for (absl::string_view piece : pieces) absl::StrAppend(&bytes, piece);
    if (!status.ok()) {
      it->second->bytes = bytes.substr(0, bytes.size() / 2);
      return status;
    }
    it->second->bytes = it->second->synced = bytes;
    return absl::OkStatus();
  }
  absl::Status SyncDir(const std::string& dir) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto node = Find(dir);
    if (node == nullptr || !node->is_dir) return absl::NotFoundError("open");
    node->durable = node->entries;
    return absl::OkStatus();
  }
  absl::Status Link(const std::string& from, const std::string& to) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto node = Find(from);
    const auto [parent, name] = Split(to);
    if (node == nullptr || parent == nullptr) return absl::NotFoundError("link");
    if (full_) return NoSpace();
    return parent->entries.emplace(name, node).second ? absl::OkStatus()
                                                      : absl::AlreadyExistsError("link");
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto node = Find(from);
    const auto [to_parent, to_name] = Split(to);
    if (node == nullptr || to_parent == nullptr) return absl::NotFoundError("rename");
    if (!to_parent->entries.emplace(to_name, node).second) {
      return absl::AlreadyExistsError("rename");
    }
    const auto [from_parent, from_name] = Split(from);
    from_parent->entries.erase(from_name);
    return absl::OkStatus();
  }
  absl::Status Remove(const std::string& path) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto node = Find(path);
    if (node == nullptr) return absl::NotFoundError("remove");
    if (!node->entries.empty()) return absl::AlreadyExistsError("remove");
    const auto [parent, name] = Split(path);
    parent->entries.erase(name);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Lock>> TryLock(const std::string& path) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto [parent, name] = Split(path);
    if (parent == nullptr) return absl::NotFoundError("open");
    parent->entries.emplace(name, std::make_shared<Node>());
    std::weak_ptr<bool>& held = locks_[path];
    if (!held.expired()) return absl::AlreadyExistsError("lock");
    auto lock = std::make_unique<FakeLock>();
    held = lock->held;
    return std::unique_ptr<Lock>(std::move(lock));
  }
  absl::StatusOr<std::unique_ptr<ByteLocks>> OpenLocks(const std::string& path) override {
    if (absl::Status status = Call(); !status.ok()) return status;
    const auto [parent, name] = Split(path);
    if (parent == nullptr) return absl::NotFoundError("open");
    parent->entries.emplace(name, std::make_shared<Node>());
    std::shared_ptr<LockTable>& table = byte_locks_[path];
    if (table == nullptr) table = std::make_shared<LockTable>();
    return std::unique_ptr<ByteLocks>(std::make_unique<FakeByteLocks>(this, table));
  }
  // From now on byte locks fail with `status`; OK: they work again.
  void SetLocks(absl::Status status) { locks_status_ = std::move(status); }
  // From now on every byte lock is given, whoever has it: as where locks are each machine's own.
  void SetLocksIgnored(bool ignored) { locks_ignored_ = ignored; }

 private:
  struct Node {
    bool is_dir = false;
    uint64_t number = NextNumber();
    int64_t time_us = 0;
    std::string bytes;
    std::string synced;
    std::map<std::string, std::shared_ptr<Node>> entries;
    std::map<std::string, std::shared_ptr<Node>> durable;
  };
  struct FakeLock : Lock {
    std::shared_ptr<bool> held = std::make_shared<bool>(true);
  };
  // By byte: who has it, and how.
  using LockTable = std::map<int64_t, std::map<const ByteLocks*, ByteLocks::Mode>>;
  class FakeByteLocks : public ByteLocks {
   public:
    FakeByteLocks(FakeFiles* files, std::shared_ptr<LockTable> table)
        : files_(files), table_(std::move(table)) {}
    ~FakeByteLocks() override {
      for (auto& [byte, holders] : *table_) holders.erase(this);
    }
    absl::Status Set(int64_t byte, Mode mode) override {
      if (absl::Status status = files_->LockCall(); !status.ok()) return status;
      auto& holders = (*table_)[byte];
      for (const auto& [holder, held] : holders) {
        const bool conflicts = held == Mode::kExclusive || mode == Mode::kExclusive;
        if (holder != this && mode != Mode::kNone && conflicts && !files_->locks_ignored_) {
          return absl::AlreadyExistsError("lock");
        }
      }
      holders.erase(this);
      if (mode != Mode::kNone) holders[this] = mode;
      if (holders.empty()) table_->erase(byte);
      return absl::OkStatus();
    }
    absl::StatusOr<Mode> HeldByOthers(int64_t first, int64_t count) override {
      if (absl::Status status = files_->LockCall(); !status.ok()) return status;
      if (files_->locks_ignored_) return Mode::kNone;
      for (auto it = table_->lower_bound(first); it != table_->end() && it->first < first + count;
           ++it) {
        for (const auto& [holder, held] : it->second) {
          if (holder != this) return held;
        }
      }
      return Mode::kNone;
    }

   private:
    FakeFiles* const files_;
    const std::shared_ptr<LockTable> table_;
  };
  absl::Status LockCall() {
    const absl::Status status = Call();
    return status.ok() ? locks_status_ : status;
  }

  static uint64_t NextNumber() {
    static std::atomic<uint64_t> last{0};
    return ++last;
  }
  static std::shared_ptr<Node> NewDir() {
    auto node = std::make_shared<Node>();
    node->is_dir = true;
    return node;
  }
  static absl::Status NoSpace() { return absl::ResourceExhaustedError("full"); }
  bool dead() const { return die_at_ >= 0 && calls_ >= die_at_ + 1; }
  absl::Status Call() {
    if (before_call_) before_call_();
    const int64_t call = calls_++;
    if (die_at_ >= 0 && call >= die_at_) return absl::UnavailableError("the process is gone");
    if (broken_) return absl::UnavailableError("broken");
    return call == fail_at_ ? failure_ : absl::OkStatus();
  }
  std::shared_ptr<Node> Find(std::string path) {
    if (absl::EndsWith(path, "/..")) path = path.substr(0, path.rfind('/', path.size() - 4));
    std::shared_ptr<Node> node = root_;
    for (absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
      const auto it = node->entries.find(std::string(part));
      if (it == node->entries.end()) return nullptr;
      node = it->second;
    }
    return node;
  }
  std::pair<std::shared_ptr<Node>, std::string> Split(const std::string& path) {
    const size_t slash = path.rfind('/');
    const auto parent = Find(path.substr(0, slash));
    return {parent != nullptr && parent->is_dir ? parent : nullptr, path.substr(slash + 1)};
  }
  static void Forget(Node* node, std::mt19937_64* random) {
    auto left = node->durable;
    const auto written = [&] { return random != nullptr && (*random)() % 2 == 0; };
    for (const auto& [name, entry] : node->durable) {
      if (node->entries.count(name) == 0 && written()) left.erase(name);
    }
    for (const auto& [name, entry] : node->entries) {
      if (node->durable.count(name) == 0 && written()) left[name] = entry;
    }
    node->entries = node->durable = std::move(left);
    node->bytes = node->synced;
    for (auto& [name, entry] : node->entries) Forget(entry.get(), random);
  }
  static void Collect(const Node& node, const std::string& at, std::vector<std::string>* out) {
    for (const auto& [name, entry] : node.entries) {
      const std::string path = absl::StrCat(at, "/", name);
      if (entry->is_dir) {
        Collect(*entry, path, out);
      } else {
        out->push_back(path);
      }
    }
  }

  std::shared_ptr<Node> root_;
  std::map<std::string, std::weak_ptr<bool>> locks_;
  std::map<std::string, std::shared_ptr<LockTable>> byte_locks_;
  absl::Status locks_status_;
  bool locks_ignored_ = false;
  int64_t calls_ = 0;
  int64_t fail_at_ = -1;
  int64_t die_at_ = -1;
  bool full_ = false;
  bool broken_ = false;
  std::function<void()> before_call_;
  absl::Status failure_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_FAKE_FILES_H_
