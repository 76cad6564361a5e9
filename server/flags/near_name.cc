#include "server/flags/near_name.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr int kEdits = 2;
constexpr size_t kShortName = 5;
// Longer texts are no misspelt name, and would take long to compare.
constexpr size_t kMaxText = 100;

int EditsFor(absl::string_view name) { return name.size() < kShortName ? 1 : kEdits; }

}  // namespace

int EditDistance(absl::string_view a, absl::string_view b) {
  // Three rows of the table: before the previous one, the previous one, and this one.
  std::vector<int> older(b.size() + 1);
  std::vector<int> old(b.size() + 1);
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) old[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({old[j] + 1, row[j - 1] + 1, old[j - 1] + (a[i - 1] != b[j - 1] ? 1 : 0)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], older[j - 2] + 1);
      }
    }
    older.swap(old);
    old.swap(row);
  }
  return old[b.size()];
}

std::string NearName(absl::string_view text, const std::vector<std::string>& names) {
  if (text.empty() || text.size() > kMaxText) return "";
  std::string nearest;
  int edits = kEdits + 1;
  for (const std::string& name : names) {
    const int distance = EditDistance(text, name);
    if (distance <= EditsFor(name) && distance < edits) {
      nearest = name;
      edits = distance;
    }
  }
  return nearest;
}

std::string DidYouMean(absl::string_view text, const std::vector<std::string>& names,
                       absl::string_view prefix) {
  const std::string name = NearName(text, names);
  return name.empty() ? "" : absl::StrCat("; did you mean ", prefix, name, "?");
}

}  // namespace sluice
