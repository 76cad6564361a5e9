#include "kernels/cpu/cpu_backend.h"

#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/conv_mixer.h"
#include "kernels/cpu/flush_denormals.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/linear_mixer.h"
#include "kernels/cpu/logits.h"
#include "kernels/cpu/mixer.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/softmax_mixer.h"
#include "kernels/cpu/state_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/token_counts.h"

namespace sluice {
namespace {

// Rows of a cheap op that make a task of their own.
constexpr int64_t kTaskRows = 16;

int64_t Stride(const Activation& x) { return PaddedCols(x.cols); }
float* Row(const Activation& x, int64_t row) {
  return static_cast<float*>(x.data) + row * Stride(x);
}

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(int threads)
      : pool_(threads),
        mixer_(&pool_, &states_),
        linear_mixer_(&pool_, &states_),
        softmax_mixer_(&pool_, &states_),
        conv_mixer_(&pool_, &states_),
        logits_(&pool_, &states_, &counts_) {
    info_.device =
        absl::StrCat("cpu (", SimdName(), ", ", threads, threads == 1 ? " thread)" : " threads)");
    info_.kind = DeviceKind::kCpu;
    info_.steps_in_flight = 1;
    // Larger steps are no faster here, and a decoding call waits for a whole step at each token.
    info_.default_batch_tokens = 256;
  }

  const BackendInfo& info() const override { return info_; }

  absl::StatusOr<Linear> LoadLinear(absl::Span<const MatrixView> blocks) override {
    return Keep(PackRows(blocks, &pool_));
  }

  absl::StatusOr<Linear> LoadGateUp(const MatrixView& gate, const MatrixView& up) override {
    return Keep(PackGateUp(gate, up, &pool_));
  }

  absl::StatusOr<Vector> LoadVector(const MatrixView& values) override {
    const int64_t size = values.rows * values.cols;
    absl::StatusOr<HostBuffer> buffer =
        HostBuffer::Allocate(PaddedCols(size), sizeof(float), "weights");
    if (!buffer.ok()) return buffer.status();
    ConvertToFloat(values.data, values.dtype, size, buffer->floats());
    buffers_.push_back(std::move(*buffer));
    return Vector{buffers_.back().floats(), size};
  }

  absl::StatusOr<Activation> AllocateActivation(int64_t rows, int64_t cols) override {
    absl::StatusOr<HostBuffer> buffer =
        HostBuffer::Allocate(rows, PaddedCols(cols) * sizeof(float), "activations");
    if (!buffer.ok()) return buffer.status();
    buffers_.push_back(std::move(*buffer));
    return Activation{buffers_.back().data(), rows, cols};
  }

  void SetAttentionRoom(const AttentionRoom& room) override { room_ = room; }
  absl::Status AllocateStates(const ModelSpec& spec, int32_t slots, int32_t count_tables,
                              int32_t max_rows) override;

  int64_t SlotBytes(const ModelSpec& spec) const override {
    return StatePool::SlotBytes(MakeStateTable(spec));
  }
  int64_t PageBytes(const ModelSpec& spec) const override {
    return TokenPages::PageBytes(MakeStateTable(spec));
  }
  absl::StatusOr<int64_t> StateBudget(const ModelSpec&, int32_t) const override {
    return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) / 4;
  }

  void BeginStep(const StepRows* rows) override;
  void Embed(const EmbedArgs& args) override;
  void NormProject(const NormProjectArgs& args) override;
  void Mix(const MixArgs& args) override {
    if (args.spec->core == Core::kSoftmax) {
      softmax_mixer_.Run(*rows_, args);
    } else if (args.spec->core == Core::kShortConv) {
      conv_mixer_.Run(*rows_, args);
    } else if (FusedGla(*args.spec)) {
      mixer_.Run(*rows_, args);
    } else {
      linear_mixer_.Run(*rows_, args);
    }
  }
  void ProjectAdd(const ProjectAddArgs& args) override;
  void NormGateUp(const NormGateUpArgs& args) override;
  void Logits(const LogitsArgs& args) override { logits_.Run(*rows_, args); }
  Ticket EndStep() override;

  Ticket ZeroState(int32_t slot) override {
    states_.Zero(slot);
    return ++ticket_;
  }
  Ticket CopyState(int32_t from, int32_t to) override {
    states_.Copy(from, to);
    return ++ticket_;
  }
  Ticket ReadState(int32_t slot, void* host, int64_t tokens) override {
    states_.Read(slot, host, tokens);
    return ++ticket_;
  }
  Ticket WriteState(int32_t slot, const void* host, int64_t tokens) override {
    states_.Write(slot, host, tokens);
    return ++ticket_;
  }
  void DropState(int32_t slot) override { states_.DropPages(slot); }
  PageCounts pages() const override {
    const TokenPages& pages = states_.pages();
    return {pages.total(), pages.free(), pages.shared()};
  }
  Ticket ResetCounts(int32_t counts, absl::Span<const int32_t> prompt) override {
    counts_.Reset(counts, prompt);
    return ++ticket_;
  }

  absl::Status Await(Ticket ticket) override {
    SLUICE_CHECK(ticket <= ticket_);
    return absl::OkStatus();
  }
  bool Done(Ticket ticket) override {
    SLUICE_CHECK(ticket <= ticket_);
    return true;
  }

 private:
  absl::StatusOr<Linear> Keep(absl::StatusOr<PackedMatrix> packed) {
    if (!packed.ok()) return packed.status();
    buffers_.push_back(std::move(packed->buffer));
    return packed->linear;
  }

  // normed_ = norm(x) for the rows of the step.
  void NormRows(const Activation& x, const StreamNorm& norm);
  // x += norm(normed_)
  void AddNormed(const StreamNorm& norm, const Activation& x);

  BackendInfo info_;
  ThreadPool pool_;
  StatePool states_;
  TokenCounts counts_;
  Mixer mixer_;               // gated linear attention
  LinearMixer linear_mixer_;  // others
  SoftmaxMixer softmax_mixer_;
  ConvMixer conv_mixer_;
  LogitsOp logits_;
  std::vector<HostBuffer> buffers_;  // weights and activations
  AttentionRoom room_;
  int32_t max_rows_ = 0;
  HostBuffer normed_;  // (max_rows, hidden)

  Ticket ticket_ = 0;
  const StepRows* rows_ = nullptr;  // of the step between BeginStep and EndStep
  int64_t num_rows_ = 0;
  std::vector<int32_t> tokens_;  // (max_rows)
  std::optional<FlushDenormals> flush_;
};

absl::Status CpuBackend::AllocateStates(const ModelSpec& spec, int32_t slots, int32_t count_tables,
                                        int32_t max_rows) {
  absl::Status status = CheckSpec(DeviceKind::kCpu, spec);
  if (!status.ok()) return status;
  if (PageBytes(spec) > 0 && room_.pages < PagesFor(std::max<int64_t>(room_.max_tokens, 1))) {
    return absl::InvalidArgumentError("a model whose states grow needs pages for one sequence");
  }
  absl::StatusOr<HostBuffer> normed =
      HostBuffer::Allocate(max_rows, PaddedCols(spec.hidden) * sizeof(float), "activations");
  if (!normed.ok()) return normed.status();
  normed_ = std::move(*normed);
  max_rows_ = max_rows;
  tokens_.resize(max_rows);
  status = states_.Allocate(MakeStateTable(spec), slots, room_);
  if (status.ok()) status = counts_.Allocate(count_tables, spec.vocab);
  if (status.ok()) status = mixer_.Allocate(spec, max_rows);
  if (status.ok()) status = linear_mixer_.Allocate(spec, max_rows);
  if (status.ok()) status = softmax_mixer_.Allocate(spec, max_rows, room_.max_tokens);
  if (status.ok()) status = logits_.Allocate(spec);
  info_.prompt_grid = PromptGrid(DeviceKind::kCpu, spec);
  info_.numerics_id = absl::StrCat("cpu-", CoreRevisions(DeviceKind::kCpu, spec), "-", SimdName());
  return status;
}

void CpuBackend::BeginStep(const StepRows* rows) {
  SLUICE_CHECK(rows_ == nullptr);
  pool_.Wake();
  flush_.emplace();
  rows_ = rows;
  num_rows_ = rows->num_decode;
  for (int32_t i = 0; i < rows->num_prompts; ++i) num_rows_ += rows->prompts[i].length;
  SLUICE_CHECK(num_rows_ <= max_rows_);
  int64_t row = 0;
  for (int32_t i = 0; i < rows->num_decode; ++i) {
    const DecodeRow& decode = rows->decode[i];
    tokens_[row++] = decode.token == kLastSampled ? states_.LastSampled(decode.slot) : decode.token;
    states_.MarkUsed(decode.slot, decode.position + 1);
  }
  for (int32_t i = 0; i < rows->num_prompts; ++i) {
    const PromptSegment& segment = rows->prompts[i];
    std::copy_n(segment.tokens, segment.length, tokens_.begin() + row);
    row += segment.length;
    states_.MarkUsed(segment.slot, segment.position + segment.length);
  }
}

Ticket CpuBackend::EndStep() {
  rows_ = nullptr;
  flush_.reset();
  return ++ticket_;
}

void CpuBackend::Embed(const EmbedArgs& args) {
  pool_.ParallelFor((num_rows_ + kTaskRows - 1) / kTaskRows, [&](int64_t task, int) {
    const int64_t end = std::min((task + 1) * kTaskRows, num_rows_);
    for (int64_t row = task * kTaskRows; row < end; ++row) {
      SLUICE_CHECK(tokens_[row] >= 0 && tokens_[row] < args.table.n);
      float* x = Row(args.x, row);
      UnpackRow(args.table, tokens_[row], x);
      if (args.scale == 1.0f) continue;
      for (int64_t i = 0; i < args.table.k; ++i) x[i] *= args.scale;
    }
  });
}

void CpuBackend::NormRows(const Activation& x, const StreamNorm& norm) {
  pool_.ParallelFor((num_rows_ + kTaskRows - 1) / kTaskRows, [&](int64_t task, int) {
    const int64_t end = std::min((task + 1) * kTaskRows, num_rows_);
    for (int64_t row = task * kTaskRows; row < end; ++row) {
      NormRow(norm.norm, Row(x, row), norm.weight.data, norm.bias.data, x.cols,
              normed_.floats() + row * Stride(x));
    }
  });
}

void CpuBackend::NormProject(const NormProjectArgs& args) {
  NormRows(args.x, args.norm);
  Gemm(&pool_, {.a = normed_.floats(),
                .lda = Stride(args.x),
                .m = num_rows_,
                .w = args.weight,
                .c = Row(args.y, 0),
                .ldc = Stride(args.y),
                .bias = args.bias.data,
                .scale = args.scale.data});
}

void CpuBackend::ProjectAdd(const ProjectAddArgs& args) {
  GemmArgs gemm = {.a = Row(args.a, 0),
                   .lda = Stride(args.a),
                   .m = num_rows_,
                   .w = args.weight,
                   .c = Row(args.x, 0),
                   .ldc = Stride(args.x),
                   .store = GemmStore::kAdd,
                   .bias = args.bias.data,
                   .factor = args.scale};
  if (args.out_norm == nullptr) return Gemm(&pool_, gemm);
  // Nothing reads the branch's own normed rows any more: another projection norms them again.
  gemm.c = normed_.floats();
  gemm.store = GemmStore::kSet;
  Gemm(&pool_, gemm);
  AddNormed(*args.out_norm, args.x);
}

void CpuBackend::AddNormed(const StreamNorm& norm, const Activation& x) {
  pool_.ParallelFor((num_rows_ + kTaskRows - 1) / kTaskRows, [&](int64_t task, int) {
    const int64_t end = std::min((task + 1) * kTaskRows, num_rows_);
    for (int64_t row = task * kTaskRows; row < end; ++row) {
      float* added = normed_.floats() + row * Stride(x);
      NormRow(norm.norm, added, norm.weight.data, norm.bias.data, x.cols, added);
      for (int64_t i = 0; i < x.cols; ++i) Row(x, row)[i] += added[i];
    }
  });
}

void CpuBackend::NormGateUp(const NormGateUpArgs& args) {
  NormRows(args.x, args.norm);
  Gemm(&pool_, {.a = normed_.floats(),
                .lda = Stride(args.x),
                .m = num_rows_,
                .w = args.weight,
                .c = Row(args.y, 0),
                .ldc = Stride(args.y),
                .store = args.gated ? GemmStore::kSwiGlu : GemmStore::kAct,
                .bias = args.gated ? args.gate_bias.data : args.up_bias.data,
                .up_bias = args.up_bias.data,
                .act = args.act,
                .factor = args.gate_scale});
}

}  // namespace

std::unique_ptr<Backend> MakeCpuBackend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options.threads > 0 ? options.threads : AvailableThreads());
}

}  // namespace sluice
