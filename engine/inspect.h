// Says what a model directory holds, what it will cost and whether it can be served, by the loaders
// that the daemon starts with. It is the one header of engine/ that `sluice` includes.
#ifndef SLUICE_ENGINE_INSPECT_H_
#define SLUICE_ENGINE_INSPECT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/checkpoint/config.h"

namespace sluice {

struct Inspection {
  // The safetensors files. Headers alone are read.
  struct Files {
    int64_t count = 0;
    int64_t bytes = 0;    // on disk
    int64_t tensors = 0;  // the three below: of all tensors, whether or not they are the model's
    int64_t parameters = 0;
    std::map<std::string, int64_t> bytes_by_dtype;  // by the format's names: "BF16"
  };
  // The way in which the tensors spell what config.json describes.
  struct Layout {
    bool fused_gate_up = false;  // gate and up in one matrix, as before February 2025
    bool has_lm_head = false;    // in a tied model too, where it may differ from the embeddings
  };
  // Layers that are alike.
  struct Layers {
    int64_t count = 0;
    std::string mixer;          // "a decay per key, short convolutions"
    int64_t state_bytes = 0;    // of one layer of one session, without what grows
    int64_t token_bytes = 0;    // what it grows by with each token
    int64_t multiply_adds = 0;  // of one layer for one decoded token
  };
  struct TokenizerFile {
    std::string kind;  // "tokenizer.json, byte-level BPE"
    int32_t pieces = 0;
    std::optional<int32_t> bos_id;
    std::optional<int32_t> eos_id;
  };
  struct Device {
    std::string name;          // "cpu" or "cuda"
    std::string refusal;       // why its kernels cannot take this model; empty: they can
    int64_t weight_bytes = 0;  // as it holds them
    int64_t slot_bytes = 0;    // of a working state
  };

  std::string name;
  // Why the daemon would not serve it: every field of the config, the first dozen tensors, and what
  // the other loaders find first. Each is one line. Empty: it can be served.
  std::vector<std::string> refusals;
  std::optional<ModelConfig> config;  // each of these is there as far as its files are good
  std::vector<Layers> layers;         // of a config that is good, in the order of their first
  std::optional<Files> files;
  std::optional<Layout> layout;
  std::optional<TokenizerFile> tokenizer;
  std::vector<Device> devices;  // of a model whose config and tensors are good
  int64_t state_bytes = 0;      // of a session, without what grows; likewise
  int64_t token_bytes = 0;      // what it grows by with each token
  bool values_checked = false;  // every weight was read: none is a NaN or an infinity
  std::string fingerprint;      // then; as the daemon's
};

struct InspectOptions {
  // Reads all weights, as a start does.
  bool check_values = false;
  // The same values as the daemon's --tokenizer: a directory, "none", or empty for the model's own.
  std::string tokenizer = "";
};

// Any directory, or none, has an answer.
Inspection InspectModel(const std::string& dir, const InspectOptions& options);

}  // namespace sluice

#endif  // SLUICE_ENGINE_INSPECT_H_
