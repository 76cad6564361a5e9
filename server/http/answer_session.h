// What an answer says of the session that its call was on.
#ifndef SLUICE_SERVER_HTTP_ANSWER_SESSION_H_
#define SLUICE_SERVER_HTTP_ANSWER_SESSION_H_

#include <cstdint>
#include <string>

namespace sluice {

struct AnswerSession {
  std::string id{};
  std::string etag{};
  int64_t position = 0;    // tokens in its history
  bool committed = false;  // the call has moved it on: these are its new ones
};

// What the usage of a chat on a session says.
struct AnswerTurn {
  uint32_t messages = 0;    // of the conversation, the answer included; 0: not known
  bool resent = false;      // the client sent all of them
  bool recomputed = false;  // and all were computed anew
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_ANSWER_SESSION_H_
