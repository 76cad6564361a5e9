#include "kernels/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/coverage.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/decode_graphs.h"
#include "kernels/cuda/fault_latch.h"
#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/sampler.h"
#include "kernels/cuda/state_copier.h"
#include "kernels/cuda/step_buffers.h"
#include "kernels/cuda/step_runner.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/ticket_queue.h"
#include "kernels/cuda/weight_uploader.h"
#include "kernels/cuda/workspace.h"

namespace sluice {
namespace {

using cuda::CheckedBytes;
using cuda::CudaStatus;
using cuda::Memory;
using cuda::MemoryKind;
using cuda::Stride;

constexpr int32_t kDefaultSlots = 1024;
constexpr int32_t kDefaultBatchTokens = 4096;
// Bytes that are left to the driver once weights are loaded, for graphs, kernels and local memory.
constexpr int64_t kReservedBytes = int64_t{1} << 30;
// What states that grow are gathered in, a piece at a time.
constexpr int64_t kPieceBytes = int64_t{1} << 22;
// Bytes of a sequence's biases and bans, for as many as a request may have, so that no step
// allocates.
constexpr int64_t kListBytes = 10 << 10;

class CudaBackend : public Backend {
 public:
  CudaBackend(const CudaOptions& options, const cuda::GpuInfo& gpu,
              std::unique_ptr<cuda::GemmLt> lt)
      : options_(options),
        lt_(std::move(lt)),
        steps_done_(&latch_, options.patience),
        reads_done_(&latch_, options.patience),
        writes_done_(&latch_, options.patience) {
    info_.device = absl::StrCat("cuda:", options.device, " (", gpu.name, ")");
    info_.kind = DeviceKind::kCuda;
    numerics_ = absl::StrCat("-sm", gpu.major, gpu.minor, cuda::HasHopperCode() ? "" : "-portable",
                             "-lt", lt_->version(), options.batch_invariant ? "" : "-batch");
    info_.steps_in_flight = 2;
    info_.weight_dtype = "bf16";
    info_.default_slots = kDefaultSlots;
    info_.default_batch_tokens = kDefaultBatchTokens;
  }
  ~CudaBackend() override;

  absl::Status Start() { return MakeStream(&stream_); }

  const BackendInfo& info() const override { return info_; }

  absl::StatusOr<Linear> LoadLinear(absl::Span<const MatrixView> blocks) override;
  absl::StatusOr<Linear> LoadGateUp(const MatrixView& gate, const MatrixView& up) override;
  absl::StatusOr<Vector> LoadVector(const MatrixView& values) override;
  absl::StatusOr<Activation> AllocateActivation(int64_t rows, int64_t cols) override;
  absl::Status AllocateStates(const ModelSpec& spec, int32_t slots, int32_t count_tables,
                              int32_t max_rows) override;
  int64_t SlotBytes(const ModelSpec& spec) const override { return MakeStateTable(spec).bytes(); }
  void SetAttentionRoom(const AttentionRoom& room) override { room_ = room; }
  int64_t PageBytes(const ModelSpec& spec) const override {
    return cuda::PageStore::PageBytes(MakeStateTable(spec));
  }
  absl::StatusOr<int64_t> StateBudget(const ModelSpec& spec, int32_t max_rows) const override;

  void BeginStep(const StepRows* rows) override;
  void Embed(const EmbedArgs& args) override { Record(args, args.table.data, args.x.data); }
  void NormProject(const NormProjectArgs& args) override {
    Record(args, args.weight.data, args.y.data);
  }
  void Mix(const MixArgs& args) override { Record(args, args.weights, args.out.data); }
  void ProjectAdd(const ProjectAddArgs& args) override {
    Record(args, args.weight.data, args.x.data);
  }
  void NormGateUp(const NormGateUpArgs& args) override {
    Record(args, args.weight.data, args.y.data);
  }
  void Logits(const LogitsArgs& args) override { Record(args, args.weight.data, args.x.data); }
  Ticket EndStep() override;

  Ticket ZeroState(int32_t slot) override;
  Ticket CopyState(int32_t from, int32_t to) override;
  Ticket ReadState(int32_t slot, void* host, int64_t tokens) override;
  Ticket WriteState(int32_t slot, const void* host, int64_t tokens) override;
  void DropState(int32_t slot) override;
  PageCounts pages() const override {
    const PageMap& map = work_.pages().map();
    return {map.total(), map.free(), map.shared()};
  }
  Ticket ResetCounts(int32_t counts, absl::Span<const int32_t> prompt) override;

  absl::Status Await(Ticket ticket) override;
  bool Done(Ticket ticket) override;

 private:
  template <class Args>
  void Record(const Args& args, const void* weight, const void* out) {
    ops_.push_back(args);
    for (const void* p : {weight, out}) {
      fingerprint_ = (fingerprint_ ^ reinterpret_cast<uintptr_t>(p)) * 0x100000001b3;
    }
  }

  // False after a fault.
  bool Enter() {
    return latch_.ok() && latch_.Check(cudaSetDevice(options_.device), "choosing the device");
  }
  absl::Status SetDevice() const {
    return CudaStatus(cudaSetDevice(options_.device), "choosing the device");
  }
  const void* Keep(Memory memory) {
    buffers_.push_back(std::move(memory));
    return buffers_.back().as<void>();
  }
  // Makes a ticket for work on the steps' stream.
  Ticket Push(std::function<void()> finish = nullptr) {
    steps_done_.Push(++ticket_, stream_.get(), std::move(finish));
    return ticket_;
  }
  cuda::TicketQueue* QueueOf(Ticket ticket) {
    if (reads_done_.Holds(ticket)) return &reads_done_;
    return writes_done_.Holds(ticket) ? &writes_done_ : &steps_done_;
  }

  void RunStep(const StepRows& rows);
  // These are for states that grow: pages for the step's rows; copies, a piece at a time.
  void TakePages(const StepRows& rows);
  absl::Status ReadPieces(int32_t slot, char* host, int64_t tokens);
  absl::Status WritePieces(int32_t slot, const char* host, int64_t tokens);
  bool grows() const { return work_.pages().map().in_use(); }
  void Prepare();
  void RunWithoutRows();
  void AwaitWrites(const StepRows& rows);
  void AwaitWrite(int32_t slot);

  const CudaOptions options_;
  std::unique_ptr<cuda::GemmLt> lt_;
  BackendInfo info_;
  std::string numerics_;  // what follows the cores' revisions in the numerics id
  cuda::FaultLatch latch_;
  cuda::Stream stream_;                             // of the steps
  std::unique_ptr<cuda::WeightUploader> uploader_;  // until the weights are loaded
  std::vector<Memory> buffers_;                     // weights and activations
  cuda::Workspace work_;
  std::unique_ptr<cuda::StateCopier> copier_ = std::make_unique<cuda::StateCopier>();
  Memory read_piece_, write_piece_;  // kPieceBytes each, where states grow
  AttentionRoom room_;
  cuda::StepBuffers steps_;
  std::optional<cuda::StepPacker> packer_;
  std::optional<cuda::StepRunner> runner_;
  std::optional<cuda::DecodeGraphs> graphs_;

  const StepRows* rows_ = nullptr;
  std::vector<cuda::Op> ops_;
  uint64_t fingerprint_ = 0;  // of ops_
  cuda::StepPlan plan_;

  Ticket ticket_ = 0;
  cuda::TicketQueue steps_done_, reads_done_, writes_done_;
  std::vector<Ticket> steps_in_flight_;  // oldest first
  struct Writing {
    int32_t slot;
    Ticket ticket;
  };
  std::vector<Writing> writing_;  // slots that a write has not reached yet
};

CudaBackend::~CudaBackend() {
  copier_->Stop();
  if (!latch_.ok()) {
    (void)copier_.release();  // the driver may still come back to it
    return;
  }
  (void)cudaSetDevice(options_.device);
  (void)cudaDeviceSynchronize();
}

// ---- Start-up ----

absl::StatusOr<Linear> CudaBackend::LoadLinear(absl::Span<const MatrixView> blocks) {
  if (absl::Status status = SetDevice(); !status.ok()) return status;
  if (uploader_ == nullptr) uploader_ = std::make_unique<cuda::WeightUploader>();
  absl::StatusOr<Memory> memory = uploader_->Stack(blocks);
  if (!memory.ok()) return memory.status();
  int64_t rows = 0;
  for (const MatrixView& block : blocks) rows += block.rows;
  return Linear{Keep(*std::move(memory)), DType::kBF16, rows, blocks[0].cols};
}

absl::StatusOr<Linear> CudaBackend::LoadGateUp(const MatrixView& gate, const MatrixView& up) {
  if (absl::Status status = SetDevice(); !status.ok()) return status;
  if (uploader_ == nullptr) uploader_ = std::make_unique<cuda::WeightUploader>();
  absl::StatusOr<Memory> memory = uploader_->GateUp(gate, up);
  if (!memory.ok()) return memory.status();
  return Linear{Keep(*std::move(memory)), DType::kBF16, 2 * gate.rows, gate.cols};
}

absl::StatusOr<Vector> CudaBackend::LoadVector(const MatrixView& values) {
  if (absl::Status status = SetDevice(); !status.ok()) return status;
  if (uploader_ == nullptr) uploader_ = std::make_unique<cuda::WeightUploader>();
  absl::StatusOr<Memory> memory = uploader_->Values(values);
  if (!memory.ok()) return memory.status();
  return Vector{static_cast<const float*>(Keep(*std::move(memory))), values.rows * values.cols};
}

absl::StatusOr<Activation> CudaBackend::AllocateActivation(int64_t rows, int64_t cols) {
  if (absl::Status status = SetDevice(); !status.ok()) return status;
  // Only its use shows whether it holds fp32 or bf16.
  const int64_t bytes = CheckedBytes(rows, Stride(cols), 4);
  absl::StatusOr<Memory> memory = Memory::Allocate(
      MemoryKind::kDevice, bytes < 0 ? bytes : bytes + cuda::kSlack, "activations");
  if (!memory.ok()) return memory.status();
  return Activation{const_cast<void*>(Keep(*std::move(memory))), rows, cols};
}

absl::StatusOr<int64_t> CudaBackend::StateBudget(const ModelSpec& spec, int32_t max_rows) const {
  size_t free = 0, total = 0;
  absl::Status status = SetDevice();
  if (status.ok()) status = CudaStatus(cudaMemGetInfo(&free, &total), "asking for free memory");
  if (!status.ok()) return status;
  const int64_t fixed = cuda::Workspace::FixedBytes(spec, max_rows);
  const bool grow = PageBytes(spec) > 0;
  const int64_t most = std::max(MakeStateTable(spec).bytes(), grow ? kPieceBytes : 0);
  const int64_t taken =
      kReservedBytes + cuda::StateCopier::DeviceBytes(most) + (grow ? 2 * kPieceBytes : 0);
  if (fixed < 0 || static_cast<int64_t>(free) < fixed + taken) return 0;
  const int64_t slots =
      (static_cast<int64_t>(free) - fixed - taken) / cuda::Workspace::BytesPerSlot(spec);
  return slots * SlotBytes(spec);
}

absl::Status CudaBackend::AllocateStates(const ModelSpec& spec, int32_t slots, int32_t count_tables,
                                         int32_t max_rows) {
  if (absl::Status status = CheckCudaSpec(spec); !status.ok()) return status;
  if (PageBytes(spec) > 0 && room_.pages < PagesFor(std::max<int64_t>(room_.max_tokens, 1))) {
    return absl::InvalidArgumentError("a model whose states grow needs pages for one sequence");
  }
  if (absl::Status status = SetDevice(); !status.ok()) return status;
  uploader_.reset();
  absl::Status status = work_.Allocate(spec, slots, count_tables, max_rows, room_);
  if (status.ok())
    status = copier_->Allocate(std::max(work_.slot_bytes(), grows() ? kPieceBytes : 0));
  for (Memory* piece : {&read_piece_, &write_piece_}) {
    if (!status.ok() || !grows()) break;
    absl::StatusOr<Memory> memory =
        Memory::Allocate(MemoryKind::kDevice, kPieceBytes, "states on their way");
    status = memory.status();
    if (status.ok()) *piece = *std::move(memory);
  }
  if (!status.ok()) return status;
  packer_.emplace(static_cast<int>(work_.chunk_capacity()), cuda::LongestShortPrompt(),
                  grows() ? &work_.page_map() : nullptr);
  info_.prompt_grid = PromptGrid(DeviceKind::kCuda, spec);
  SLUICE_CHECK(info_.prompt_grid == cuda::kSpan);
  info_.numerics_id = absl::StrCat("cuda-", CoreRevisions(DeviceKind::kCuda, spec), numerics_);
  runner_.emplace(spec.vocab, SampledTokens(spec), &work_, lt_.get(), options_.batch_invariant,
                  &latch_, stream_.get());
  graphs_.emplace(&latch_, stream_.get());
  // Every row of a step may be scored, and every sequence sampled from one of them.
  const int32_t max_logits = max_rows + slots;
  const int64_t block =
      max_logits * static_cast<int64_t>(sizeof(cuda::LogitMeta) + 64) + slots * kListBytes;
  // Most sequences are far shorter than the longest may be; lists that do not fit grow the block.
  const int64_t lists = grows() ? (room_.pages + PagesFor(room_.max_tokens)) * 4 + slots * 64 : 0;
  return steps_.Allocate(block + lists + (int64_t{1} << 20), max_logits);
}

// ---- Tickets ----

absl::Status CudaBackend::Await(Ticket ticket) {
  SLUICE_CHECK(ticket <= ticket_);
  if (Enter()) QueueOf(ticket)->Await(ticket);
  if (!latch_.ok()) copier_->Stop();
  return latch_.status();
}

bool CudaBackend::Done(Ticket ticket) {
  SLUICE_CHECK(ticket <= ticket_);
  const bool done = !Enter() || QueueOf(ticket)->Poll(ticket);
  if (!latch_.ok()) copier_->Stop();
  return done;
}

// ---- States ----

// Work on a slot that a write is on its way to comes after it.
void CudaBackend::AwaitWrite(int32_t slot) {
  for (const Writing& w : writing_) {
    if (w.slot != slot) continue;
    latch_.Check(cudaStreamWaitEvent(stream_.get(), writes_done_.event(w.ticket)),
                 "waiting for a state");
  }
}

void CudaBackend::AwaitWrites(const StepRows& rows) {
  if (writing_.empty()) return;
  for (int32_t i = 0; i < rows.num_decode; ++i) AwaitWrite(rows.decode[i].slot);
  for (int32_t i = 0; i < rows.num_prompts; ++i) AwaitWrite(rows.prompts[i].slot);
}

Ticket CudaBackend::ZeroState(int32_t slot) {
  if (Enter()) {
    AwaitWrite(slot);
    latch_.Check(cudaMemsetAsync(work_.Slot(slot), 0, work_.slot_bytes(), stream_.get()),
                 "zeroing a state");
    if (grows()) work_.page_map().Clear(slot);
  }
  return Push();
}

Ticket CudaBackend::CopyState(int32_t from, int32_t to) {
  if (Enter() && from != to) {
    AwaitWrite(from);
    AwaitWrite(to);
    latch_.Check(cudaMemcpyAsync(work_.Slot(to), work_.Slot(from), work_.slot_bytes(),
                                 cudaMemcpyDeviceToDevice, stream_.get()),
                 "copying a state");
    if (grows())
      latch_.Check(work_.pages().CopyPage(work_.page_map().Copy(from, to), stream_.get()));
  }
  return Push();
}

void CudaBackend::DropState(int32_t slot) {
  if (!grows() || !Enter()) return;
  AwaitWrite(slot);
  work_.page_map().Clear(slot);
}

absl::Status CudaBackend::ReadPieces(int32_t slot, char* host, int64_t tokens) {
  SLUICE_CHECK(work_.page_map().tokens(slot) >= tokens);
  cuda::PageStore::Piece piece = {slot, work_.Slot(slot), tokens, 0, 0, read_piece_.as<char>()};
  absl::Status status;
  for (const int64_t all = work_.table().BytesAt(tokens); piece.at < all && status.ok();
       piece.at += piece.count) {
    piece.count = std::min(kPieceBytes, all - piece.at);
    status.Update(work_.pages().Gather(piece, stream_.get()));
    status.Update(copier_->Read(piece.words, host + piece.at, piece.count, stream_.get()));
  }
  return status;
}

// Pieces follow each other on the copier's stream of writes.
absl::Status CudaBackend::WritePieces(int32_t slot, const char* host, int64_t tokens) {
  AwaitWrite(slot);
  work_.page_map().Clear(slot);
  work_.page_map().Extend(slot, tokens);
  cuda::PageStore::Piece piece = {slot, work_.Slot(slot), tokens, 0, 0, write_piece_.as<char>()};
  absl::Status status;
  for (const int64_t all = work_.table().BytesAt(tokens); piece.at < all && status.ok();
       piece.at += piece.count) {
    piece.count = std::min(kPieceBytes, all - piece.at);
    status.Update(copier_->Write(piece.words, host + piece.at, piece.count, stream_.get()));
    status.Update(work_.pages().Scatter(piece, copier_->writes()));
  }
  return status;
}

Ticket CudaBackend::ReadState(int32_t slot, void* host, int64_t tokens) {
  if (Enter()) {
    AwaitWrite(slot);
    latch_.Check(grows()
                     ? ReadPieces(slot, static_cast<char*>(host), tokens)
                     : copier_->Read(work_.Slot(slot), host, work_.slot_bytes(), stream_.get()));
  }
  reads_done_.Push(++ticket_, copier_->reads(), nullptr);
  return ticket_;
}

Ticket CudaBackend::WriteState(int32_t slot, const void* host, int64_t tokens) {
  ++ticket_;
  if (!Enter()) return ticket_;
  latch_.Check(grows() ? WritePieces(slot, static_cast<const char*>(host), tokens)
                       : copier_->Write(work_.Slot(slot), host, work_.slot_bytes(), stream_.get()));
  writes_done_.Push(ticket_, copier_->writes(), [this] { writing_.erase(writing_.begin()); });
  if (latch_.ok()) writing_.push_back({slot, ticket_});
  return ticket_;
}

Ticket CudaBackend::ResetCounts(int32_t counts, absl::Span<const int32_t> prompt) {
  if (!Enter()) return Push();
  const int32_t vocab = static_cast<int32_t>(work_.vocab());
  uint32_t* table = work_.Counts(counts);
  latch_.Check(cudaMemsetAsync(table, 0, vocab * sizeof(uint32_t), stream_.get()),
               "zeroing token counts");
  for (size_t i = 0; i < prompt.size() && latch_.ok(); i += cuda::kCountTokens) {
    const absl::Span<const int32_t> part = prompt.subspan(i, cuda::kCountTokens);
    latch_.Check(cudaMemcpyAsync(work_.count_tokens(), part.data(), part.size() * 4,
                                 cudaMemcpyHostToDevice, stream_.get()),
                 "copying a prompt");
    latch_.Check(cuda::LaunchMarkSeen(table, work_.count_tokens(), static_cast<int>(part.size()),
                                      vocab, stream_.get()),
                 "marking a prompt's tokens");
  }
  return Push();
}

// ---- A step ----

void CudaBackend::BeginStep(const StepRows* rows) {
  SLUICE_CHECK(rows_ == nullptr);
  rows_ = rows;
  ops_.clear();
  fingerprint_ = 0xcbf29ce484222325;
}

Ticket CudaBackend::EndStep() {
  const StepRows& rows = *std::exchange(rows_, nullptr);
  const bool empty = rows.num_decode == 0 && rows.num_prompts == 0;
  // A block of the ring is free again once its step has been awaited.
  const size_t most = empty ? 0 : cuda::StepBuffers::kRing - 1;
  while (latch_.ok() && steps_in_flight_.size() > most) (void)Await(steps_in_flight_.front());
  if (empty) {
    if (Enter()) Prepare();
    return Push();
  }
  if (Enter()) RunStep(rows);
  const LogitResult* results = steps_.results();
  const Ticket ticket = Push([this, to = rows.results, results, count = rows.num_logits] {
    std::copy_n(results, count, to);
    steps_in_flight_.erase(steps_in_flight_.begin());
  });
  if (latch_.ok()) steps_in_flight_.push_back(ticket);
  return ticket;
}

void CudaBackend::TakePages(const StepRows& rows) {
  if (!grows()) return;
  for (int32_t i = 0; i < rows.num_decode; ++i)
    work_.page_map().Extend(rows.decode[i].slot, rows.decode[i].position + 1);
  for (int32_t i = 0; i < rows.num_prompts; ++i) {
    const PromptSegment& prompt = rows.prompts[i];
    work_.page_map().Extend(prompt.slot, prompt.position + prompt.length);
  }
}

void CudaBackend::RunStep(const StepRows& rows) {
  AwaitWrites(rows);
  TakePages(rows);
  bool grown = false;
  if (!latch_.Check(steps_.Upload(rows, &*packer_, stream_.get(), &plan_, &grown))) return;
  SLUICE_CHECK(plan_.num_decode + plan_.num_prompt <= work_.max_rows());
  if (grown) graphs_->Clear();
  const bool graph = options_.graphs && plan_.num_prompt == 0 && plan_.num_decode > 0 &&
                     plan_.num_logits <= plan_.num_decode && plan_.num_logits <= work_.logit_tile();
  if (!graph) {
    runner_->Run(ops_, {steps_.meta(), &plan_, plan_.num_decode, plan_.num_logits, &rows});
    return;
  }
  // In a graph any of its rows may want logits.
  graphs_->Launch(fingerprint_, plan_.num_decode, work_.max_rows(), [&](int32_t bucket) {
    runner_->Run(ops_,
                 {steps_.meta(), &plan_, bucket, std::min(bucket, work_.logit_tile()), nullptr});
  });
  if (latch_.ok()) runner_->CopyLogits(rows, 0, plan_.num_logits);
}

// Whatever is made when first used is made now: graphs, kernels of prompts, the library's.
void CudaBackend::Prepare() {
  if (options_.graphs) {
    const cuda::StepPlan no_prompts;
    graphs_->CaptureAll(fingerprint_, work_.slots(), work_.max_rows(), [&](int32_t bucket) {
      runner_->Run(ops_, {steps_.meta(), &no_prompts, bucket, std::min(bucket, work_.logit_tile()),
                          nullptr});
    });
  }
  if (cuda::LongestShortPrompt() > 0) RunWithoutRows();
  // A whole span and a part of one, in the slot that is no sequence's.
  int32_t length = std::min(cuda::kSpan + 1, work_.max_rows());
  if (grows()) length = static_cast<int32_t>(std::min<int64_t>(length, room_.max_tokens));
  const std::vector<int32_t> tokens(length, 0);
  const PromptSegment prompt = {work_.slots(), 0, length, tokens.data(), 0};
  const SamplingConfig greedy = {.temperature = 0.0f};
  LogitRow logit;
  logit.row = length - 1;
  logit.slot = work_.slots();
  logit.sampling = &greedy;
  LogitResult result;
  StepRows rows;
  rows.prompts = &prompt;
  rows.num_prompts = 1;
  rows.logits = &logit;
  rows.num_logits = 1;
  rows.results = &result;
  RunStep(rows);
  if (grows()) work_.page_map().Clear(work_.slots());
  latch_.Check(cudaStreamSynchronize(stream_.get()), "the first step");
}

// Short prompts bring the products more rows than there are slots: runs their kernels for any
// number. None of the rows is a real one, so no slot is touched.
void CudaBackend::RunWithoutRows() {
  const StepRows none;
  bool grown = false;
  if (!latch_.Check(steps_.Upload(none, &*packer_, stream_.get(), &plan_, &grown))) return;
  for (int32_t rows = 8; rows <= std::min(work_.max_rows(), 512); rows *= 2) {
    runner_->Run(ops_, {steps_.meta(), &plan_, rows, std::min(rows, work_.logit_tile()), nullptr});
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions& options) {
  absl::StatusOr<cuda::GpuInfo> gpu = cuda::OpenGpu(options.device);
  if (!gpu.ok()) return gpu.status();
  absl::StatusOr<std::unique_ptr<cuda::GemmLt>> lt = cuda::GemmLt::Create(gpu->name);
  if (!lt.ok()) return lt.status();
  auto backend = std::make_unique<CudaBackend>(options, *gpu, *std::move(lt));
  if (absl::Status status = backend->Start(); !status.ok()) return status;
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace sluice
