// The plan of a step: which ops, in which order, and which norm each product leaves for the next.
#include "engine/model.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/gla.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/checkpoint/recording_backend.h"

namespace sluice {
namespace {

using testing::ElementsAre;

// Writes down the ops of a step. Norms are called by the size of their weight.
class PlanBackend : public RecordingBackend {
 public:
  void Embed(const EmbedArgs&) override { ops.push_back("embed"); }
  void NormProject(const NormProjectArgs& args) override {
    ops.push_back(absl::StrCat("project ", args.norm.weight.size, " to ", args.y.cols));
  }
  void Mix(const MixArgs& args) override {
    ops.push_back(absl::StrCat("mix ", args.in.cols, " to ", args.out.cols));
  }
  void ProjectAdd(const ProjectAddArgs& args) override {
    ops.push_back(absl::StrCat("add, then ", args.next_norm == nullptr
                                                 ? "none"
                                                 : absl::StrCat(args.next_norm->weight.size)));
  }
  void NormGateUp(const NormGateUpArgs& args) override {
    ops.push_back(absl::StrCat("gate and up ", args.norm.weight.size, " to ", args.y.cols));
  }
  void Logits(const LogitsArgs& args) override {
    ops.push_back(absl::StrCat("logits ", args.norm.weight.size));
  }

  std::vector<std::string> ops;
};

ModelSpec Spec(int64_t layers) {
  GlaShape shape;
  shape.vocab = 7;
  shape.layers = layers;
  shape.hidden = 8;
  shape.heads = shape.kv_heads = 1;
  shape.dk = 2;
  shape.dv = 4;
  shape.gate_rank = 1;
  shape.intermediate = 12;
  return shape.Spec();
}

// The ops of a step of a model whose norms have sizes 100, 101, ... in their order, the last one's
// 1000.
std::vector<std::string> PlanOf(const ModelSpec& spec) {
  PlanBackend backend;
  Weights weights = EmptyWeights(spec);
  int64_t size = 100;
  for (LayerWeights& layer : weights.layers) {
    for (BranchWeights& branch : layer.branches) branch.norm.size = size++;
  }
  weights.norm.size = 1000;
  auto model = Model::Create(&backend, spec, std::move(weights), 4);
  EXPECT_TRUE(model.ok()) << model.status();
  const StepRows none;
  (*model)->Step(&none);
  return backend.ops;
}

TEST(Model, BranchesFollowEachOther) {
  EXPECT_THAT(PlanOf(Spec(2)),
              ElementsAre("embed",                                              //
                          "project 100 to 13", "mix 13 to 4", "add, then 101",  //
                          "gate and up 101 to 12", "add, then 102",             //
                          "project 102 to 13", "mix 13 to 4", "add, then 103",  //
                          "gate and up 103 to 12", "add, then none", "logits 1000"));
}

TEST(Model, ALayerWithoutAnMlp) {
  ModelSpec spec = Spec(2);
  for (LayerSpec& layer : spec.layers) layer.branches.resize(1);
  EXPECT_THAT(PlanOf(spec),
              ElementsAre("embed",                                              //
                          "project 100 to 13", "mix 13 to 4", "add, then 101",  //
                          "project 101 to 13", "mix 13 to 4", "add, then none", "logits 1000"));
}

// Units beside each other read the residual stream before any adds to it.
TEST(Model, UnitsBesideEachOther) {
  ModelSpec spec = Spec(2);
  for (LayerSpec& layer : spec.layers) {
    layer.branches[0].units.push_back(layer.branches[1].units[0]);
    layer.branches.resize(1);
  }
  EXPECT_THAT(PlanOf(spec),
              ElementsAre("embed",                                                      //
                          "project 100 to 13", "gate and up 100 to 12", "mix 13 to 4",  //
                          "add, then none", "add, then 101",                            //
                          "project 101 to 13", "gate and up 101 to 12", "mix 13 to 4",  //
                          "add, then none", "add, then none", "logits 1000"));
}

// Layers of different widths share room for activations, each with its own columns.
TEST(Model, LayersMayDiffer) {
  ModelSpec spec = Spec(2);
  GlaShape wide;
  wide.layers = 1;
  wide.hidden = 8;
  wide.heads = 2;
  wide.kv_heads = 1;
  wide.dk = 3;
  wide.dv = 5;
  wide.gate_rank = 1;
  wide.output_gate = false;
  wide.intermediate = 20;
  spec.layers[1] = wide.Spec().layers[0];
  EXPECT_THAT(PlanOf(spec),
              ElementsAre("embed",                                               //
                          "project 100 to 13", "mix 13 to 4", "add, then 101",   //
                          "gate and up 101 to 12", "add, then 102",              //
                          "project 102 to 15", "mix 15 to 10", "add, then 103",  //
                          "gate and up 103 to 20", "add, then none", "logits 1000"));
}

}  // namespace
}  // namespace sluice
