// A state as an immutable file.
//
//   0   8 bytes  "SLUSTATE"
//   8   u32      version (state_header.h); every version keeps these first 32 bytes
//   12  u32      n, bytes of the header
//   16  u64      XXH3 of the data
//   24  u64      XXH3 of bytes 0 to 23 and the header
//   32  n bytes  the header (state_header.h)
//   32 + n       the data, to the end of the file
#ifndef SLUICE_ENGINE_STATE_STATE_FILE_H_
#define SLUICE_ENGINE_STATE_STATE_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/files.h"
#include "engine/state/state_header.h"

namespace sluice {

// Everything before the data.
std::string EncodeStateFilePrefix(const StateInfo& info, const StateSpec& spec,
                                  absl::string_view data);

// Reads a state of this model. Nothing is allocated that the file's own size does not back.
// DATA_LOSS: damaged. FAILED_PRECONDITION: of a newer version, which it names with the file; or as
// CheckStateHeader, as INVALID_ARGUMENT is. Errors of Files.
absl::StatusOr<StateData> ReadStateFile(Files* files, const std::string& path,
                                        const StateSpec& spec, StateInfo* info);

inline absl::string_view AsBytes(const StateData& data) { return {data.data(), data.size()}; }

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_STATE_FILE_H_
