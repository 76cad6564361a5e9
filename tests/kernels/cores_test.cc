// Tests which mixers a device takes, and what it says of those that it does not.
#include "kernels/cores.h"

#include <string>
#include <utility>

#include "engine/checkpoint/families/gla.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

GlaShape Shape() {
  GlaShape shape;
  shape.vocab = 61;
  shape.layers = 2;
  shape.hidden = 120;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.dk = 16;
  shape.dv = 24;
  shape.intermediate = 90;
  return shape;
}

std::string Refusal(DeviceKind device, const ModelSpec& spec) {
  return std::string(CheckSpec(device, spec).message());
}

// The first layer's mixer.
MixerSpec& MixerOf(ModelSpec* spec) {
  return std::get<MixerSpec>(spec->layers[0].branches[0].units[0]);
}

TEST(Cores, GlaRunsOnBoth) {
  const ModelSpec spec = Shape().Spec();
  for (const DeviceKind device : {DeviceKind::kCpu, DeviceKind::kCuda}) {
    EXPECT_TRUE(CheckSpec(device, spec).ok());
  }
  EXPECT_EQ(PromptGrid(DeviceKind::kCpu, spec), 64);
  EXPECT_EQ(PromptGrid(DeviceKind::kCuda, spec), 512);
  EXPECT_EQ(CoreRevisions(DeviceKind::kCpu, spec), "1");
  EXPECT_EQ(CoreRevisions(DeviceKind::kCuda, spec), "3");
}

TEST(Cores, CudaRefusesSizesThatItsKernelsCannotTake) {
  GlaShape shape = Shape();
  shape.dk = 12;
  EXPECT_EQ(Refusal(DeviceKind::kCuda, shape.Spec()),
            "cuda: dk (keys of a head) is 12, must be a multiple of 8");
  EXPECT_TRUE(CheckSpec(DeviceKind::kCpu, shape.Spec()).ok());
  shape.dk = 16;
  shape.dv = 20;
  EXPECT_EQ(Refusal(DeviceKind::kCuda, shape.Spec()),
            "cuda: dv (values of a head) is 20, must be a multiple of 8");
  shape.dv = 16;
  shape.conv_size = 65;
  EXPECT_EQ(Refusal(DeviceKind::kCuda, shape.Spec()), "cuda: conv_size is 65, must be at most 64");
  EXPECT_EQ(Refusal(DeviceKind::kCpu, shape.Spec()),
            "cpu: short convolution: conv_size is 65, must be at most 64");
}

TEST(Cores, CudaTakesOtherLinearMixers) {
  ModelSpec spec = Shape().Spec();
  MixerSpec& mixer = MixerOf(&spec);
  mixer.decay = Decay::kConst;
  mixer.gate = GateMap::kNone;
  EXPECT_FALSE(FusedGla(mixer));
  EXPECT_EQ(CheckSpec(DeviceKind::kCuda, spec), absl::OkStatus());
  EXPECT_FALSE(PlainOnCuda(mixer));
  mixer.k.offset += 4;
  EXPECT_TRUE(PlainOnCuda(mixer));
  EXPECT_EQ(CheckSpec(DeviceKind::kCuda, spec), absl::OkStatus());
  mixer.key_width = mixer.dk = 516;
  EXPECT_EQ(Refusal(DeviceKind::kCuda, spec),
            "cuda: dk (keys of a head) is 516, must be a multiple of 8, or at most 512");
}

TEST(Cores, DeltaMixersOfEveryDecay) {
  ModelSpec spec = Shape().Spec();
  MixerSpec& mixer = MixerOf(&spec);
  mixer.core = Core::kDelta;
  EXPECT_EQ(Refusal(DeviceKind::kCpu, spec),
            "cpu: a mixer of another shape on the delta core: there are no kernels for it yet")
      << "four query heads share two keys";
  mixer.q_heads = 2;
  mixer.q.width = mixer.k.width;
  for (const auto& [decay, gate] :
       {std::pair(Decay::kNone, GateMap::kNone), std::pair(Decay::kHead, GateMap::kGatedDelta),
        std::pair(Decay::kKey, GateMap::kKda)}) {
    mixer.decay = decay;
    mixer.gate = gate;
    EXPECT_EQ(CheckSpec(DeviceKind::kCpu, spec), absl::OkStatus());
    EXPECT_EQ(CheckSpec(DeviceKind::kCuda, spec), absl::OkStatus());
  }
  EXPECT_EQ(CoreRevisions(DeviceKind::kCuda, spec), "3-delta1");  // the second layer is gla's
  const MixerSpec taken = mixer;
  mixer.key_width = mixer.dk = 520;
  EXPECT_EQ(Refusal(DeviceKind::kCuda, spec),
            "cuda: dk (keys of a head) is 520, must be at most 512");
  mixer = taken;
  mixer.q_norm = QkNorm::kSum;
  EXPECT_EQ(Refusal(DeviceKind::kCuda, spec),
            "cuda: a norm of q or k other than l2 and sum on the delta core");
  mixer = taken;
  mixer.k_map = FeatureMap::kDpfp;
  EXPECT_EQ(Refusal(DeviceKind::kCuda, spec),
            "cuda: a feature map of whole heads on the delta core");
  mixer = taken;
  mixer.rope = Rope::kHalves;
  EXPECT_EQ(Refusal(DeviceKind::kCuda, spec), "cuda: positions on the delta core");
}

TEST(Cores, CudaRefusesWhatItsProductsDoNotCompute) {
  const auto refusal = [](auto change) {
    ModelSpec spec = Shape().Spec();
    BranchSpec& branch = spec.layers[1].branches[1];
    change(&spec, &branch, &std::get<MlpSpec>(branch.units[0]));
    EXPECT_EQ(CheckSpec(DeviceKind::kCpu, spec), absl::OkStatus());
    return Refusal(DeviceKind::kCuda, spec);
  };
  EXPECT_EQ(refusal([](ModelSpec* spec, auto*, auto*) { spec->logit_scale = 0.5f; }),
            "cuda: a factor of the logits: there are no kernels for it yet");
  EXPECT_EQ(refusal([](auto*, BranchSpec* branch, auto*) { branch->norm.kind = NormKind::kNone; }),
            "cuda: a branch without a norm before it: there are no kernels for it yet");
  EXPECT_EQ(
      refusal([](auto*, BranchSpec* branch, auto*) { branch->out_norm.kind = NormKind::kRms; }),
      "cuda: a norm behind a branch: there are no kernels for it yet");
  EXPECT_EQ(refusal([](auto*, auto*, MlpSpec* mlp) { mlp->gated = false; }),
            "cuda: an MLP without a gate: there are no kernels for it yet");
  for (float MlpSpec::*factor : {&MlpSpec::gate_scale, &MlpSpec::out_scale}) {
    EXPECT_EQ(refusal([&](auto*, auto*, MlpSpec* mlp) { mlp->*factor = 0.5f; }),
              "cuda: factors of an MLP: there are no kernels for it yet");
  }
  EXPECT_EQ(refusal([](ModelSpec* spec, auto*, auto*) { MixerOf(spec).scaled_columns = true; }),
            "cuda: factors of a mixer's input projection: there are no kernels for it yet");
  EXPECT_EQ(refusal([](ModelSpec* spec, auto*, auto*) { MixerOf(spec).out_scale = 0.5f; }),
            "cuda: a factor of what a mixer gives: there are no kernels for it yet");
}

TEST(Cores, GatedShortConvolutions) {
  ModelSpec spec = Shape().Spec();
  MixerSpec conv;
  conv.core = Core::kShortConv;
  conv.decay = Decay::kNone;
  conv.gate = GateMap::kNone;
  conv.q_heads = conv.k_heads = conv.v_heads = conv.state_heads = 1;
  conv.key_width = conv.dk = conv.dv = 120;
  conv.q = {0, 120};
  conv.k = {120, 120};
  conv.v = {240, 120};
  conv.in_dim = 360;
  conv.conv = {.taps = 3, .silu = false};
  conv.out_norm.kind = NormKind::kNone;
  MixerOf(&spec) = conv;
  EXPECT_EQ(CheckSpec(DeviceKind::kCpu, spec), absl::OkStatus());
  EXPECT_EQ(CoreRevisions(DeviceKind::kCpu, spec), "1-convolution1");
  EXPECT_EQ(Refusal(DeviceKind::kCuda, spec),
            "cuda: convolution core: there are no kernels for it yet");
  MixerOf(&spec).k_heads = 2;
  EXPECT_EQ(Refusal(DeviceKind::kCpu, spec),
            "cpu: a mixer of another shape on the convolution core: there are no kernels for it "
            "yet");
}

TEST(Cores, SoftmaxLayersOnBoth) {
  ModelSpec spec = Shape().Spec();
  MixerSpec& mixer = MixerOf(&spec);
  mixer.core = Core::kSoftmax;
  mixer.decay = Decay::kNone;
  mixer.gate = GateMap::kNone;
  EXPECT_EQ(CheckSpec(DeviceKind::kCpu, spec), absl::OkStatus());
  EXPECT_EQ(CheckSpec(DeviceKind::kCuda, spec), absl::OkStatus());
  EXPECT_EQ(CoreRevisions(DeviceKind::kCuda, spec), "3-softmax1");
  mixer.dk = mixer.key_width = 520;
  EXPECT_EQ(CheckSpec(DeviceKind::kCpu, spec), absl::OkStatus());
  EXPECT_EQ(Refusal(DeviceKind::kCuda, spec), "cuda: head_dim is 520, must be at most 512");
}

TEST(Cores, ACoreWithoutKernelsSaysSo) {
  ModelSpec spec = Shape().Spec();
  MixerOf(&spec).core = Core::kSelective;
  EXPECT_EQ(Refusal(DeviceKind::kCpu, spec),
            "cpu: selective core: there are no kernels for it yet");
  EXPECT_EQ(Refusal(DeviceKind::kCuda, spec),
            "cuda: selective core: there are no kernels for it yet");
}

// A mixed model has the coarsest grid of its cores, and names them all.
TEST(Cores, NumericsNameEveryCore) {
  ModelSpec spec = Shape().Spec();
  MixerOf(&spec).core = Core::kDelta;
  EXPECT_EQ(CoreRevisions(DeviceKind::kCpu, spec), "1-delta1");
  EXPECT_EQ(PromptGrid(DeviceKind::kCpu, spec), 64);
}

}  // namespace
}  // namespace sluice
