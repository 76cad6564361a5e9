#include "client/cli/bench_flags.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/random.h"
#include "client/cli/text.h"

namespace sluice {
namespace {

constexpr int32_t kMaxConcurrency = 100000;
constexpr int32_t kMaxTurns = 10000;
constexpr int64_t kDefaultWarmup = 4;
constexpr absl::Duration kDefaultDuration = absl::Seconds(10);

FlagSetter ToLengths(Lengths* lengths) {
  return [lengths](absl::string_view text) {
    absl::StatusOr<Lengths> parsed = Lengths::Parse(text);
    if (parsed.ok()) *lengths = *parsed;
    return parsed.status();
  };
}

absl::Status SetArrivals(ArrivalOptions* arrivals, absl::string_view text) {
  if (text != "poisson" && text != "uniform") {
    return absl::InvalidArgumentError("must be poisson or uniform");
  }
  arrivals->process = text == "uniform" ? ArrivalProcess::kUniform : ArrivalProcess::kPoisson;
  return absl::OkStatus();
}

absl::Status SetWarmup(BenchOptions* options, absl::string_view text) {
  int64_t requests = 0;
  if (absl::SimpleAtoi(text, &requests) && requests >= 0) {
    options->warmup_requests = requests;
    return absl::OkStatus();
  }
  if (!absl::ParseDuration(text, &options->load.warmup) ||
      options->load.warmup < absl::ZeroDuration() ||
      options->load.warmup == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError("must be a number of requests or a duration, such as 5s");
  }
  options->warmup_requests = 0;
  return absl::OkStatus();
}

// --json prints, --json=FILE writes.
absl::Status SetJson(BenchOptions* options, absl::string_view text) {
  options->json = text == "true";
  options->json_file = text == "true" || text == "false" ? "" : std::string(text);
  return absl::OkStatus();
}

void AddLoadFlags(BenchOptions* options, FlagSet* flags) {
  LoadOptions* load = &options->load;
  flags->Section("Load");
  flags->Add({"concurrency", "N", "Makes a closed loop: N streams run at any time. Default: 1.",
              ToInt32([load](int32_t value) { load->concurrency = value; })});
  flags->Add({"rate", "R",
              "Makes an open loop: R requests come each second on average, whatever still runs.",
              ToDouble([load](double value) { load->arrivals.rate = value; })});
  flags->Add({"arrivals", "poisson|uniform",
              "Says how requests come: at random, or evenly. Default: poisson.",
              [load](absl::string_view text) { return SetArrivals(&load->arrivals, text); }});
  flags->Add({"burstiness", "B",
              "Shapes the gamma distribution of the gaps between requests: 1 is Poisson, less "
              "comes in bursts, more is even. Default: 1.",
              ToDouble([load](double value) { load->arrivals.burstiness = value; })});
  flags->Add({"requests", "N", "Ends the run after N requests.",
              ToInt64([load](int64_t value) { load->requests = value; })});
  flags->Add({"duration", "DURATION",
              "Ends the run after this long, and cuts off what still runs. Default: 10s, or none "
              "with --requests.",
              ToDuration([load](absl::Duration value) { load->duration = value; })});
  flags->Add({"warmup", "N|DURATION",
              "Leaves out of the figures: N requests before the load, or its first part, such as "
              "5s. Default: --concurrency, at most 4 requests.",
              [options](absl::string_view text) { return SetWarmup(options, text); }});
}

void AddRequestFlags(BenchOptions* options, FlagSet* flags) {
  flags->Section("Requests");
  flags->Add(
      {"shapes", "FILE",
       "Takes the requests from a file, in its order and over again. A line is {\"prompt_tokens\": "
       "220, \"output_tokens\": 85}, {\"prompt\": \"A text\", \"output_tokens\": 85}, or "
       "220,85.",
       ToString([options](std::string text) { options->shapes_file = std::move(text); })});
  flags->Add({"prompt-tokens", "LENGTH",
              "Sets the number of tokens of each prompt, which are drawn at random: N, "
              "uniform:MIN:MAX or lognormal:MEDIAN:SIGMA:MAX. Default: 128.",
              ToLengths(&options->prompt_tokens)});
  flags->Add({"prompt", "TEXT", "Sends this prompt instead of random tokens.",
              ToString([options](std::string text) { options->prompt = std::move(text); })});
  flags->Add({"max-new-tokens", "LENGTH",
              "Sets the number of tokens that each request generates, in the forms of "
              "--prompt-tokens; EOS does not end it. Default: 128.",
              ToLengths(&options->new_tokens), "max-tokens"});
  flags->Add({"turns", "K",
              "Makes each stream or arrival a session that K requests continue, one after the "
              "other. Sessions are removed at the end. Default: 1, no sessions.",
              ToInt32([options](int32_t value) { options->load.turns = value; })});
  flags->Add({"temperature", "X", "Sets the temperature of the sampling; 0 is greedy. Default: 1.",
              ToFloat([options](float value) { options->temperature = value; })});
  flags->Add({"seed", "N", "Seeds lengths, sampling and arrivals. Default: 1.",
              ToUint64([options](uint64_t value) { options->seed = value; })});
  flags->Add(
      {"prompt-seed", "N",
       "Draws the tokens of the prompts by this seed; a run of the same one finds them in the "
       "prefix cache. Default: a fresh one for each run, which the report names.",
       ToUint64([options](uint64_t value) { options->prompt_seed = value; })});
  flags->Add({"bypass-prefix-cache", "",
              "Computes every prompt whole, also where prompts have the same beginning.",
              ToBool([options](bool value) { options->bypass_prefix_cache = value; })});
  flags->Add({"model", "NAME", "Refuses to run on another model than this.",
              ToString([options](std::string text) { options->model = std::move(text); })});
}

void AddOutputFlags(BenchOptions* options, FlagSet* flags) {
  SloTargets* targets = &options->targets;
  flags->Section("Objectives (a request that misses one is not in the goodput)");
  flags->Add({"slo-ttft", "DURATION", "Sets the objective for the time to the first token.",
              ToDuration([targets](absl::Duration value) { targets->first_token = value; })});
  flags->Add(
      {"slo-itl", "DURATION",
       "Sets the objective for the time per token after the first ones, as the mean of a request.",
       ToDuration([targets](absl::Duration value) { targets->inter_token = value; })});
  flags->Add({"slo-e2e", "DURATION", "Sets the objective for the time of the whole request.",
              ToDuration([targets](absl::Duration value) { targets->whole = value; })});
  flags->Section("Output");
  flags->Add({"json", "",
              "Prints the report as one JSON object. --json=FILE writes it to a file, with each "
              "request, and still prints the table.",
              [options](absl::string_view text) { return SetJson(options, text); }});
  flags->Add({"html", "FILE", "Writes a page with plots, which needs no network.",
              ToString([options](std::string text) { options->html_file = std::move(text); })});
  flags->Add(
      {"compare", "",
       "Compares two files of --json=FILE, given as arguments, or two lists of such files with "
       "commas between them; no load is made.",
       ToBool([options](bool value) { options->compare = value; })});
}

std::string CheckOptions(const BenchOptions& options) {
  const LoadOptions& load = options.load;
  if (load.concurrency < 1 || load.concurrency > kMaxConcurrency) {
    return absl::StrCat("--concurrency is ", load.concurrency, ", must be in [1, ", kMaxConcurrency,
                        "]");
  }
  const double rate = load.arrivals.rate;
  if (rate < 0 || rate > 1e6) return "--rate must be above 0 and at most 1000000";
  const double burstiness = load.arrivals.burstiness;
  if (burstiness < 0.01 || burstiness > 1e6) return "--burstiness must be in [0.01, 1000000]";
  if (load.requests < 1) return "--requests must be at least 1";
  if (load.turns < 1 || load.turns > kMaxTurns) {
    return absl::StrCat("--turns is ", load.turns, ", must be in [1, ", kMaxTurns, "]");
  }
  if (options.prompt_tokens.min() < 1) return "--prompt-tokens must be at least 1";
  if (ValidUtf8Prefix(options.prompt) < options.prompt.size()) return "--prompt is not UTF-8";
  if (!options.shapes_file.empty() && !options.prompt.empty()) {
    return "requests come from --shapes or from --prompt, not from both";
  }
  return "";
}

// The shape of one request: a line of the file, or what the flags say.
RequestShape ShapeOf(const BenchOptions& options, int64_t index, Random* random) {
  if (!options.shapes.empty()) {
    return options.shapes[static_cast<size_t>(index) % options.shapes.size()];
  }
  RequestShape shape;
  shape.prompt = options.prompt;
  shape.prompt_tokens = options.prompt_tokens.Draw(random);
  shape.new_tokens = static_cast<int32_t>(options.new_tokens.Draw(random));
  return shape;
}

}  // namespace

void AddBenchFlags(BenchOptions* options, FlagSet* flags) {
  AddLoadFlags(options, flags);
  AddRequestFlags(options, flags);
  AddOutputFlags(options, flags);
}

absl::Status CompleteBenchOptions(BenchOptions* options) {
  if (const std::string wrong = CheckOptions(*options); !wrong.empty()) {
    return absl::InvalidArgumentError(wrong);
  }
  if (!options->shapes_file.empty()) {
    absl::StatusOr<std::vector<RequestShape>> shapes = ReadShapes(options->shapes_file);
    if (!shapes.ok()) return shapes.status();
    options->shapes = *std::move(shapes);
  }
  LoadOptions* load = &options->load;
  const bool endless =
      load->requests == LoadOptions().requests && load->duration == absl::InfiniteDuration();
  if (endless) load->duration = kDefaultDuration;
  load->arrivals.seed = options->seed;
  if (!options->warmup_requests.has_value()) {
    options->warmup_requests = std::min<int64_t>(load->concurrency, kDefaultWarmup);
  }
  return absl::OkStatus();
}

v1::GenerateRequest MakeBenchRequest(const BenchOptions& options, int32_t vocab_size,
                                     int64_t index) {
  v1::GenerateRequest request;
  request.set_model(options.model);
  request.set_bypass_prefix_cache(options.bypass_prefix_cache);
  Random random(options.seed ^ (static_cast<uint64_t>(index) << 32));
  const RequestShape shape = ShapeOf(options, index, &random);
  if (!shape.prompt.empty()) {
    request.set_text(shape.prompt);
  } else {
    auto* ids = request.mutable_tokens()->mutable_ids();
    ids->Reserve(static_cast<int>(shape.prompt_tokens));
    Random tokens(options.prompt_seed.value_or(options.seed) ^
                  (static_cast<uint64_t>(index) << 32));
    for (int64_t i = 0; i < shape.prompt_tokens; ++i) {
      ids->Add(static_cast<int32_t>(tokens.Below(static_cast<uint64_t>(vocab_size))));
    }
  }
  request.mutable_sampling()->set_seed(random.Next());
  if (options.temperature.has_value()) {
    request.mutable_sampling()->set_temperature(*options.temperature);
  }
  request.mutable_stop()->set_max_new_tokens(shape.new_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  request.mutable_output()->set_token_ids(true);
  return request;
}

std::string DescribeLoad(const BenchOptions& options) {
  const LoadOptions& load = options.load;
  const std::string turns =
      load.turns > 1 ? absl::StrCat(", sessions of ", load.turns, " turns") : "";
  if (load.arrivals.rate <= 0) {
    return absl::StrCat("closed loop, ", load.concurrency,
                        load.concurrency == 1 ? " stream" : " streams", turns);
  }
  const std::string rate = absl::StrFormat("open loop, %g %s a second, ", load.arrivals.rate,
                                           load.turns > 1 ? "arrivals" : "requests");
  if (load.arrivals.process == ArrivalProcess::kUniform) {
    return absl::StrCat(rate, "evenly", turns);
  }
  if (load.arrivals.burstiness == 1) return absl::StrCat(rate, "Poisson", turns);
  return absl::StrFormat("%sgamma gaps of shape %g%s", rate, load.arrivals.burstiness, turns);
}

std::string DescribeRequests(const BenchOptions& options) {
  if (!options.shapes.empty()) {
    return absl::StrCat(WithCommas(static_cast<int64_t>(options.shapes.size())), " shapes of ",
                        options.shapes_file);
  }
  return absl::StrCat(options.prompt.empty()
                          ? absl::StrCat("prompts of ", options.prompt_tokens.Describe("tokens"))
                          : "one prompt for all",
                      ", ", options.new_tokens.Describe("new tokens"));
}

int64_t MaxNewTokens(const BenchOptions& options) {
  if (options.shapes.empty()) return options.new_tokens.max();
  return std::max_element(options.shapes.begin(), options.shapes.end(),
                          [](const RequestShape& a, const RequestShape& b) {
                            return a.new_tokens < b.new_tokens;
                          })
      ->new_tokens;
}

std::map<std::string, std::string> OptionTexts(const BenchOptions& options) {
  const LoadOptions& load = options.load;
  std::map<std::string, std::string> texts = {
      {"seed", absl::StrCat(options.seed)},
      {"prompt-seed", absl::StrCat(options.prompt_seed.value_or(options.seed))},
      {"warmup", load.warmup > absl::ZeroDuration() ? absl::FormatDuration(load.warmup)
                                                    : absl::StrCat(*options.warmup_requests)},
      {"load", DescribeLoad(options)},
      {"lengths", DescribeRequests(options)}};
  if (load.requests != LoadOptions().requests) texts["requests"] = absl::StrCat(load.requests);
  for (const auto& [name, value] :
       {std::pair<const char*, absl::Duration>{"duration", load.duration},
        {"timeout", load.timeout},
        {"slo-ttft", options.targets.first_token},
        {"slo-itl", options.targets.inter_token},
        {"slo-e2e", options.targets.whole}}) {
    if (value != absl::InfiniteDuration()) texts[name] = absl::FormatDuration(value);
  }
  if (load.turns > 1) texts["turns"] = absl::StrCat(load.turns);
  if (options.bypass_prefix_cache) texts["bypass-prefix-cache"] = "true";
  if (options.temperature.has_value()) texts["temperature"] = absl::StrCat(*options.temperature);
  return texts;
}

}  // namespace sluice
