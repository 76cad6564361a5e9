#include "engine/checkpoint/families.h"

#include "engine/checkpoint/families/bamba.h"
#include "engine/checkpoint/families/delta_net.h"
#include "engine/checkpoint/families/falcon_h1.h"
#include "engine/checkpoint/families/gated_deltanet.h"
#include "engine/checkpoint/families/gla.h"
#include "engine/checkpoint/families/granite_hybrid.h"
#include "engine/checkpoint/families/hgrn2.h"
#include "engine/checkpoint/families/kda.h"
#include "engine/checkpoint/families/lfm2.h"
#include "engine/checkpoint/families/lightnet.h"
#include "engine/checkpoint/families/linear_attn.h"
#include "engine/checkpoint/families/llama.h"
#include "engine/checkpoint/families/mamba2.h"
#include "engine/checkpoint/families/nemotron_h.h"
#include "engine/checkpoint/families/olmo_hybrid.h"
#include "engine/checkpoint/families/qwen3_5.h"
#include "engine/checkpoint/families/retnet.h"
#include "engine/checkpoint/families/simple_gla.h"
#include "engine/checkpoint/families/transformer.h"
#include "engine/checkpoint/families/transnormer.h"

namespace sluice {
namespace {

constexpr const Family* kFamilies[] = {
    &kGlaFamily,           &kRetNetFamily,      &kHgrn2Family,         &kLinearAttnFamily,
    &kLightNetFamily,      &kTransNormerFamily, &kMamba2Family,        &kDeltaNetFamily,
    &kGatedDeltaNetFamily, &kKdaFamily,         &kSimpleGlaFamily,     &kTransformerFamily,
    &kLlamaFamily,         &kMistralFamily,     &kQwen2Family,         &kQwen3Family,
    &kQwen35Family,        &kQwen35TextFamily,  &kGraniteHybridFamily, &kLfm2Family,
    &kOlmoHybridFamily,    &kNemotronHFamily,   &kFalconH1Family,      &kBambaFamily,
};

struct NotServed {
  const char* model_type;
  const char* reason;
};

constexpr char kExperts[] = "layers with experts are not supported";
constexpr NotServed kNotServed[] = {
    {"qwen3_5_moe", kExperts},
    {"qwen3_5_moe_text", kExperts},
    {"qwen3_next", kExperts},
    {"lfm2_moe", kExperts},
    {"kimi_linear", "latent attention and layers with experts are not supported"},
};

}  // namespace

absl::Span<const Family* const> Families() { return kFamilies; }

const Family* FindFamily(absl::string_view model_type) {
  for (const Family* family : kFamilies) {
    if (model_type == family->model_type) return family;
  }
  return nullptr;
}

const char* WhyNotServed(absl::string_view model_type) {
  for (const NotServed& known : kNotServed) {
    if (model_type == known.model_type) return known.reason;
  }
  return nullptr;
}

}  // namespace sluice
