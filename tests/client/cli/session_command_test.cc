#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cli/cli_test.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class SessionCommandTest : public CliTest {
 protected:
  std::string file_ = ::testing::TempDir() + "/session_command_test.state";
  ~SessionCommandTest() override { std::remove(file_.c_str()); }
};

TEST_F(SessionCommandTest, HelpListsWhatThereIs) {
  EXPECT_EQ(Run({"session", "--help"}), 0);
  for (const char* name :
       {"create", "list", "show", "update", "fork", "export", "import", "delete"}) {
    EXPECT_THAT(out_, HasSubstr(std::string("\n  ") + name + " "));
    const std::string all = out_;
    EXPECT_EQ(Run({"session", name, "--help"}), 0);
    EXPECT_THAT(out_, StartsWith(std::string("Usage: sluice session ") + name + " "));
    EXPECT_THAT(out_, HasSubstr(std::string("Examples:\n  sluice session ") + name));
    out_ = all;
  }
}

TEST_F(SessionCommandTest, BadCommandLines) {
  EXPECT_EQ(Run({"session"}), 2);
  EXPECT_EQ(err_, "sluice session: which command? (see sluice session --help)\n");
  EXPECT_EQ(Run({"session", "dance"}), 2);
  EXPECT_EQ(err_, "sluice session: unknown command 'dance' (see sluice session --help)\n");
  EXPECT_EQ(Run({"session", "show"}), 2);
  EXPECT_EQ(Run({"session", "create", "a", "b"}), 2);
  EXPECT_EQ(Run({"session", "create", "--label=mood"}), 2);
  EXPECT_THAT(err_, HasSubstr("--label=mood: must be KEY=VALUE"));
  EXPECT_EQ(Run({"session", "update", "a"}), 2);
  EXPECT_EQ(Run({"session", "update", "a", "--label=a=b", "--clear-labels"}), 2);
  EXPECT_EQ(Run({"session", "export", "a"}), 2);
  EXPECT_EQ(Run({"session", "delete"}), 2);
  EXPECT_EQ(Run({"session", "delete", "a", "b", "--etag=e"}), 2);
}

TEST_F(SessionCommandTest, CreateAndShow) {
  EXPECT_EQ(Run({"session", "create", "story", "--ttl=90s", "--affinity=shelf", "--label",
                 "user=a=b", "--label=mood="}),
            0);
  EXPECT_THAT(out_, HasSubstr("id           story\n"));
  EXPECT_THAT(out_, HasSubstr("labels       mood= user=a=b\n"));
  EXPECT_EQ(server_.sessions.options.ttl().seconds(), 90);
  EXPECT_EQ(server_.sessions.affinity, "shelf");
  EXPECT_EQ(Run({"session", "show", "story", "--json"}), 0);
  EXPECT_THAT(out_, StartsWith(R"({"id":"story","affinity":"shelf")"));
  EXPECT_EQ(Run({"session", "show", "nobody"}), 1);
  EXPECT_EQ(err_, "sluice: there is no session 'nobody' (NOT_FOUND)\n");
}

TEST_F(SessionCommandTest, ListIsATable) {
  EXPECT_EQ(Run({"session", "list"}), 0);
  EXPECT_THAT(out_, IsEmpty());
  for (const char* id : {"a", "b", "c"}) server_.sessions.Add(id).set_position(1234);
  (*server_.sessions.all()["b"].mutable_labels())["mood"] = "\033[31mdark";
  EXPECT_EQ(Run({"session", "list"}), 0);
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 4);
  EXPECT_THAT(out_, HasSubstr("1,234"));
  EXPECT_THAT(out_, Not(HasSubstr("\033")));
  EXPECT_EQ(Run({"session", "list", "--label=mood=none", "--json"}), 0);
  EXPECT_THAT(out_, IsEmpty());
}

TEST_F(SessionCommandTest, UpdateNamesWhatItChanges) {
  server_.sessions.Add("story");
  EXPECT_EQ(Run({"session", "update", "story", "--clear-labels", "--etag=e1"}), 0);
  EXPECT_THAT(server_.sessions.update.update_mask().paths(), ElementsAre("labels"));
  EXPECT_EQ(server_.sessions.update.session().etag(), "e1");
  EXPECT_EQ(Run({"session", "update", "story", "--ttl=1h", "--label=a=b"}), 0);
  EXPECT_THAT(server_.sessions.update.update_mask().paths(), ElementsAre("labels", "ttl"));
  EXPECT_EQ(server_.sessions.update.ttl().seconds(), 3600);
}

TEST_F(SessionCommandTest, ForkAndDelete) {
  server_.sessions.Add("story").set_position(9);
  EXPECT_EQ(Run({"session", "fork", "story", "other"}), 0);
  EXPECT_EQ(server_.sessions.all()["other"].position(), 9);
  EXPECT_EQ(Run({"session", "fork", "story", "--etag=old"}), 1);
  EXPECT_THAT(err_, HasSubstr("(ABORTED)"));
  EXPECT_EQ(Run({"session", "delete", "story", "other"}), 0);
  EXPECT_THAT(server_.sessions.all(), IsEmpty());
  EXPECT_EQ(Run({"session", "delete", "story"}), 1);
}

TEST_F(SessionCommandTest, ExportAndImportAFile) {
  server_.sessions.Add("story");
  EXPECT_EQ(Run({"session", "export", "story", file_}), 0);
  EXPECT_EQ(out_, "story: 6 bytes in " + file_ + "\n");
  EXPECT_EQ(Run({"session", "import", file_, "again"}), 0);
  EXPECT_EQ(server_.sessions.imported, "SLUICE");
  EXPECT_EQ(server_.sessions.all().count("again"), 1u);
  EXPECT_EQ(Run({"session", "import", file_ + ".not"}), 1);
  EXPECT_THAT(err_, HasSubstr("No such file"));
}

TEST_F(SessionCommandTest, AFailedExportLeavesTheOldFile) {
  std::ofstream(file_) << "old";
  EXPECT_EQ(Run({"session", "export", "nobody", file_}), 1);
  std::ifstream in(file_);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "old");
  EXPECT_FALSE(std::ifstream(file_ + ".partial").is_open());
}

TEST_F(SessionCommandTest, BytesGoThroughPipes) {
  server_.sessions.Add("story");
  EXPECT_EQ(Run({"session", "export", "story", "-"}), 0);
  EXPECT_EQ(out_, "SLUICE");
  in_ = std::string("a\0b", 3);
  EXPECT_EQ(Run({"session", "import", "-"}), 0);
  EXPECT_EQ(server_.sessions.imported, in_);
}

}  // namespace
}  // namespace sluice
