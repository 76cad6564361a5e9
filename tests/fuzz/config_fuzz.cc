// config.json and generation_config.json on any bytes: a config that is accepted has sizes whose
// products are safe.

#include <cstddef>
#include <cstdint>

#include "engine/checkpoint/config.h"
#include "kernels/check.h"
#include "kernels/state_layout.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  auto config = sluice::ParseConfig(text, "f");
  if (!config.ok()) {
    SLUICE_CHECK(config.status().message().find('\n') == absl::string_view::npos);
    return 0;
  }
  const sluice::ModelShape& s = config->shape;
  SLUICE_CHECK(s.vocab > 0 && s.layers > 0 && s.hidden > 0 && s.heads > 0 && s.kv_heads > 0);
  SLUICE_CHECK(s.dk > 0 && s.dv > 0 && s.intermediate > 0 && s.conv_size >= 0);
  SLUICE_CHECK(s.heads % s.kv_heads == 0 && s.norm_eps > 0 && !(s.log_gate_min > 0));
  const int64_t parameters = sluice::CountParameters(s, config->head_norm_affine, !config->tied);
  SLUICE_CHECK(parameters > 0 && parameters <= 1'000'000'000'000);
  const int64_t state = sluice::MakeStateLayout(s).elements;
  SLUICE_CHECK(state > 0 && state <= int64_t{1} << 32);
  for (const int32_t id : config->eos_token_ids) SLUICE_CHECK(id >= 0 && id < s.vocab);
  (void)sluice::ApplyGenerationConfig(text, "f", &*config);
  for (const int32_t id : config->eos_token_ids) SLUICE_CHECK(id >= 0 && id < s.vocab);
  return 0;
}
