// Golden checkpoints that stand for all: one of each kind of decay and of each shape of a state,
// those that grow among them. Tests of properties that hold for every model run on each of them.
#ifndef SLUICE_TESTS_FAKES_SPEC_MODELS_H_
#define SLUICE_TESTS_FAKES_SPEC_MODELS_H_

#include <string>

namespace sluice {

inline constexpr const char* kSpecModels[] = {
    "tests/goldens/retnet/gqa_relu",       // constant decay, position, states of grouped queries
    "tests/goldens/linear_attn/hedgehog",  // no decay, a normaliser
    "tests/goldens/hgrn2/conv",            // a decay per key, convolutions
    "tests/goldens/lightnet/conv_tied",    // the same with a log sum
    "tests/goldens/transnormer/odd",       // constant decay, other positions in each layer
    "tests/goldens/mamba2/groups",         // a decay per head, keys that heads share
    "tests/goldens/simple_gla/gqa_bias",   // the same with a gate, values that heads share
    "tests/goldens/delta_net/base",        // the delta rule without a decay
    "tests/goldens/gated_deltanet/gva",    // a decay per head, more heads of values than of keys
    "tests/goldens/kda/bounded",           // a decay per key
    "tests/goldens/transformer/window",    // softmax over a window, kept as a ring
    "tests/goldens/llama/rope_llama3",     // softmax over all tokens: a state that grows
    "tests/goldens/gla/hybrid_window",     // gated linear attention with both kinds of softmax
    "tests/goldens/qwen3_5/wrapped",       // gated softmax beside the delta rule
    "tests/goldens/lfm2/odd",              // gated short convolutions
    "tests/goldens/falcon_h1/norm",        // two mixers in a layer, with factors
    "tests/goldens/nemotron_h/dense",      // layers of a mixer or an MLP alone
    "tests/goldens/olmo_hybrid/base",      // norms behind mixers, and over all heads
};

// "retnet_gqa_relu"
inline std::string SpecModelName(const std::string& dir) {
  std::string name = dir.substr(dir.rfind('/', dir.rfind('/') - 1) + 1);
  for (char& c : name) c = c == '-' || c == '/' ? '_' : c;
  return name;
}

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_SPEC_MODELS_H_
