// config.json and generation_config.json on any bytes: a config that is accepted has sizes whose
// products are safe.

#include <cstddef>
#include <cstdint>

#include "engine/checkpoint/config.h"
#include "engine/checkpoint/tensor_table.h"
#include "kernels/check.h"
#include "kernels/state_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  auto config = sluice::ParseConfig(text, "f");
  if (!config.ok()) {
    SLUICE_CHECK(config.status().message().find('\n') == absl::string_view::npos);
    return 0;
  }
  const sluice::ModelSpec& s = config->spec;
  SLUICE_CHECK(s.vocab > 0 && s.hidden > 0 && !s.layers.empty() && s.final_norm.eps > 0);
  SLUICE_CHECK(!config->identity.empty());
  sluice::ForEachMixer(s, [&](int64_t, const sluice::MixerSpec& m) {
    SLUICE_CHECK(m.q_heads > 0 && m.k_heads > 0 && m.v_heads > 0 && m.state_heads > 0);
    SLUICE_CHECK(m.heads() % m.q_heads == 0 && m.heads() % m.state_heads == 0);
    SLUICE_CHECK(m.state_heads % m.k_heads == 0 && m.state_heads % m.v_heads == 0);
    SLUICE_CHECK(m.key_width > 0 && m.dk > 0 && m.dv > 0 && m.conv.taps >= 0);
    SLUICE_CHECK(m.out_norm.eps > 0 && !(m.log_gate_min > 0));
    for (const sluice::Columns& c : {m.q, m.k, m.v, m.gate_in, m.out_gate}) {
      SLUICE_CHECK(c.offset >= 0 && c.width >= 0 && c.end() <= m.in_dim);
    }
  });
  sluice::ForEachMlp(
      s, [&](int64_t, const sluice::MlpSpec& mlp) { SLUICE_CHECK(mlp.intermediate > 0); });
  const int64_t parameters = sluice::CountParameters(*config);
  SLUICE_CHECK(parameters > 0 && parameters <= 1'000'000'000'000);
  const sluice::StateTable table = sluice::MakeStateTable(s);
  SLUICE_CHECK(table.bytes() >= 0 && table.bytes() <= int64_t{4} << 32);
  SLUICE_CHECK(table.BytesAt(1) > 0);  // a softmax model's state begins with nothing
  for (const int32_t id : config->eos_token_ids) SLUICE_CHECK(id >= 0 && id < s.vocab);
  (void)sluice::ApplyGenerationConfig(text, "f", &*config);
  for (const int32_t id : config->eos_token_ids) SLUICE_CHECK(id >= 0 && id < s.vocab);
  return 0;
}
