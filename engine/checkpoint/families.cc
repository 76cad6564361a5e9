#include "engine/checkpoint/families.h"

#include "engine/checkpoint/families/delta_net.h"
#include "engine/checkpoint/families/gated_deltanet.h"
#include "engine/checkpoint/families/gla.h"
#include "engine/checkpoint/families/hgrn2.h"
#include "engine/checkpoint/families/kda.h"
#include "engine/checkpoint/families/lightnet.h"
#include "engine/checkpoint/families/linear_attn.h"
#include "engine/checkpoint/families/llama.h"
#include "engine/checkpoint/families/mamba2.h"
#include "engine/checkpoint/families/retnet.h"
#include "engine/checkpoint/families/simple_gla.h"
#include "engine/checkpoint/families/transformer.h"
#include "engine/checkpoint/families/transnormer.h"

namespace sluice {
namespace {

constexpr const Family* kFamilies[] = {
    &kGlaFamily,           &kRetNetFamily,      &kHgrn2Family,     &kLinearAttnFamily,
    &kLightNetFamily,      &kTransNormerFamily, &kMamba2Family,    &kDeltaNetFamily,
    &kGatedDeltaNetFamily, &kKdaFamily,         &kSimpleGlaFamily, &kTransformerFamily,
    &kLlamaFamily,         &kMistralFamily,     &kQwen2Family,     &kQwen3Family,
};

}  // namespace

absl::Span<const Family* const> Families() { return kFamilies; }

const Family* FindFamily(absl::string_view model_type) {
  for (const Family* family : kFamilies) {
    if (model_type == family->model_type) return family;
  }
  return nullptr;
}

}  // namespace sluice
