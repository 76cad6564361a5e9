// A story told in turns: each line goes to a session, and what the model makes of it comes back.
#ifndef SLUICE_CLIENT_CLI_CHAT_H_
#define SLUICE_CLIENT_CLI_CHAT_H_

#include <deque>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/cli/io.h"
#include "client/client.h"
#include "client/session_client.h"

namespace sluice {

// Notices go to stderr, so that standard output is the story alone.
class Chat {
 public:
  // `turn`: what every turn's request is like, but for prompt and session. `call` is every call's.
  Chat(const Client& client, const CallOptions& call, v1::GenerateRequest turn, const Io& io);
  // Ends what /undo would go back to.
  ~Chat();

  // Goes on in this session, and makes it when there is none; "": makes one with a new name.
  absl::Status Open(const std::string& id);
  // Lines until /quit or the end of input. Without a terminal the first error ends it.
  absl::Status Run();

  const v1::Session& session() const { return session_; }

  static absl::string_view Help();

 private:
  absl::Status Turn(const std::string& line);
  absl::Status Do(absl::string_view command, const std::string& argument);
  absl::Status Undo();
  absl::Status Fork(const std::string& name);
  absl::Status Save(const std::string& file);
  absl::Status Load(const std::string& file);
  void Use(v1::Session session);
  void Forget(const std::string& undo_id) const;
  CallOptions Routed() const;
  std::string Joined(const std::string& line) const;
  absl::Status Generate(const v1::GenerateRequest& request);

  const Client client_;
  const SessionClient sessions_;
  const CallOptions call_;
  const v1::GenerateRequest turn_;
  const Io& io_;
  v1::Session session_;
  std::deque<std::string> undo_;  // sessions as they were before each turn, the last one last
  bool after_space_ = false;      // the story's last character is known to be white space
  bool quit_ = false;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_CHAT_H_
