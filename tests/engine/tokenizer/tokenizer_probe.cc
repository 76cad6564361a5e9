// For hf_tokenizers_test.py: tokenizer_probe DIR VOCAB_SIZE [BOS [EOS]] loads a tokenizer and
// answers, a line of JSON for each line of JSON on stdin:
//   {"text": T, "special": BOOL}  ->  {"ids": [...], "decoded": Decode(ids)}
//   {"ids": [...]}                ->  {"decoded": Decode(ids), "streamed": the same token by token}
#include <cstdint>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "engine/tokenizer/stream_decoder.h"
#include "engine/tokenizer/tokenizer.h"

namespace {

using nlohmann::json;

json Answer(const sluice::Tokenizer& tokenizer, const json& query) {
  json answer;
  std::vector<int32_t> ids;
  if (query.contains("text")) {
    const std::string text = query["text"].get<std::string>();
    ids = tokenizer.Encode(text, {.add_special_tokens = query.value("special", false),
                                  .continuation = query.value("continuation", false)});
    answer["ids"] = ids;
  } else {
    ids = query["ids"].get<std::vector<int32_t>>();
    std::string streamed;
    sluice::StreamDecoder decoder(&tokenizer, /*continuation=*/false);
    for (const int32_t id : ids) decoder.Append(id, &streamed);
    decoder.Flush(&streamed);
    answer["streamed"] = streamed;
  }
  answer["decoded"] = tokenizer.Decode(ids);
  return answer;
}

}  // namespace

int main(int argc, char** argv) {
  sluice::TokenizerOptions options;
  int32_t id = 0;
  if (argc < 3 || !absl::SimpleAtoi(argv[2], &options.vocab_size)) {
    std::cerr << "usage: tokenizer_probe DIR VOCAB_SIZE [BOS [EOS]]\n";
    return 2;
  }
  if (argc > 3 && absl::SimpleAtoi(argv[3], &id)) options.bos_id = id;
  if (argc > 4 && absl::SimpleAtoi(argv[4], &id)) options.eos_id = id;
  const auto tokenizer = sluice::Tokenizer::Load(argv[1], options);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status().message() << "\n";
    return 2;
  }
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << Answer(**tokenizer, json::parse(line)).dump() << "\n";
  }
  return 0;
}
