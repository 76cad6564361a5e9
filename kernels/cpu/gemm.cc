#include "kernels/cpu/gemm.h"

#include <algorithm>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// Turns one line of 16 weights into kVecs vectors. Every conversion is exact.
struct LoadF32 {
  using T = float;
  static HWY_INLINE V At(const T* p) { return hn::LoadU(D(), p); }
};
struct LoadF16 {
  using T = hwy::float16_t;
  static HWY_INLINE V At(const T* p) {
    const hn::Rebind<hwy::float16_t, D> dh;
    return hn::PromoteTo(D(), hn::LoadU(dh, p));
  }
};
struct LoadBF16 {
  using T = uint16_t;
  static HWY_INLINE V At(const T* p) {
    const hn::Rebind<uint16_t, D> dh;
    const hn::Rebind<uint32_t, D> du;
    return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, p))));
  }
};

// Tiles: rows x panels of accumulators that fit the registers and hide the latency of a fused
// multiply-add. 32 registers of 16 lanes; 16 of 8 lanes; 32 of 4 lanes; or scalars.
constexpr int kMaxTileRows = kLanes == 16 ? 12 : 6;
constexpr int kMaxTilePanels = 4;
constexpr int TilePanels(int rows) {
  if (kLanes == 16) return rows <= 6 ? 4 : 2;
  if (kLanes == 8) return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
  return rows == 1 ? 4 : 1;
}

// out (rows, panels * 16) for `panels` panels that are k * 16 elements apart.
template <class Weights, int kRows, int kPanels>
HWY_NOINLINE void Tile(const float* HWY_RESTRICT a, int64_t lda, const void* weights, int64_t k,
                       float* HWY_RESTRICT out) {
  constexpr int kCols = kPanels * kVecs;
  const typename Weights::T* HWY_RESTRICT w = static_cast<const typename Weights::T*>(weights);
  V acc[kRows][kCols];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCols; ++c) acc[r][c] = Zero();
  }
  const int64_t panel_stride = k * kPanelRows;
  for (int64_t i = 0; i < k; ++i, w += kPanelRows) {
    V b[kCols];
    for (int p = 0; p < kPanels; ++p) {
      for (int v = 0; v < kVecs; ++v) {
        b[p * kVecs + v] = Weights::At(w + p * panel_stride + v * kLanes);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const V x = Splat(a[r * lda + i]);
      for (int c = 0; c < kCols; ++c) acc[r][c] = hn::MulAdd(x, b[c], acc[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCols; ++c) Store(acc[r][c], out + (r * kCols + c) * kLanes);
  }
}

using TileFunction = void (*)(const float*, int64_t, const void*, int64_t, float*);

template <class Weights, int kRows, int kPanels>
constexpr TileFunction PickTile(int rows, int panels) {
  if (rows == kRows && panels == kPanels) return &Tile<Weights, kRows, kPanels>;
  if constexpr (kPanels > 1) {
    return PickTile<Weights, kRows, kPanels - 1>(rows, panels);
  } else if constexpr (kRows > 1) {
    return PickTile<Weights, kRows - 1, TilePanels(kRows - 1)>(rows, panels);
  }
  return nullptr;
}

TileFunction PickTile(DType dtype, int rows, int panels) {
  constexpr int kRows = kMaxTileRows, kPanels = TilePanels(kMaxTileRows);
  switch (dtype) {
    case DType::kF32:
      return PickTile<LoadF32, kRows, kPanels>(rows, panels);
    case DType::kF16:
      return PickTile<LoadF16, kRows, kPanels>(rows, panels);
    case DType::kBF16:
      return PickTile<LoadBF16, kRows, kPanels>(rows, panels);
  }
  return nullptr;
}

// tile (rows, panels * 16) goes to C at `row` and `panel`.
void StoreTile(const GemmArgs& args, const float* tile, int64_t row, int64_t rows, int64_t panel,
               int64_t panels) {
  using Half = hn::CappedTag<float, kPanelPairs>;
  constexpr Half d;
  constexpr int64_t kHalfLanes = hn::MaxLanes(Half());
  for (int64_t r = 0; r < rows; ++r) {
    float* c = args.c + (row + r) * args.ldc;
    const float* from = tile + r * panels * kPanelRows;
    if (args.store == GemmStore::kSwiGlu) {
      c += panel * kPanelPairs;
      for (int64_t p = 0; p < panels; ++p) {
        for (int64_t i = 0; i < kPanelPairs; i += kHalfLanes) {
          const int64_t column = (panel + p) * kPanelPairs + i;
          auto gate = hn::LoadU(d, from + p * kPanelRows + i);
          auto up = hn::LoadU(d, from + p * kPanelRows + kPanelPairs + i);
          if (args.bias != nullptr) gate = hn::Add(gate, hn::LoadU(d, args.bias + column));
          if (args.factor != 1.0f) gate = hn::Mul(gate, hn::Set(d, args.factor));
          if (args.up_bias != nullptr) up = hn::Add(up, hn::LoadU(d, args.up_bias + column));
          hn::StoreU(hn::Mul(Activate(d, args.act, gate), up), d, c + p * kPanelPairs + i);
        }
      }
    } else {
      c += panel * kPanelRows;
      for (int64_t i = 0; i < panels * kPanelRows; i += kLanes) {
        V acc = Load(from + i);
        if (args.scale != nullptr) acc = hn::Mul(acc, Load(args.scale + panel * kPanelRows + i));
        if (args.bias != nullptr) acc = hn::Add(acc, Load(args.bias + panel * kPanelRows + i));
        if (args.factor != 1.0f) acc = hn::Mul(acc, Splat(args.factor));
        if (args.store == GemmStore::kAct) acc = Activate(D(), args.act, acc);
        Store(args.store == GemmStore::kAdd ? hn::Add(Load(c + i), acc) : acc, c + i);
      }
    }
  }
}

void GemmBlockSimd(const GemmArgs& args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                   int64_t panel_end) {
  const int64_t rows = row_end - row_begin;
  if (rows <= 0) return;
  const int64_t tiles = (rows + kMaxTileRows - 1) / kMaxTileRows;
  const int64_t group = TilePanels(static_cast<int>((rows + tiles - 1) / tiles));
  const int64_t panel_bytes = args.w.k * kPanelRows * DTypeBytes(args.w.dtype);
  HWY_ALIGN float tile[kMaxTileRows * kMaxTilePanels * kPanelRows];
  for (int64_t panel = panel_begin; panel < panel_end; panel += group) {
    const int64_t panels = std::min(group, panel_end - panel);
    const char* w = static_cast<const char*>(args.w.data) + panel * panel_bytes;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t begin = row_begin + rows * t / tiles, end = row_begin + rows * (t + 1) / tiles;
      const TileFunction compute =
          PickTile(args.w.dtype, static_cast<int>(end - begin), static_cast<int>(panels));
      compute(args.a + begin * args.lda, args.lda, w, args.w.k, tile);
      StoreTile(args, tile, begin, end - begin, panel, panels);
    }
  }
}

const char* SimdNameSimd() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(GemmBlockSimd);
HWY_EXPORT(SimdNameSimd);

// Rows of A that stay in the second-level cache while all panels pass by.
constexpr int64_t kTaskRows = 96;
// Bytes of weights that are worth a task of their own.
constexpr int64_t kMinTaskBytes = 32 << 10;
// Tasks per thread: a late thread then costs a fraction of the loop.
constexpr int64_t kTasksPerThread = 3;

}  // namespace

int64_t GemmPanels(const GemmArgs& args) {
  return args.store == GemmStore::kSwiGlu ? (args.w.n / 2 + kPanelPairs - 1) / kPanelPairs
                                          : PanelCount(args.w.n);
}

void GemmBlock(const GemmArgs& args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
               int64_t panel_end) {
  HWY_DYNAMIC_DISPATCH(GemmBlockSimd)(args, row_begin, row_end, panel_begin, panel_end);
}

void Gemm(ThreadPool* pool, const GemmArgs& args) {
  if (args.m == 0) return;
  const int64_t panels = GemmPanels(args);
  const int64_t row_tasks = (args.m + kTaskRows - 1) / kTaskRows;
  const int64_t bytes = panels * args.w.k * kPanelRows * DTypeBytes(args.w.dtype);
  int64_t panel_tasks = 1;
  if (pool->threads() > 1) {
    const int64_t wanted = std::max<int64_t>(1, pool->threads() * kTasksPerThread / row_tasks);
    panel_tasks = std::clamp<int64_t>(bytes / kMinTaskBytes, 1, wanted);
  }
  // Whole groups of panels, so that no tile is narrower than it need be.
  const int64_t task_panels = RoundUp((panels + panel_tasks - 1) / panel_tasks, 4);
  panel_tasks = (panels + task_panels - 1) / task_panels;
  pool->ParallelFor(row_tasks * panel_tasks, [&](int64_t task, int) {
    const int64_t row = task / panel_tasks * kTaskRows;
    const int64_t panel = task % panel_tasks * task_panels;
    GemmBlock(args, row, std::min(row + kTaskRows, args.m), panel,
              std::min(panel + task_panels, panels));
  });
}

const char* SimdName() { return HWY_DYNAMIC_DISPATCH(SimdNameSimd)(); }

}  // namespace sluice
#endif  // HWY_ONCE
