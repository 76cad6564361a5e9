// A line on stderr that says what a long call is doing, for people at a terminal.
#ifndef SLUICE_CLIENT_CLI_WAITING_H_
#define SLUICE_CLIENT_CLI_WAITING_H_

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "client/cli/io.h"

namespace sluice {

class Waiting {
 public:
  // Shows nothing within the first second, nor where stderr is no terminal.
  explicit Waiting(const Io& io);
  ~Waiting() { Stop(); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  // What is shown from now on, in parentheses and with the seconds that have passed.
  void Say(std::string what);
  // Removes the line. Nothing is shown afterwards.
  void Stop();

 private:
  void Run();

  const Io& io_;
  std::mutex mutex_;
  std::condition_variable bell_;
  std::string what_;  // under mutex_
  bool stop_ = false;
  std::thread thread_;  // none where stderr is no terminal
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_WAITING_H_
