#include "tests/fakes/test_paths.h"

namespace sluice {

std::string SourcePath(std::string_view relative) {
  return std::string(SLUICE_SOURCE_DIR "/").append(relative);
}

}  // namespace sluice
