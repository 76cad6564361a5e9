#include "client/cli/session_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/open_file.h"

namespace sluice {
namespace {

constexpr size_t kPieceBytes = 256 << 10;

absl::Status FileError(const std::string& file) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<int64_t> SaveSession(const SessionClient& sessions,
                                    const v1::ExportSessionRequest& request,
                                    const CallOptions& call, const std::string& file) {
  const std::string partial = absl::StrCat(file, ".partial");
  std::ofstream out(partial, std::ios::binary | std::ios::trunc);
  if (!out) return FileError(partial);
  int64_t bytes = 0;
  absl::Status status = sessions.Export(request, call, [&](absl::string_view data) {
    bytes += static_cast<int64_t>(data.size());
    out.write(data.data(), static_cast<std::streamsize>(data.size()));
    return out ? absl::OkStatus() : FileError(partial);
  });
  out.close();
  if (status.ok() && !out) status = FileError(partial);
  if (status.ok() && std::rename(partial.c_str(), file.c_str()) != 0) status = FileError(file);
  if (!status.ok()) {
    std::remove(partial.c_str());
    return status;
  }
  return bytes;
}

absl::StatusOr<v1::Session> LoadSession(const SessionClient& sessions,
                                        const v1::SessionOptions& options, const CallOptions& call,
                                        std::istream& in) {
  return sessions.Import(options, call, [&in]() -> absl::StatusOr<std::string> {
    std::string piece(kPieceBytes, '\0');
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    if (in.bad()) return absl::InvalidArgumentError("the session's bytes cannot be read");
    piece.resize(static_cast<size_t>(in.gcount()));
    return piece;
  });
}

absl::StatusOr<v1::Session> LoadSession(const SessionClient& sessions,
                                        const v1::SessionOptions& options, const CallOptions& call,
                                        const std::string& file) {
  std::ifstream in;
  const absl::Status opened = OpenFile(file, &in);
  if (!opened.ok()) return opened;
  return LoadSession(sessions, options, call, in);
}

}  // namespace sluice
