// Lists of sessions: pages of a tenant's, and, with a directory that is shared, what is there at
// all. Internal to engine/sessions.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_PAGES_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_PAGES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/sessions/session_endings.h"

namespace sluice {

using SessionLabels = std::map<std::string, std::string>;

struct SessionPage {
  std::vector<SessionInfo> sessions;  // ordered by id
  std::string next_after;             // "": the last page
};

class SessionPages {
 public:
  // All outlive the object.
  SessionPages(const SessionContext& context, SessionTable* table, SessionQueue* queue,
               SessionOwners* owners, SessionEndings* endings)
      : context_(context), table_(table), queue_(queue), owners_(owners), endings_(endings) {}

  // This is Sessions::List.
  void List(absl::string_view tenant, int32_t page_size, const std::string& after_id,
            SessionLabels labels, Done<SessionPage> done);

  // Jobs that list the directory for those who asked ...
  void AddLists(std::vector<std::unique_ptr<StoreJob>>* jobs);
  // ... and now and then for the table and the count of states on disk.
  void AddListOfAll(absl::Duration now, std::vector<std::unique_ptr<StoreJob>>* jobs);
  void ListDone(const StoreJob& job);

  bool outstanding() const { return !to_list_.empty(); }
  size_t list_of_all_out() const { return list_job_ != 0 ? 1 : 0; }
  // When AddListOfAll has something to do next.
  absl::Duration NextDeadline() const;
  // Whoever waits for a list will not hear of it from here.
  Waits TakeWaits();

 private:
  // A page in the making.
  struct Listing {
    SessionKey after;  // the last one looked at
    int32_t page_size = 0;
    SessionLabels labels;
    SessionPage page;
    int32_t unread = 0;             // records on their way
    std::set<std::string> looked;   // ids whose records were read for it, or could not be
    std::set<std::string> checked;  // ids whose states were
    int64_t bytes_to_check = int64_t{64} << 20;
    Done<SessionPage> done;
  };
  using Listings = std::vector<std::shared_ptr<Listing>>;

  void Continue(const std::shared_ptr<Listing>& listing);
  // Records that must be read before their sessions can be listed. Each is read once, whatever
  // comes of it.
  bool IsUnknown(const Listing& listing, const Session& session) const;
  bool IsUnchecked(const Listing& listing, const Session& session) const;
  // Has as many records read at once as the page may still take, from `it` on.
  void Read(const std::shared_ptr<Listing>& listing, SessionTable::Map::const_iterator it);
  // These are the sessions there are: of one tenant, or all.
  void TakeNames(const std::vector<SessionName>& names, const std::string* tenant);

  const SessionContext context_;
  SessionTable* const table_;
  SessionQueue* const queue_;
  SessionOwners* const owners_;
  SessionEndings* const endings_;
  std::map<std::string, Listings> to_list_;  // by tenant
  std::map<uint64_t, Listings> listing_;     // by job
  uint64_t list_job_ = 0;                    // of all tenants; 0: none is out
  absl::Duration next_list_;
  absl::Duration list_began_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_PAGES_H_
