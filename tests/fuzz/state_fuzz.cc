// Exported bytes (with the signature not looked at), state files and records: any bytes. The first
// byte says which, and in which pieces.

#include <cstddef>
#include <cstdint>

#include "engine/state/record_file.h"
#include "engine/state/state_blob.h"
#include "engine/state/state_file.h"
#include "kernels/check.h"
#include "tests/engine/state/small_state.h"
#include "tests/fakes/fake_files.h"

namespace sluice {
namespace {

void Blob(absl::string_view bytes, size_t piece) {
  static const StateSpec* const spec = new StateSpec(SmallSpec());
  BlobReader reader(nullptr, "t", spec, BlobReader::Verify::kNo);
  for (size_t at = 0; at < bytes.size(); at += piece) {
    if (!reader.Add(bytes.substr(at, piece)).ok()) return;
  }
  const absl::StatusOr<BlobState> state = reader.Finish();
  if (!state.ok()) return;
  SLUICE_CHECK(state->info.undecoded.size() <= 3);
  SLUICE_CHECK(static_cast<int64_t>(state->data.size()) ==
               (state->info.position == 0 ? 0 : spec->table.BytesAt(state->info.seen())));
}

void File(absl::string_view bytes) {
  FakeFiles files;
  SLUICE_CHECK(files.WriteNew("/f", {bytes}).ok());
  StateInfo info;
  ReadStateFile(&files, "/f", SmallSpec(), &info).status().IgnoreError();
}

void Record(absl::string_view bytes) {
  const absl::StatusOr<SessionRecord> record = ParseRecordFile(bytes);
  // A record that is accepted is written as it was read.
  if (record.ok() && record->labels.size() < 2) SLUICE_CHECK(EncodeRecordFile(*record) == bytes);
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      sluice::Blob(bytes, 1 + data[0] / 3);
      break;
    case 1:
      sluice::File(bytes);
      break;
    default:
      sluice::Record(bytes);
  }
  return 0;
}
