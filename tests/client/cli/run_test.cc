// The commands as a user runs them, against a server that answers what the test wrote down.
#include "client/cli/run.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cli/cli_test.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using Health = grpc::health::v1::HealthCheckResponse;

using RunTest = CliTest;

TEST_F(RunTest, HelpListsEveryCommand) {
  EXPECT_EQ(Run({"--help"}), 0);
  for (const char* name : {"run", "generate", "chat", "session", "score", "tokenize", "detokenize",
                           "model", "inspect", "health", "ps", "bench"}) {
    EXPECT_THAT(out_, HasSubstr(std::string("\n  ") + name + " "));
  }
  EXPECT_THAT(out_, HasSubstr("Examples:"));
}

TEST_F(RunTest, EveryCommandHasHelpWithExamples) {
  for (const char* name : {"generate", "chat", "session", "score", "tokenize", "detokenize",
                           "model", "health", "ps", "bench"}) {
    EXPECT_EQ(Run({name, "-h"}), 0);
    EXPECT_THAT(out_, StartsWith(std::string("Usage: sluice ") + name + " "));
    EXPECT_THAT(out_, HasSubstr(std::string("Examples:\n  sluice ") + name));
    EXPECT_THAT(out_, HasSubstr("--address=HOST:PORT"));
    for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
      end = out_.find('\n', begin);
      EXPECT_LE(out_.substr(begin, end - begin).size(), 100u) << out_.substr(begin, end - begin);
    }
  }
}

TEST_F(RunTest, BadCommandLinesAreOneLineAndExitCode2) {
  EXPECT_EQ(Run({}), 2);
  EXPECT_EQ(err_, "sluice: which command? (see sluice --help)\n");
  EXPECT_EQ(Run({"dance"}), 2);
  EXPECT_EQ(err_, "sluice: unknown command 'dance' (see sluice --help)\n");
  EXPECT_EQ(Run({"genrate"}), 2);
  EXPECT_EQ(
      err_,
      "sluice: unknown command 'genrate'; did you mean sluice generate? (see sluice --help)\n");
  EXPECT_EQ(Run({"session", "frok"}), 2);
  EXPECT_THAT(err_, HasSubstr("unknown command 'frok'; did you mean session fork?"));
  EXPECT_EQ(Run({"generate", "--temprature=1", "x"}), 2);
  EXPECT_THAT(err_, HasSubstr("unknown flag --temprature; did you mean --temperature? (see"));
  EXPECT_EQ(Run({"--colour", "generate"}), 2);
  EXPECT_EQ(err_, "sluice: unknown flag --colour (see sluice --help)\n");
  EXPECT_EQ(Run({"generate", "--top-k=many"}), 2);
  EXPECT_EQ(err_,
            "sluice generate: --top-k=many: must be a whole number (see sluice generate --help)\n");
  EXPECT_EQ(Run({"model", "again"}), 2);
  EXPECT_EQ(Run({"generate", "--logprobs=1", "x"}), 2);
  EXPECT_EQ(Run({"generate", "--token-ids=1", "x"}), 2);
  EXPECT_EQ(Run({"bench", "--concurrency=0"}), 2);
  EXPECT_EQ(Run({"generate", "--stop=\\q", "x"}), 2);
}

TEST_F(RunTest, ADirectoryIsNoFile) {
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{
           {"score", "--file=/etc"},
           {"generate", "--prompt-file=/etc"},
           {"tokenize", "--file", "/etc"},
           {"bench", "--shapes=/etc"},
           {"bench", "--compare", "/etc", "/etc"},
           {"--tls-ca=/etc", "model"},
       }) {
    EXPECT_EQ(Run(args), 2) << args[0];
    EXPECT_THAT(err_, HasSubstr("/etc: Is a directory")) << args[0];
    EXPECT_EQ(std::count(err_.begin(), err_.end(), '\n'), 1) << err_;
  }
  EXPECT_EQ(Run({"session", "import", "/etc"}), 1);
  EXPECT_THAT(err_, HasSubstr("/etc: Is a directory"));
}

TEST_F(RunTest, VersionAndManual) {
  EXPECT_EQ(Run({"--version"}), 0);
  EXPECT_THAT(out_, StartsWith("sluice "));
  EXPECT_EQ(Run({"--help=man"}), 0);
  EXPECT_THAT(out_, HasSubstr(".SS \"sluice session fork "));
  EXPECT_THAT(out_, HasSubstr(".B \\-\\-max\\-new\\-tokens=N\n"));
  EXPECT_EQ(Run({"--help=bash"}), 0);
  EXPECT_THAT(out_, HasSubstr("'session fork') words='--etag= "));
  EXPECT_EQ(Run({"--help=zsh"}), 0);
  EXPECT_THAT(out_, StartsWith("#compdef sluice\n"));
}

TEST_F(RunTest, AMisspeltVariableIsAnError) {
  variables_ = {"SLUICE_ADRESS", "HOME"};
  EXPECT_EQ(Run({"model"}), 2);
  EXPECT_THAT(err_, HasSubstr("environment SLUICE_ADRESS: no flag has this name; did you mean "
                              "SLUICE_ADDRESS?"));
  variables_ = {"SLUICE_ADDRESS", "SLUICE_MODEL", "SLUICE_TLS_CLIENT_CA", "SLUICE_LISTEN"};
  EXPECT_EQ(Run({"model"}), 0) << err_;
}

TEST_F(RunTest, RunWantsADirectoryOrAPrompt) {
  EXPECT_EQ(Run({"run", "no/such/model", "Once"}), 2);
  EXPECT_THAT(err_, StartsWith("sluice run: no/such/model is no directory (see"));
}

TEST_F(RunTest, FlagsBeforeTheCommandCount) {
  EXPECT_EQ(Run({"--address=127.0.0.1:1", "model"}), 1);
  EXPECT_THAT(err_, HasSubstr("is sluiced running at 127.0.0.1:1? (UNAVAILABLE)\n"));
}

TEST_F(RunTest, GenerateStreamsText) {
  EXPECT_EQ(Run({"generate", "Once", "upon"}), 0);
  EXPECT_EQ(out_, "Hello there\n");
  EXPECT_THAT(err_, IsEmpty());
  EXPECT_EQ(server_.generate_request.text(), "Once upon");
  EXPECT_FLOAT_EQ(server_.generate_request.sampling().temperature(), 0.7f);
  EXPECT_FLOAT_EQ(server_.generate_request.sampling().top_p(), 0.9f);
}

TEST_F(RunTest, MaxTokensIsAnAlias) {
  EXPECT_EQ(Run({"generate", "--max-tokens=5", "x"}), 0);
  EXPECT_EQ(server_.generate_request.stop().max_new_tokens(), 5);
}

TEST_F(RunTest, GenerateReadsStandardInput) {
  in_ = "from a pipe";
  EXPECT_EQ(Run({"generate"}), 0);
  EXPECT_EQ(server_.generate_request.text(), "from a pipe");
}

TEST_F(RunTest, GenerateSetsEveryField) {
  EXPECT_EQ(Run({"generate",
                 "--json",
                 "--token-ids=5,6",
                 "--noadd-special-tokens",
                 "--model=tiny",
                 "--request-id=me",
                 "--n=2",
                 "--priority=-3",
                 "--bypass-prefix-cache",
                 "--session=story",
                 "--etag=e1",
                 "--no-commit",
                 "--durable",
                 "--on-conflict=cancel",
                 "--temperature=0",
                 "--top-k=40",
                 "--top-p=0.9",
                 "--min-p=0.1",
                 "--typical-p=0.8",
                 "--repetition-penalty=1.5",
                 "--presence-penalty=0.5",
                 "--frequency-penalty=-0.5",
                 "--logit-bias=7:-1.5",
                 "--logit-bias=8:2",
                 "--seed=11",
                 "--max-new-tokens=0",
                 "--min-new-tokens=0",
                 "--stop=\\n\\n",
                 "--stop=END",
                 "--stop-token-ids=3,4",
                 "--ignore-eos",
                 "--include-stop",
                 "--time-limit=1.5s",
                 "--echo",
                 "--output-token-ids",
                 "--logprobs=0",
                 "--prompt-logprobs",
                 "--notext"}),
            0);
  const v1::GenerateRequest& request = server_.generate_request;
  EXPECT_THAT(request.tokens().ids(), ElementsAre(5, 6));
  EXPECT_TRUE(request.has_add_special_tokens() && !request.add_special_tokens());
  EXPECT_EQ(request.model(), "tiny");
  EXPECT_EQ(request.request_id(), "me");
  EXPECT_EQ(request.n(), 2);
  EXPECT_EQ(request.priority(), -3);
  EXPECT_TRUE(request.bypass_prefix_cache());
  EXPECT_EQ(request.session_id(), "story");
  EXPECT_EQ(request.etag(), "e1");
  EXPECT_EQ(request.commit_policy(), v1::COMMIT_POLICY_NEVER);
  EXPECT_TRUE(request.durable());
  EXPECT_EQ(request.on_conflict(), v1::CONFLICT_POLICY_CANCEL_RUNNING);
  const v1::SamplingParams& sampling = request.sampling();
  EXPECT_TRUE(sampling.has_temperature());
  EXPECT_EQ(sampling.temperature(), 0);
  EXPECT_EQ(sampling.top_k(), 40);
  EXPECT_FLOAT_EQ(sampling.top_p(), 0.9f);
  EXPECT_FLOAT_EQ(sampling.min_p(), 0.1f);
  EXPECT_FLOAT_EQ(sampling.typical_p(), 0.8f);
  EXPECT_EQ(sampling.repetition_penalty(), 1.5f);
  EXPECT_EQ(sampling.presence_penalty(), 0.5f);
  EXPECT_EQ(sampling.frequency_penalty(), -0.5f);
  EXPECT_EQ(sampling.logit_bias().at(7), -1.5f);
  EXPECT_EQ(sampling.logit_bias().at(8), 2);
  EXPECT_EQ(sampling.seed(), 11u);
  EXPECT_TRUE(request.stop().has_max_new_tokens());
  EXPECT_TRUE(request.stop().has_min_new_tokens());
  EXPECT_THAT(request.stop().strings(), ElementsAre("\n\n", "END"));
  EXPECT_THAT(request.stop().token_ids(), ElementsAre(3, 4));
  EXPECT_TRUE(request.stop().ignore_eos() && request.stop().include_stop());
  EXPECT_EQ(request.stop().time_limit().seconds(), 1);
  EXPECT_EQ(request.stop().time_limit().nanos(), 500'000'000);
  EXPECT_TRUE(request.output().echo() && request.output().token_ids());
  EXPECT_TRUE(request.output().has_logprobs() && request.output().prompt_logprobs());
  EXPECT_TRUE(request.output().has_text() && !request.output().text());
}

TEST_F(RunTest, GenerateGoesOnInASession) {
  server_.sessions.Add("story");
  EXPECT_EQ(Run({"generate", "--session=story"}), 0);
  EXPECT_EQ(server_.generate_request.prompt_case(), v1::GenerateRequest::PROMPT_NOT_SET);
  EXPECT_EQ(Run({"generate", "--session=story", "--on-conflict=wait", "And", "then"}), 0);
  EXPECT_EQ(server_.generate_request.text(), "And then");
  EXPECT_EQ(server_.generate_request.on_conflict(), v1::CONFLICT_POLICY_WAIT);
  EXPECT_EQ(server_.generate_affinity, "story");
  EXPECT_EQ(Run({"generate", "--session=story", "--on-conflict=fight"}), 2);
  EXPECT_THAT(err_, HasSubstr("--on-conflict=fight: must be fail, wait or cancel"));
}

TEST_F(RunTest, GenerateJsonIsOneObjectALine) {
  EXPECT_EQ(Run({"generate", "--json", "x"}), 0);
  EXPECT_THAT(out_, StartsWith(R"({"sequence_number":"0","started":{"request_id":"r1",)"));
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 4);
  EXPECT_THAT(out_, HasSubstr(R"("finished":{"index":0,"reason":"FINISH_REASON_MAX_TOKENS")"));
}

TEST_F(RunTest, GenerateStatsGoToStderr) {
  EXPECT_EQ(Run({"generate", "--stats", "x"}), 0);
  EXPECT_EQ(out_, "Hello there\n");
  EXPECT_EQ(err_,
            "[4 prompt + 3 new tokens; first after 12.4 ms; then 2 tok/s; max_tokens; seed 42]\n");
}

TEST_F(RunTest, GeneratePrintsSequencesOneAfterTheOther) {
  server_.generate_events = {StartedEvent(1, 2),
                             DeltaEvent(0, "a1 "),
                             DeltaEvent(1, "b1 "),
                             DeltaEvent(1, "b2"),
                             FinishedEvent(1, v1::FINISH_REASON_EOS, 2),
                             DeltaEvent(0, "a2"),
                             FinishedEvent(0, v1::FINISH_REASON_MAX_TOKENS, 2),
                             DeltaEvent(7, "nobody asked")};
  EXPECT_EQ(Run({"generate", "--n=2", "x"}), 0);
  EXPECT_EQ(out_, "--- 1 of 2 (max_tokens) ---\na1 a2\n--- 2 of 2 (eos) ---\nb1 b2\n");
}

TEST_F(RunTest, GenerateFailsWithASequence) {
  v1::GenerateResponse broken = FinishedEvent(0, v1::FINISH_REASON_ERROR, 0);
  broken.mutable_finished()->mutable_status()->set_message("numeric fault");
  server_.generate_events = {StartedEvent(1, 2), broken};
  EXPECT_EQ(Run({"generate", "x"}), 1);
  EXPECT_EQ(err_, "sluice: sequence 0: numeric fault\n");
}

TEST_F(RunTest, GenerateKeepsWhatCameBeforeAnError) {
  server_.status = grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "too late");
  EXPECT_EQ(Run({"generate", "x"}), 1);
  EXPECT_EQ(out_, "Hello there\n");
  EXPECT_EQ(err_, "sluice: too late (DEADLINE_EXCEEDED)\n");
}

void AddScoreEvents(FakeServer* server) {
  server->tokenize_response.add_pieces("<s>");
  server->tokenize_response.add_pieces("Hi\n");
  server->score_events.resize(2);
  v1::TokenLogprob* row = server->score_events[0].mutable_logprobs()->add_logprobs();
  row->set_token_id(5);
  row->set_logprob(-1.5f);
  row->set_rank(2);
  row->add_alternatives()->set_token_id(9);
  v1::ScoreSummary* summary = server->score_events[1].mutable_summary();
  summary->set_tokens(2);
  summary->set_scored_tokens(1);
  summary->set_total_logprob(-1.5);
}

TEST_F(RunTest, ScorePrintsATable) {
  AddScoreEvents(&server_);
  EXPECT_EQ(Run({"score", "--top-logprobs=1", "Hi"}), 0);
  EXPECT_EQ(out_,
            "    position    token     logprob    rank  piece\n"
            "           1        5     -1.5000       2  Hi\\n  | 9:0.0000\n"
            "tokens       2, 1 scored\n"
            "logprob      -1.5000\n"
            "perplexity   4.4817\n");
  EXPECT_EQ(server_.score_request.text(), "Hi");
  EXPECT_EQ(server_.tokenize_request.text(), "Hi");
}

TEST_F(RunTest, ScoreCountsFromTheFirstTokenAfterAHistory) {
  AddScoreEvents(&server_);
  server_.sessions.Add("story").set_position(3);
  EXPECT_EQ(Run({"score", "--session=story", "Hi"}), 0);
  EXPECT_THAT(out_, HasSubstr("\n           0        5     -1.5000"));
  EXPECT_EQ(server_.score_request.session_id(), "story");
  EXPECT_EQ(Run({"score", "--session=nobody", "Hi"}), 1);
  EXPECT_EQ(err_, "sluice: there is no session 'nobody' (NOT_FOUND)\n");
}

TEST_F(RunTest, ScoreSummaryAndJson) {
  AddScoreEvents(&server_);
  EXPECT_EQ(Run({"score", "--summary", "--json", "--token-ids=1,5"}), 0);
  EXPECT_TRUE(server_.score_request.summary_only());
  EXPECT_THAT(server_.score_request.tokens().ids(), ElementsAre(1, 5));
  EXPECT_THAT(out_,
              HasSubstr(R"({"summary":{"tokens":"2","scored_tokens":"1","total_logprob":-1.5)"));
}

TEST_F(RunTest, TokenizePrintsIdsOrPieces) {
  server_.tokenize_response.add_token_ids(1);
  server_.tokenize_response.add_token_ids(5);
  server_.tokenize_response.add_pieces("<s>");
  server_.tokenize_response.add_pieces("a\tb");
  EXPECT_EQ(Run({"tokenize", "text"}), 0);
  EXPECT_EQ(out_, "1 5\n");
  EXPECT_FALSE(server_.tokenize_request.has_add_special_tokens());
  EXPECT_EQ(Run({"tokenize", "--pieces", "text"}), 0);
  EXPECT_EQ(out_, "1\t<s>\n5\ta\\tb\n");
  EXPECT_EQ(Run({"tokenize", "--json", "text"}), 0);
  EXPECT_EQ(out_, R"({"token_ids":[1,5],"pieces":["\u003cs\u003e","a\tb"]})"
                  "\n");
}

TEST_F(RunTest, DetokenizeReadsIds) {
  server_.detokenize_response.set_text("text");
  in_ = "1 5\n";
  EXPECT_EQ(Run({"detokenize"}), 0);
  EXPECT_EQ(out_, "text\n");
  EXPECT_THAT(server_.detokenize_request.token_ids(), ElementsAre(1, 5));
  EXPECT_EQ(Run({"detokenize", "one"}), 2);
  EXPECT_THAT(err_, HasSubstr("'one' is not a token id"));
}

TEST_F(RunTest, ModelPrintsLimits) {
  server_.model.mutable_limits()->set_max_prompt_tokens(1 << 20);
  EXPECT_EQ(Run({"model"}), 0);
  EXPECT_THAT(out_, HasSubstr("name               tiny\n"));
  EXPECT_THAT(out_, HasSubstr("max prompt tokens  1,048,576\n"));
}

TEST_F(RunTest, HealthIsTheExitCode) {
  EXPECT_EQ(Run({"health"}), 0);
  EXPECT_EQ(out_, "SERVING\n");
  server_.health = {Health::NOT_SERVING, Health::SERVING};
  EXPECT_EQ(Run({"health", "--json"}), 1);
  EXPECT_EQ(out_, "{\"status\":\"NOT_SERVING\"}\n");
  EXPECT_EQ(Run({"health", "--watch"}), 0);
  EXPECT_EQ(out_, "NOT_SERVING\nSERVING\n");
}

}  // namespace
}  // namespace sluice
