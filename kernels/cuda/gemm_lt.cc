#include "kernels/cuda/gemm_lt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/gemm_lt_table.h"

namespace sluice::cuda {
namespace {

constexpr size_t kWords = sizeof(cublasLtMatmulAlgo_t) / sizeof(uint64_t);

absl::Status LtStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("cublasLt: ", what, ": status ", static_cast<int>(status)));
}

}  // namespace

// The few functions that are used, by their own types.
struct GemmLt::Library {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetVersion) get_version = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;

  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t desc = nullptr;

  // A product's three layouts.
  struct Layouts {
    explicit Layouts(const Library& library, const LtGemm& g) : library_(library) {
      const cudaDataType_t out = g.store == LtStore::kBf16 ? CUDA_R_16BF : CUDA_R_32F;
      // The library's matrices are column-major: W^T is (k, n), x^T is (k, rows), y^T is (n, rows).
      status = LtStatus(library.layout_create(&w, CUDA_R_16BF, g.k, g.n, g.k), "layout of W");
      status.Update(
          LtStatus(library.layout_create(&x, CUDA_R_16BF, g.k, g.rows, g.k), "layout of x"));
      status.Update(
          LtStatus(library.layout_create(&y, out, g.n, g.rows, g.y_stride), "layout of y"));
    }
    ~Layouts() {
      if (w != nullptr) library_.layout_destroy(w);
      if (x != nullptr) library_.layout_destroy(x);
      if (y != nullptr) library_.layout_destroy(y);
    }
    cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
    absl::Status status;

   private:
    const Library& library_;
  };
};

absl::StatusOr<std::unique_ptr<GemmLt>> GemmLt::Create(const std::string& gpu) {
  void* handle = nullptr;
  for (const char* name :
       {"libcublasLt.so.13", "libcublasLt.so", "/usr/local/cuda/lib64/libcublasLt.so.13"}) {
    handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) break;
  }
  if (handle == nullptr)
    return absl::UnavailableError(absl::StrCat(
        "cuda: cannot open libcublasLt.so.13: ", dlerror(),
        "; install cuBLAS of CUDA 13 (package libcublas-13-0 of NVIDIA's repository, or "
        "pip install nvidia-cublas and its lib directory in LD_LIBRARY_PATH)"));
  std::unique_ptr<GemmLt> lt(new GemmLt);
  lt->library_ = std::make_unique<Library>();
  Library& l = *lt->library_;
  bool complete = true;
  const auto bind = [&](const char* name, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(handle, name));
    complete = complete && *function != nullptr;
  };
  bind("cublasLtCreate", &l.create);
  bind("cublasLtDestroy", &l.destroy);
  bind("cublasLtGetVersion", &l.get_version);
  bind("cublasLtMatmul", &l.matmul);
  bind("cublasLtMatmulDescCreate", &l.desc_create);
  bind("cublasLtMatmulDescDestroy", &l.desc_destroy);
  bind("cublasLtMatmulDescSetAttribute", &l.desc_set);
  bind("cublasLtMatrixLayoutCreate", &l.layout_create);
  bind("cublasLtMatrixLayoutDestroy", &l.layout_destroy);
  bind("cublasLtMatmulPreferenceCreate", &l.preference_create);
  bind("cublasLtMatmulPreferenceDestroy", &l.preference_destroy);
  bind("cublasLtMatmulPreferenceSetAttribute", &l.preference_set);
  bind("cublasLtMatmulAlgoGetHeuristic", &l.heuristic);
  if (!complete)
    return absl::UnavailableError("cuda: libcublasLt.so.13 lacks a function that is needed");
  absl::Status status = LtStatus(l.create(&l.handle), "create");
  if (!status.ok()) return status;
  status = LtStatus(l.desc_create(&l.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
  if (!status.ok()) return status;
  const cublasOperation_t transpose = CUBLAS_OP_T;
  status = LtStatus(l.desc_set(l.desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose)),
                    "transpose");
  if (!status.ok()) return status;
  lt->version_ = l.get_version();
  lt->gpu_ = gpu;
  for (const LtTableEntry& entry : kLtTable) {
    if (gpu != entry.gpu || lt->version_ != entry.version) continue;
    lt->algorithms_[{entry.n, entry.k, static_cast<LtStore>(entry.store)}] =
        Algorithm(entry.algorithm, entry.algorithm + kWords);
  }
  return lt;
}

GemmLt::~GemmLt() {
  if (library_ == nullptr) return;
  if (library_->desc != nullptr) library_->desc_destroy(library_->desc);
  if (library_->handle != nullptr) library_->destroy(library_->handle);
}

absl::StatusOr<std::vector<GemmLt::Algorithm>> GemmLt::Candidates(const LtGemm& gemm, int count) {
  const Library& l = *library_;
  Library::Layouts layouts(l, gemm);
  if (!layouts.status.ok()) return layouts.status;
  cublasLtMatmulPreference_t preference = nullptr;
  absl::Status status = LtStatus(l.preference_create(&preference), "preference");
  if (!status.ok()) return status;
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    status.Update(
        LtStatus(l.preference_set(preference, attribute, &value, sizeof(value)), "preference"));
  };
  // No split of K, and rows that begin anywhere on 128 bytes.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{0});
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attribute, uint32_t{128});
  }
  std::vector<cublasLtMatmulHeuristicResult_t> found(count);
  int returned = 0;
  if (status.ok()) {
    status = LtStatus(l.heuristic(l.handle, l.desc, layouts.w, layouts.x, layouts.y, layouts.y,
                                  preference, count, found.data(), &returned),
                      "heuristic");
  }
  l.preference_destroy(preference);
  if (!status.ok()) return status;
  std::vector<Algorithm> algorithms;
  for (int i = 0; i < returned; ++i) {
    if (found[i].state != CUBLAS_STATUS_SUCCESS) continue;
    Algorithm words(kWords);
    std::memcpy(words.data(), &found[i].algo, sizeof(found[i].algo));
    algorithms.push_back(std::move(words));
  }
  return algorithms;
}

absl::Status GemmLt::RunWith(const LtGemm& gemm, const Algorithm& algorithm, cudaStream_t stream) {
  const Library& l = *library_;
  Library::Layouts layouts(l, gemm);
  if (!layouts.status.ok()) return layouts.status;
  cublasLtMatmulAlgo_t algo;
  std::memcpy(&algo, algorithm.data(), sizeof(algo));
  const float one = 1.0f, beta = gemm.store == LtStore::kAdd ? 1.0f : 0.0f;
  return LtStatus(l.matmul(l.handle, l.desc, &one, gemm.w, layouts.w, gemm.x, layouts.x, &beta,
                           gemm.y, layouts.y, gemm.y, layouts.y, &algo, nullptr, 0, stream),
                  "matmul");
}

absl::Status GemmLt::Run(const LtGemm& gemm, cudaStream_t stream) {
  if (gemm.rows == 0) return absl::OkStatus();
  const Key key(gemm.n, gemm.k, gemm.store);
  auto it = algorithms_.find(key);
  if (it == algorithms_.end()) {
    LtGemm reference = gemm;
    reference.rows = kReferenceRows;
    absl::StatusOr<std::vector<Algorithm>> candidates = Candidates(reference, 8);
    if (!candidates.ok()) return candidates.status();
    if (candidates->empty()) {
      return absl::UnimplementedError(
          absl::StrCat("cublasLt: no algorithm for N ", gemm.n, ", K ", gemm.k));
    }
    it = algorithms_.emplace(key, std::move(candidates->front())).first;
  }
  return RunWith(gemm, it->second, stream);
}

}  // namespace sluice::cuda
