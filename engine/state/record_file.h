// A session's record as a small file.
//
//   0   8 bytes  "SLUSESSN"
//   8   u32      version, 1 or, with a note, 2; every version keeps these first 24 bytes
//   12  u32      n, bytes of the body
//   16  u64      XXH3 of bytes 0 to 15 and the body
//   24  n bytes  the body, to the end of the file:
//                strings (u32 n, bytes): tenant, id, affinity, etag, fingerprint, numerics_id,
//                undecoded, state_id, last_request_id; u64 generation; i64 position; i32
//                last_token; i64 create_time_us, update_time_us, ttl_us; u32 labels, each two
//                strings; u32 names in the lineage, each u64; version 2: a string, the note
#ifndef SLUICE_ENGINE_STATE_RECORD_FILE_H_
#define SLUICE_ENGINE_STATE_RECORD_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/state/session_record.h"

namespace sluice {

// A larger file is damaged.
inline constexpr int64_t kMaxRecordBytes = 64 << 10;
inline constexpr size_t kMaxLineage = 8;

std::string EncodeRecordFile(const SessionRecord& record);
// DATA_LOSS: damaged. FAILED_PRECONDITION: whole, but of another version.
absl::StatusOr<SessionRecord> ParseRecordFile(absl::string_view bytes);

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_RECORD_FILE_H_
