#include "kernels/cores.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sluice {
namespace {

// A device's way to compute a core.
struct CoreRow {
  Core core;
  const char* name;
  struct {
    int revision;        // 0: there are no kernels
    int32_t grid;        // tokens
    const char* reason;  // why not
  } cpu, cuda;
};

constexpr char kNotYet[] = "there are no kernels for it yet";

constexpr CoreRow kRows[] = {
    {Core::kLinear, "linear", {1, 64, ""}, {3, 512, ""}},
    {Core::kDelta, "delta", {1, 64, ""}, {1, 512, ""}},
    {Core::kSoftmax, "softmax", {1, 64, ""}, {1, 512, ""}},
    {Core::kTwoPass, "two-pass", {0, 0, kNotYet}, {0, 0, kNotYet}},
    {Core::kSelective, "selective", {0, 0, kNotYet}, {0, 0, kNotYet}},
    {Core::kModal, "modal", {0, 0, kNotYet}, {0, 0, kNotYet}},
    {Core::kShortConv, "convolution", {1, 64, ""}, {0, 0, kNotYet}},
};

const CoreRow& RowOf(Core core) {
  for (const CoreRow& row : kRows) {
    if (row.core == core) return row;
  }
  return kRows[0];
}

const auto& On(DeviceKind device, const CoreRow& row) {
  return device == DeviceKind::kCpu ? row.cpu : row.cuda;
}

const char* DeviceName(DeviceKind device) { return device == DeviceKind::kCpu ? "cpu" : "cuda"; }

absl::Status Refuse(DeviceKind device, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(DeviceName(device), ": ", what));
}

absl::Status RefuseSize(absl::string_view what, int64_t value, absl::string_view rule) {
  return Refuse(DeviceKind::kCuda, absl::StrCat(what, " is ", value, ", must be ", rule));
}

constexpr int64_t kMaxConvTaps = 64;

// True for the stages before and behind the core of gated linear attention; both backends have
// them.
bool IsGla(const MixerSpec& s) {
  const bool front = s.decay == Decay::kKey && s.gate == GateMap::kGla && s.q_map == s.k_map &&
                     s.q_map <= FeatureMap::kGeluTanh && s.q_norm == QkNorm::kNone &&
                     s.k_norm == QkNorm::kNone && s.rope == Rope::kNone && s.conv.silu &&
                     !s.conv.bias && s.key_width == s.dk && s.v_map == FeatureMap::kIdentity;
  const bool heads =
      s.k_heads == s.state_heads && s.v_heads == s.state_heads && s.q_heads % s.state_heads == 0;
  const bool back = !s.normaliser && s.skip == Skip::kNone && s.norm_span == NormSpan::kHead &&
                    s.out_norm.kind == NormKind::kRms && !s.gate_before_norm &&
                    s.out_act == Act::kSilu && !s.low_rank_gate;
  return s.core == Core::kLinear && front && heads && back;
}

// True for the mixers that the drivers of other linear mixers take.
bool IsLinear(const MixerSpec& s) {
  const bool kept = s.rope != Rope::kTable && s.q_norm != QkNorm::kRms && s.k_norm != QkNorm::kRms;
  if (s.core != Core::kLinear || !kept) return false;
  switch (s.decay) {
    case Decay::kNone:
    case Decay::kConst:
      return s.gate == GateMap::kNone;
    case Decay::kHead:
      return s.gate == GateMap::kGla || (s.gate == GateMap::kMamba2 && s.v_heads == s.state_heads);
    case Decay::kKey:
      return (s.gate == GateMap::kHgrn2 || s.gate == GateMap::kLightNet) &&
             s.k_heads == s.state_heads;
  }
  return false;
}

// True for the mixers that the driver of delta mixers takes: q and k of one key head stand
// together, and each state head has values of its own.
bool IsDelta(const MixerSpec& s) {
  if (s.core != Core::kDelta || s.q_heads != s.k_heads || s.v_heads != s.state_heads ||
      s.state_heads % s.k_heads != 0 || s.normaliser || s.skip != Skip::kNone) {
    return false;
  }
  switch (s.decay) {
    case Decay::kNone:
      return s.gate == GateMap::kNone;
    case Decay::kConst:
      return false;
    case Decay::kHead:
      return s.gate == GateMap::kGatedDelta;
    case Decay::kKey:
      return s.gate == GateMap::kKda || s.gate == GateMap::kKdaBounded;
  }
  return false;
}

// What the CPU's softmax core takes.
bool IsSoftmax(const MixerSpec& s) {
  const bool heads = s.k_heads > 0 && s.k_heads == s.v_heads && s.k_heads == s.state_heads &&
                     s.q_heads % s.k_heads == 0;
  const bool front = s.decay == Decay::kNone && s.gate == GateMap::kNone && s.conv.taps == 0 &&
                     s.q_map == FeatureMap::kIdentity && s.k_map == FeatureMap::kIdentity &&
                     s.key_width == s.dk &&
                     (s.q_norm == QkNorm::kNone || s.q_norm == QkNorm::kRms) &&
                     (s.k_norm == QkNorm::kNone || s.k_norm == QkNorm::kRms);
  const bool rope = s.rope == Rope::kNone ||
                    (s.rope == Rope::kTable && s.rope_dims % 2 == 0 && s.rope_dims <= s.dk);
  return s.core == Core::kSoftmax && heads && front && rope && !s.normaliser &&
         s.skip == Skip::kNone && !s.low_rank_gate;
}

// A gated short convolution: q, k and v of one width, each of one head.
bool IsShortConv(const MixerSpec& s) {
  return s.core == Core::kShortConv && s.heads() == 1 && s.k_heads == 1 && s.v_heads == 1 &&
         s.q.width == s.dv && s.k.width == s.dv && s.v.width == s.dv && s.conv.taps > 0 &&
         s.decay == Decay::kNone && s.gate == GateMap::kNone && s.rope == Rope::kNone &&
         s.skip == Skip::kNone && s.out_norm.kind == NormKind::kNone && !s.gated() && !s.normaliser;
}

// What CUDA's generic linear core does not take.
absl::Status CheckCudaLinear(const MixerSpec& s) {
  constexpr int64_t kMostMapWidth = 1024;
  constexpr int64_t kMostPlainKeys = 512;  // whose state's columns a block holds
  const auto refuse = [](absl::string_view what) { return Refuse(DeviceKind::kCuda, what); };
  if (PlainOnCuda(s) && s.dk > kMostPlainKeys)
    return RefuseSize("dk (keys of a head)", s.dk, "a multiple of 8, or at most 512");
  if (s.decay == Decay::kKey &&
      (s.k_heads != s.state_heads || s.v_heads != s.state_heads || s.normaliser))
    return refuse("a decay of each key channel with shared keys or a normaliser");
  for (const QkNorm norm : {s.q_norm, s.k_norm}) {
    if (norm != QkNorm::kNone && norm != QkNorm::kSum)
      return refuse("a norm of q or k other than sum");
  }
  if (s.v_map != FeatureMap::kIdentity) return refuse("a map of the values");
  if (std::max(s.q_heads, s.k_heads) % std::min(s.q_heads, s.k_heads) != 0)
    return refuse("heads of q and of k of which neither number divides the other");
  if (MapsHeads(s.q_map, s.q_norm) || MapsHeads(s.k_map, s.k_norm)) {
    if (s.key_width > kMostMapWidth)
      return RefuseSize("keys of a head with a feature map", s.key_width, "at most 1024");
    if (s.conv.taps > 0 || s.rope != Rope::kNone || s.gate != GateMap::kNone)
      return refuse("a feature map of whole heads with a convolution, positions or a gate");
  }
  return absl::OkStatus();
}

// What CUDA's delta core does not take.
absl::Status CheckCudaDelta(const MixerSpec& s) {
  constexpr int64_t kMostKeys = 512;  // of a head, which registers hold
  const auto refuse = [](absl::string_view what) { return Refuse(DeviceKind::kCuda, what); };
  if (s.dk > kMostKeys) return RefuseSize("dk (keys of a head)", s.dk, "at most 512");
  for (const QkNorm norm : {s.q_norm, s.k_norm}) {
    if (norm != QkNorm::kNone && norm != QkNorm::kL2 && norm != QkNorm::kSumAbs)
      return refuse("a norm of q or k other than l2 and sum on the delta core");
  }
  if (MapsHeads(s.q_map, QkNorm::kNone) || MapsHeads(s.k_map, QkNorm::kNone))
    return refuse("a feature map of whole heads on the delta core");
  if (s.rope != Rope::kNone) return refuse("positions on the delta core");
  return absl::OkStatus();
}

// What CUDA's softmax core does not take.
absl::Status CheckCudaSoftmax(const MixerSpec& s) {
  constexpr int64_t kMostWidth = 512;  // of a head, which shared memory holds
  if (s.dk > kMostWidth) return RefuseSize("head_dim", s.dk, "at most 512");
  if (s.dv > kMostWidth) return RefuseSize("dv (values of a head)", s.dv, "at most 512");
  return absl::OkStatus();
}

absl::Status CheckMixer(DeviceKind device, const MixerSpec& s) {
  const CoreRow& row = RowOf(s.core);
  const auto& on = On(device, row);
  if (on.revision == 0) return Refuse(device, absl::StrCat(row.name, " core: ", on.reason));
  if (!IsGla(s) && !IsLinear(s) && !IsDelta(s) && !IsSoftmax(s) && !IsShortConv(s)) {
    return Refuse(device,
                  absl::StrCat("a mixer of another shape on the ", row.name, " core: ", kNotYet));
  }
  if (device == DeviceKind::kCpu) {
    if (s.conv.taps <= kMaxConvTaps) return absl::OkStatus();
    return Refuse(device, absl::StrCat("short convolution: conv_size is ", s.conv.taps,
                                       ", must be at most ", kMaxConvTaps));
  }
  if (IsGla(s) && s.dk % 8 != 0) return RefuseSize("dk (keys of a head)", s.dk, "a multiple of 8");
  if (IsGla(s) && s.dv % 8 != 0)
    return RefuseSize("dv (values of a head)", s.dv, "a multiple of 8");
  if (s.conv.taps > kMaxConvTaps) return RefuseSize("conv_size", s.conv.taps, "at most 64");
  if (s.core == Core::kDelta) {
    if (absl::Status status = CheckCudaDelta(s); !status.ok()) return status;
  } else if (s.core == Core::kSoftmax) {
    if (absl::Status status = CheckCudaSoftmax(s); !status.ok()) return status;
  } else if (!IsGla(s)) {
    if (absl::Status status = CheckCudaLinear(s); !status.ok()) return status;
  }
  if (s.q_heads > 65535) return RefuseSize("num_heads", s.q_heads, "at most 65535");
  return absl::OkStatus();
}

// Parts of a model outside of its cores that CUDA's products do not compute.
absl::Status CheckCudaPlan(const ModelSpec& spec) {
  const char* what = nullptr;
  if (spec.logit_scale != 1.0f) what = "a factor of the logits";
  for (const LayerSpec& layer : spec.layers) {
    for (const BranchSpec& branch : layer.branches) {
      if (branch.norm.kind == NormKind::kNone) what = "a branch without a norm before it";
      if (branch.out_norm.kind != NormKind::kNone) what = "a norm behind a branch";
    }
  }
  ForEachMixer(spec, [&](int64_t, const MixerSpec& s) {
    if (s.scaled_columns) what = "factors of a mixer's input projection";
    if (s.out_scale != 1.0f) what = "a factor of what a mixer gives";
    if (s.qk_norm_span != NormSpan::kHead) what = "a norm over all heads of q or k";
    if (s.out_act == Act::kSquaredRelu) what = "an output gate of squared ReLU";
  });
  ForEachMlp(spec, [&](int64_t, const MlpSpec& mlp) {
    if (!mlp.gated) what = "an MLP without a gate";
    if (mlp.gate_scale != 1.0f || mlp.out_scale != 1.0f) what = "factors of an MLP";
  });
  if (what == nullptr) return absl::OkStatus();
  return Refuse(DeviceKind::kCuda, absl::StrCat(what, ": ", kNotYet));
}

}  // namespace

bool FusedGla(const MixerSpec& spec) { return IsGla(spec); }

bool PlainOnCuda(const MixerSpec& s) {
  for (const Columns& columns : {s.q, s.k, s.v, s.out_gate}) {
    if (columns.offset % 8 != 0) return true;
  }
  return s.key_width % 8 != 0 || s.dk % 8 != 0 || s.dv % 8 != 0 ||
         (s.low_rank_gate && s.out_gate.width % 8 != 0) ||
         (s.core == Core::kDelta && s.decay == Decay::kKey &&
          (s.gate_in.offset % 8 != 0 || s.gate_in.width % 8 != 0));
}

absl::Status CheckSpec(DeviceKind device, const ModelSpec& spec) {
  absl::Status status;
  int64_t widest = std::max(spec.vocab, spec.hidden);
  ForEachMixer(spec, [&](int64_t, const MixerSpec& mixer) {
    status.Update(CheckMixer(device, mixer));
    widest = std::max(widest, mixer.in_dim);
  });
  ForEachMlp(spec,
             [&](int64_t, const MlpSpec& mlp) { widest = std::max(widest, mlp.intermediate); });
  if (device == DeviceKind::kCuda) status.Update(CheckCudaPlan(spec));
  constexpr int64_t kMaxDimension = int64_t{1} << 24;
  if (status.ok() && device == DeviceKind::kCuda && widest > kMaxDimension) {
    return RefuseSize("a dimension", widest, "at most 2^24");
  }
  return status;
}

int32_t PromptGrid(DeviceKind device, const ModelSpec& spec) {
  int32_t grid = 1;
  ForEachMixer(spec, [&](int64_t, const MixerSpec& mixer) {
    grid = std::max(grid, On(device, RowOf(mixer.core)).grid);  // each divides the larger ones
  });
  return grid;
}

std::string CoreRevisions(DeviceKind device, const ModelSpec& spec) {
  std::set<Core> cores;
  ForEachMixer(spec, [&](int64_t, const MixerSpec& mixer) { cores.insert(mixer.core); });
  std::string text;
  for (Core core : cores) {
    const CoreRow& row = RowOf(core);
    absl::StrAppend(&text, text.empty() ? "" : "-", core == Core::kLinear ? "" : row.name,
                    On(device, row).revision);
  }
  return text;
}

}  // namespace sluice
