#include "engine/checkpoint/families.h"

#include "engine/checkpoint/families/gla.h"

namespace sluice {
namespace {

constexpr const Family* kFamilies[] = {&kGlaFamily};

}  // namespace

absl::Span<const Family* const> Families() { return kFamilies; }

const Family* FindFamily(absl::string_view model_type) {
  for (const Family* family : kFamilies) {
    if (model_type == family->model_type) return family;
  }
  return nullptr;
}

}  // namespace sluice
