#include "client/bench/html_report.h"

#include "client/bench/report.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

using ::nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

json Report(const std::string& model, int requests) {
  BenchSetup setup;
  setup.model.set_name(model);
  LoadResult run;
  run.elapsed = absl::Seconds(1);
  run.requests.resize(requests);
  json report = ReportJson(setup, Summarize(run, {}));
  report["requests"] = RequestsJson(run);
  return report;
}

// The data between its element's tags, as the page's script would read it.
json DataOf(const std::string& page) {
  const std::string begin = "id=\"data\">";
  const size_t from = page.find(begin) + begin.size();
  return json::parse(page.substr(from, page.find("</script>", from) - from), nullptr, false);
}

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(HtmlReportTest, ThePageHasItsData) {
  const json data = DataOf(HtmlReport({Report("tiny", 3)}, nullptr));
  ASSERT_TRUE(data.is_object());
  ASSERT_EQ(data["reports"].size(), 1u);
  EXPECT_EQ(data["reports"][0]["model"], "tiny");
  EXPECT_EQ(data["reports"][0]["points"].size(), 3u);
  EXPECT_TRUE(data["comparison"].is_null());
}

TEST(HtmlReportTest, TextCannotBecomeMarkup) {
  const std::string evil = "</script><script>alert(1)</script><!--";
  const std::string page = HtmlReport({Report(evil, 1)}, nullptr);
  EXPECT_THAT(page, Not(HasSubstr("alert(1)</")));
  EXPECT_EQ(Count(page, "<script"), Count(std::string(ReportPage()), "<script"));
  EXPECT_EQ(DataOf(page)["reports"][0]["model"], evil);
}

TEST(HtmlReportTest, ManyRequestsAreThinned) {
  const json data = DataOf(HtmlReport({Report("tiny", 5000)}, nullptr));
  EXPECT_EQ(data["reports"][0]["points"].size(), 1667u);
}

TEST(HtmlReportTest, ThePageNeedsNoNetwork) {
  const std::string page(ReportPage());
  EXPECT_EQ(Count(page, "{\"reports\":[]}"), 1u);
  for (const char* reach : {"src=", "href=", "url(", "fetch(", "@import", "XMLHttpRequest"}) {
    EXPECT_THAT(page, Not(HasSubstr(reach)));
  }
  // The one address is the name of a namespace.
  EXPECT_EQ(Count(page, "http"), Count(page, "http://www.w3.org/2000/svg"));
  // The page shows everything from the data as text.
  EXPECT_THAT(page, Not(HasSubstr("innerHTML")));
}

}  // namespace
}  // namespace sluice
