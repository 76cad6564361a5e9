#include "client/cli/inspect_text.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/text.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr size_t kNameWidth = 16;

const char* FeatureMapName(FeatureMap map) {
  switch (map) {
    case FeatureMap::kIdentity:
      return "none";
    case FeatureMap::kRelu:
      return "relu";
    case FeatureMap::kSigmoid:
      return "sigmoid";
    case FeatureMap::kLogSigmoid:
      return "logsigmoid";
    case FeatureMap::kSilu:
      return "silu";
    case FeatureMap::kSquaredRelu:
      return "sqrelu";
    case FeatureMap::kGeluTanh:
      return "gelu";
    case FeatureMap::kGelu:
      return "exact gelu";
    case FeatureMap::kTanh:
      return "tanh";
    case FeatureMap::kElu:
      return "elu";
    case FeatureMap::kEluPlusOne:
      return "elu + 1";
    case FeatureMap::kEluPlusTwo:
      return "elu + 2";
    case FeatureMap::kLeakyRelu:
      return "leaky relu";
    case FeatureMap::kSine:
      return "sine";
    case FeatureMap::kT2r:
      return "t2r";
    case FeatureMap::kProduct:
      return "elementwise product";
    case FeatureMap::kHedgehog:
      return "hedgehog";
    case FeatureMap::kDpfp:
      return "dpfp";
  }
  return "";
}

// Working states that fit beside the weights; 0 when not even those do.
int64_t Slots(const Inspection::Device& device, int64_t memory_bytes) {
  return std::max<int64_t>(memory_bytes - device.weight_bytes, 0) / device.slot_bytes;
}

class Lines {
 public:
  template <typename... Parts>
  void Add(absl::string_view name, const Parts&... parts) {
    std::string padded(name);
    padded.resize(std::max(name.size() + 1, kNameWidth), ' ');
    absl::StrAppend(&text_, padded, parts..., "\n");
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

// The first mixer that has heads, or where none has the first, and the first MLP's width.
const MixerSpec* FirstMixer(const ModelSpec& spec) {
  const MixerSpec* first = nullptr;
  ForEachMixer(spec, [&](int64_t, const MixerSpec& mixer) {
    const bool headless = first != nullptr && first->core == Core::kShortConv;
    if (first == nullptr || (headless && mixer.core != Core::kShortConv)) first = &mixer;
  });
  return first;
}

int64_t FirstIntermediate(const ModelSpec& spec) {
  int64_t first = 0;
  ForEachMlp(spec, [&](int64_t, const MlpSpec& mlp) {
    if (first == 0) first = mlp.intermediate;
  });
  return first;
}

bool HasGatedMlp(const ModelSpec& spec) {
  bool gated = false;
  ForEachMlp(spec, [&](int64_t, const MlpSpec& mlp) { gated = gated || mlp.gated; });
  return gated;
}

void AddConfig(const Inspection& model, Lines* lines) {
  const ModelConfig& config = *model.config;
  const ModelSpec& spec = config.spec;
  const int64_t intermediate = FirstIntermediate(spec);
  lines->Add("architecture", config.model_type(), ", ", spec.layers.size(), " layers, hidden ",
             WithCommas(spec.hidden),
             intermediate == 0 ? "" : absl::StrCat(", intermediate ", WithCommas(intermediate)),
             ", vocabulary ", WithCommas(spec.vocab),
             SampledTokens(spec) == spec.vocab
                 ? ""
                 : absl::StrCat(", of which ", WithCommas(SampledTokens(spec)), " are sampled"));
  const MixerSpec& m = *FirstMixer(spec);
  lines->Add("heads", m.heads(), " of dk ", m.dk, " and dv ", m.dv, ", ",
             m.k_heads == m.v_heads
                 ? absl::StrCat(m.k_heads, " kv heads")
                 : absl::StrCat(m.k_heads, m.k_heads == 1 ? " group" : " groups", " of keys"));
  std::vector<std::string> variant;
  variant.push_back(absl::StrCat("feature map ", FeatureMapName(m.q_map)));
  variant.push_back(m.conv.taps > 0 ? absl::StrCat("short convolution of ", m.conv.taps)
                                    : "no short convolution");
  variant.push_back(m.gated() ? "output gate" : "no output gate");
  variant.push_back(m.clamp_log_gate ? absl::StrCat("clamp_min ", m.log_gate_min) : "no clamp_min");
  if (!m.out_norm.affine) variant.push_back("head norm without weights");
  if (intermediate > 0 && !HasGatedMlp(spec)) {
    variant.push_back("MLPs without a gate");
  } else if (model.layout && intermediate > 0) {
    variant.push_back(model.layout->fused_gate_up ? "gate and up in one matrix"
                                                  : "gate and up apart");
  }
  if (!config.tied) {
    variant.push_back("own lm_head");
  } else if (model.layout) {
    variant.push_back(model.layout->has_lm_head ? "tied, with an lm_head in the file" : "tied");
  }
  lines->Add("variant", absl::StrJoin(variant, ", "));
  for (const std::string& note : config.notes) lines->Add("note", note);
  for (const Inspection::Layers& kind : model.layers) {
    lines->Add("layers", kind.count, " with ", kind.mixer, ": state ", WithCommas(kind.state_bytes),
               kind.token_bytes > 0
                   ? absl::StrCat(" bytes and ", WithCommas(kind.token_bytes), " a token, ")
                   : std::string(" bytes, "),
               WithCommas(kind.multiply_adds), " multiply-adds a token");
  }
}

void AddFiles(const Inspection::Files& files, Lines* lines) {
  std::vector<std::string> dtypes;
  for (const auto& [dtype, bytes] : files.bytes_by_dtype) {
    dtypes.push_back(absl::StrCat(WithCommas(bytes), " ", absl::AsciiStrToLower(dtype)));
  }
  lines->Add("parameters", WithCommas(files.parameters), " in ", WithCommas(files.tensors),
             " tensors");
  lines->Add("weight files", files.count, files.count == 1 ? " file" : " files", " of ",
             WithCommas(files.bytes), " bytes: ", absl::StrJoin(dtypes, ", "));
}

void AddTokens(const Inspection& model, Lines* lines) {
  if (model.tokenizer) {
    lines->Add("tokenizer", model.tokenizer->kind, ", ", WithCommas(model.tokenizer->pieces),
               " pieces");
  }
  if (!model.config) return;
  const std::vector<int32_t>& eos = model.config->eos_token_ids;
  std::optional<int32_t> bos = model.config->bos_token_id;
  if (!bos && model.tokenizer) bos = model.tokenizer->bos_id;
  lines->Add("tokens", "bos ", bos ? absl::StrCat(*bos) : "none", ", eos ",
             eos.empty() ? "none" : absl::StrJoin(eos, " "));
}

void AddDevice(const Inspection::Device& device, std::optional<int64_t> memory, Lines* lines) {
  std::string text = absl::StrCat(WithCommas(device.weight_bytes), " bytes of weights, ",
                                  WithCommas(device.slot_bytes), " a working state");
  if (!device.refusal.empty()) text = device.refusal;
  if (device.refusal.empty() && memory) {
    absl::StrAppend(&text, "; ", WithCommas(Slots(device, *memory)), " states in ",
                    WithCommas(*memory), " bytes");
  }
  lines->Add(absl::StrCat("on ", device.name), text);
}

Json ConfigJson(const ModelConfig& config) {
  const ModelSpec& spec = config.spec;
  const MixerSpec& m = *FirstMixer(spec);
  Json json = {{"model_type", config.model_type()},
               {"layers", spec.layers.size()},
               {"hidden_size", spec.hidden},
               {"intermediate_size", FirstIntermediate(spec)},
               {"vocab_size", spec.vocab},
               {"heads", m.heads()},
               {"kv_heads", m.k_heads},
               {"dk", m.dk},
               {"dv", m.dv},
               {"conv_size", m.conv.taps},
               {"feature_map", FeatureMapName(m.q_map)},
               {"output_gate", m.gated()},
               {"clamp_min", nullptr},
               {"head_norm_affine", m.out_norm.affine},
               {"tied", config.tied},
               {"bos_token_id", nullptr},
               {"eos_token_ids", config.eos_token_ids}};
  if (m.clamp_log_gate) json["clamp_min"] = m.log_gate_min;
  if (config.bos_token_id) json["bos_token_id"] = *config.bos_token_id;
  return json;
}

Json DeviceJson(const Inspection::Device& device, std::optional<int64_t> memory) {
  Json json = {{"device", device.name},
               {"served", device.refusal.empty()},
               {"refusal", device.refusal},
               {"weight_bytes", device.weight_bytes},
               {"slot_bytes", device.slot_bytes}};
  if (memory) json["slots"] = Slots(device, *memory);
  return json;
}

}  // namespace

std::string InspectionText(const Inspection& model, std::optional<int64_t> memory_bytes) {
  Lines lines;
  lines.Add("name", model.name);
  if (model.config) AddConfig(model, &lines);
  if (model.files) AddFiles(*model.files, &lines);
  AddTokens(model, &lines);
  if (model.token_bytes > 0) {
    lines.Add("state", WithCommas(model.state_bytes), " bytes a session and ",
              WithCommas(model.token_bytes), " a token, ", WithCommas(kGiB / model.token_bytes),
              " tokens in a GiB");
  } else if (model.state_bytes > 0) {
    lines.Add("state", WithCommas(model.state_bytes), " bytes a session, ",
              WithCommas(kGiB / model.state_bytes), " sessions in a GiB");
  }
  for (const Inspection::Device& device : model.devices) AddDevice(device, memory_bytes, &lines);
  if (model.values_checked) lines.Add("values", "all finite, fingerprint ", model.fingerprint);
  for (const std::string& refusal : model.refusals) lines.Add("refused", refusal);
  lines.Add("served", model.refusals.empty() ? "yes" : "no");
  return lines.Take();
}

std::string InspectionJson(const Inspection& model, std::optional<int64_t> memory_bytes) {
  Json json = {
      {"name", model.name}, {"served", model.refusals.empty()}, {"refusals", model.refusals}};
  if (model.config) json["config"] = ConfigJson(*model.config);
  for (const Inspection::Layers& kind : model.layers) {
    json["layers"].push_back({{"count", kind.count},
                              {"mixer", kind.mixer},
                              {"state_bytes", kind.state_bytes},
                              {"state_bytes_per_token", kind.token_bytes},
                              {"multiply_adds", kind.multiply_adds}});
  }
  if (model.files) {
    json["files"] = {{"count", model.files->count},
                     {"bytes", model.files->bytes},
                     {"tensors", model.files->tensors},
                     {"parameters", model.files->parameters},
                     {"bytes_by_dtype", model.files->bytes_by_dtype}};
  }
  if (model.layout) {
    json["layout"] = {{"fused_gate_up", model.layout->fused_gate_up},
                      {"has_lm_head", model.layout->has_lm_head}};
  }
  if (model.tokenizer) {
    json["tokenizer"] = {{"kind", model.tokenizer->kind}, {"pieces", model.tokenizer->pieces}};
  }
  if (model.state_bytes > 0) {
    json["state_bytes"] = model.state_bytes;
    json["sessions_per_gib"] = kGiB / model.state_bytes;
  }
  if (model.token_bytes > 0) json["state_bytes_per_token"] = model.token_bytes;
  for (const Inspection::Device& device : model.devices) {
    json["devices"].push_back(DeviceJson(device, memory_bytes));
  }
  if (memory_bytes) json["memory_bytes"] = *memory_bytes;
  if (model.values_checked) json["fingerprint"] = model.fingerprint;
  return json.dump(1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace sluice
