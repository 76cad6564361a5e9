#include "kernels/cpu/conv_mixer.h"

#include <algorithm>

#include "kernels/cpu/short_conv.h"

namespace sluice {
namespace {

// Rows of a segment that make a task of their own.
constexpr int64_t kTaskRows = 16;

ShortConvArgs ConvArgs(const MixArgs& args, StatePool* states, int32_t slot, int64_t row) {
  const MixerSpec& s = *args.spec;
  ShortConvArgs conv;
  conv.weight = args.weights->conv_v.data;
  if (args.weights->conv_v_bias.size > 0) conv.bias = args.weights->conv_v_bias.data;
  conv.silu = s.conv.silu;
  conv.taps = s.conv.taps;
  conv.channels = s.v.width;
  if (conv.taps > 1) conv.tail = states->Part(slot, args.layer, StatePartKind::kConvV);
  conv.tail_stride = s.v.width;
  conv.in_stride = PaddedCols(args.in.cols);
  conv.in = static_cast<const float*>(args.in.data) + row * conv.in_stride + s.v.offset;
  return conv;
}

// v becomes u = k v.
void MultiplyKey(const MixArgs& args, int64_t row) {
  const MixerSpec& s = *args.spec;
  float* in = static_cast<float*>(args.in.data) + row * PaddedCols(args.in.cols);
  const float* k = in + s.k.offset;
  float* v = in + s.v.offset;
  for (int64_t i = 0; i < s.v.width; ++i) v[i] *= k[i];
}

void Convolve(const MixArgs& args, const ShortConvArgs& conv, int64_t first, int64_t row) {
  const MixerSpec& s = *args.spec;
  const float* q = static_cast<const float*>(args.in.data) +
                   (first + row) * PaddedCols(args.in.cols) + s.q.offset;
  float* out = static_cast<float*>(args.out.data) + (first + row) * PaddedCols(args.out.cols);
  ShortConvRow(conv, row, out);
  for (int64_t i = 0; i < s.v.width; ++i) out[i] *= q[i];
}

}  // namespace

void ConvMixer::Run(const StepRows& rows, const MixArgs& args) {
  pool_->ParallelFor(rows.num_decode, [&](int64_t row, int) {
    MultiplyKey(args, row);
    const ShortConvArgs conv = ConvArgs(args, states_, rows.decode[row].slot, row);
    Convolve(args, conv, row, 0);
    ShortConvAdvance(conv, 1);
  });
  int64_t row = rows.num_decode;
  for (int32_t i = 0; i < rows.num_prompts; ++i) {
    RunRows(args, rows.prompts[i].slot, row, rows.prompts[i].length);
    row += rows.prompts[i].length;
  }
}

void ConvMixer::RunRows(const MixArgs& args, int32_t slot, int64_t row, int64_t length) {
  const auto for_rows = [&](const auto& run) {
    pool_->ParallelFor((length + kTaskRows - 1) / kTaskRows, [&](int64_t task, int) {
      const int64_t end = std::min((task + 1) * kTaskRows, length);
      for (int64_t t = task * kTaskRows; t < end; ++t) run(t);
    });
  };
  for_rows([&](int64_t t) { MultiplyKey(args, row + t); });
  const ShortConvArgs conv = ConvArgs(args, states_, slot, row);
  for_rows([&](int64_t t) { Convolve(args, conv, row, t); });
  ShortConvAdvance(conv, length);
}

}  // namespace sluice
