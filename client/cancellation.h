// Lets one thread end the calls that another one waits for.
#ifndef SLUICE_CLIENT_CANCELLATION_H_
#define SLUICE_CLIENT_CANCELLATION_H_

#include <functional>
#include <list>
#include <mutex>

namespace sluice {

// Shared by any number of calls and threads; outlives them. Once cancelled it stays so: later calls
// end at once.
class Cancellation {
 public:
  // Something that runs and can be told to stop, from construction to destruction.
  class Scope {
   public:
    // `stop` runs at most once, on the cancelling thread or (when already cancelled) right here.
    Scope(Cancellation* cancellation, std::function<void()> stop);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Cancellation* const cancellation_;  // null: nobody can cancel
    std::list<std::function<void()>>::iterator entry_;
  };

  // Stops everything that runs. False: nothing did.
  bool Cancel();
  bool cancelled() const;

 private:
  mutable std::mutex mutex_;
  bool cancelled_ = false;
  std::list<std::function<void()>> running_;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_CANCELLATION_H_
