// A session's state as bytes that leave the daemon: what Export streams and Import takes.
//
//   0   8 bytes   "SLUEXPRT"
//   8   u32       version (state_header.h)
//   12  u32       n, bytes of the header
//   16  16 bytes  id of the key (state_keys.h)
//   32  n bytes   the header: u32 and tenant, then state_header.h
//   .   32 bytes  HMAC-SHA256 of everything before: nothing is believed until it was verified
//   .   data      the numbers of the header's parts
//   .   32 bytes  HMAC-SHA256 of everything before
#ifndef SLUICE_ENGINE_STATE_STATE_BLOB_H_
#define SLUICE_ENGINE_STATE_STATE_BLOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/state/state_header.h"
#include "engine/state/state_keys.h"

namespace sluice {

// Hands out a state's bytes piece by piece. Keeps a reference to the numbers, copies none ahead.
class BlobWriter {
 public:
  // `data` is null or empty at position 0.
  BlobWriter(const StateKeys& keys, absl::string_view tenant, const StateSpec& spec,
             const StateInfo& info, std::shared_ptr<const StateData> data);

  // The next bytes, at most `max_bytes` (> 0); empty at the end.
  std::string Next(size_t max_bytes);

 private:
  const std::shared_ptr<const StateData> data_;
  Mac mac_;
  std::string head_;   // up to and with the first MAC
  std::string tail_;   // the last MAC, once the data is out
  size_t offset_ = 0;  // of the whole
};

// The content of a blob, verified.
struct BlobState {
  StateInfo info;
  StateData data;  // empty at position 0
};

// Takes a blob in, in pieces of any size, and refuses it as early as it can: PERMISSION_DENIED (a
// key that is not ours, another tenant), DATA_LOSS (damaged, cut off, too long),
// FAILED_PRECONDITION (another model, another version), INVALID_ARGUMENT (shapes, numbers that are
// not finite), OUT_OF_RANGE (too long a history). Memory for the numbers is taken once the header
// was verified.
class BlobReader {
 public:
  // For a fuzzer, which cannot make MACs, to reach what lies behind them.
  enum class Verify : bool { kYes = true, kNo = false };

  // Pointers outlive the reader.
  BlobReader(const StateKeys* keys, absl::string_view tenant, const StateSpec* spec,
             Verify verify = Verify::kYes);

  // After an error, every later call returns it too.
  absl::Status Add(absl::string_view piece);
  // After the last piece, once.
  absl::StatusOr<BlobState> Finish();

 private:
  absl::Status Take(absl::string_view* piece);
  absl::Status TakeHead(absl::string_view* piece);
  absl::Status ReadPrefix();
  absl::Status ReadHeader();

  const StateKeys* const keys_;
  const std::string tenant_;
  const StateSpec* const spec_;
  const Verify verify_;
  absl::Status status_;
  const StateKey* key_ = nullptr;
  std::optional<Mac> mac_;  // of everything, but the last MAC
  std::string head_;
  size_t head_bytes_;  // wanted in head_ next
  bool head_done_ = false;
  uint32_t version_ = 0;
  BlobState state_;
  size_t data_bytes_ = 0;  // taken
  std::string tail_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_STATE_BLOB_H_
