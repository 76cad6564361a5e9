// Prints the events of a Generate call as they come.
#ifndef SLUICE_CLIENT_CLI_GENERATE_PRINTER_H_
#define SLUICE_CLIENT_CLI_GENERATE_PRINTER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/cli/io.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {

// Prints one sequence as it streams; several are printed whole, in their order, each under a
// heading. JSON output has one line per event.
class GeneratePrinter {
 public:
  GeneratePrinter(int32_t sequences, bool json, const Io& io);

  void Print(const v1::GenerateResponse& event);
  // After the last event: ends the last line of text; with `stats`, one line on stderr.
  void End(bool stats);
  // A sequence ended with FINISH_REASON_ERROR.
  bool failed() const { return failed_; }

 private:
  struct Sequence {
    std::string text;  // not yet printed
    bool finished = false;
    v1::Finished end;
  };

  void PrintText(const v1::GenerateResponse& event);
  void Write(const std::string& text);
  void PrintFinishedSequences();
  std::string Stats() const;

  const Io& io_;
  const bool json_;
  std::vector<Sequence> sequences_;
  size_t printed_sequences_ = 0;
  bool line_is_open_ = false;  // the last character printed is no newline
  bool failed_ = false;
  v1::Started started_;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_GENERATE_PRINTER_H_
