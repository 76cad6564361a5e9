#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/flags/manual.h"
#include "server/flags/near_name.h"
#include "server/flags/size.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

TEST(NearName, CountsEdits) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("model", "model"), 0);
  EXPECT_EQ(EditDistance("modle", "model"), 1);  // neighbours are swapped
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
}

TEST(NearName, FindsWhatWasMeant) {
  const std::vector<std::string> names = {"model", "max_streams", "tls", "listen"};
  EXPECT_EQ(NearName("modle", names), "model");
  EXPECT_EQ(NearName("max_strems", names), "max_streams");
  EXPECT_EQ(NearName("tsl", names), "tls");
  EXPECT_EQ(NearName("test", names), "");  // two edits are too many for a name of three letters
  EXPECT_EQ(NearName("", names), "");
  EXPECT_EQ(NearName(std::string(1000, 'm'), names), "");
  EXPECT_EQ(DidYouMean("listn", names, "--"), "; did you mean --listen?");
  EXPECT_EQ(DidYouMean("nothing", names, "--"), "");
}

TEST(Size, TakesUnits) {
  EXPECT_EQ(ParseSize("4096"), 4096);
  EXPECT_EQ(ParseSize("-1"), -1);
  EXPECT_EQ(ParseSize("64K"), 65536);
  EXPECT_EQ(ParseSize("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(ParseSize("2gb"), int64_t{2} << 30);
  EXPECT_EQ(ParseSize("1.5T"), int64_t{3} << 39);
  for (const char* bad :
       {"", "K", "2X", "G2", "1e3K", "0x10K", "-2K", "0.3K", "9000000T", "1 K", "ib", "nanK"}) {
    EXPECT_FALSE(ParseSize(bad).has_value()) << bad;
  }
}

ProgramManual Example() {
  ProgramManual program;
  program.name = "prog";
  program.version = "1.0";
  program.summary = "does things";
  program.usage = "COMMAND";
  program.description = "Does-things.\n.dot first";
  program.flags = {{"Connection", "address", "HOST:PORT", "Calls it's address."},
                   {"", "help", "", "Prints this."}};
  FlagManual file = {"Input", "file", "FILE", "Reads [this] file."};
  file.completes = CompletionOf(file.value, &file.words);
  FlagManual mode = {"Input", "mode", "fast|slow", "Chooses."};
  mode.completes = CompletionOf(mode.value, &mode.words);
  program.commands = {
      {"go", "goes", "[FLAGS]", "Goes.", "  prog go", {file, mode, program.flags[0]}},
      {"set", "sets", "one|two", "Sets.", "  prog set one", {}},
      {"set one", "sets one", "", "Sets one.", "  prog set one", {mode}}};
  program.exit_codes = {{0, "It went well."}};
  return program;
}

TEST(Manual, TheManPageHidesRequestsOfTroff) {
  const std::string page = ManPage(Example());
  EXPECT_THAT(page, HasSubstr("Does\\-things.\n\\&.dot first"));
  EXPECT_THAT(page, HasSubstr(".B \\-\\-mode=fast|slow\n"));
  EXPECT_THAT(page, HasSubstr(".SS \"prog set one"));
  // A flag that every command has stands once.
  EXPECT_EQ(page.find("\\-address"), page.rfind("\\-address"));
}

TEST(Manual, CompletionsKnowCommandsFlagsAndValues) {
  const std::string bash = BashCompletion(Example());
  EXPECT_THAT(bash, HasSubstr("--mode) COMPREPLY=($(compgen -W 'fast slow'"));
  EXPECT_THAT(bash, HasSubstr("--file) COMPREPLY=($(compgen -f"));
  EXPECT_THAT(bash, HasSubstr("'set '*) words='one "));
  EXPECT_THAT(bash, HasSubstr("*) words='go set --address= --help'"));
  const std::string zsh = ZshCompletion(Example());
  EXPECT_THAT(zsh, HasSubstr("'--file=[Reads (this) file.]:FILE:_files'"));
  EXPECT_THAT(zsh, HasSubstr("Calls it'\\''s address."));
}

}  // namespace
}  // namespace sluice
