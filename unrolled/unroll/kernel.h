// Shared by every generated kernel: element types, element-wise functions, packed matrix products.
// REAL is float or double; LANES of them fill 32 bytes; MASK is a whole
// number as wide.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define PANEL (2 * LANES) // columns of a packed panel
#define TILE 6            // rows of a register tile, at most

typedef REAL vec __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE __builtin_shufflevector
#endif
#endif
#ifndef SHUFFLE // GCC before 12
typedef int32_t index __attribute__((vector_size(32)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (index){__VA_ARGS__})
#endif

// e^x - 1 of the remainder r, and 2^n, for x = n ln 2 + r, as Cephes computes them.
#if LANES == 8
#define BIG 88.37f // what rounds to 127 ln 2
#define SMALL -87.3f // below which exp is no normal number
#define FLAT 10.0f // beyond which tanh is 1
INLINE REAL split_exp(REAL x, REAL *scale) {
  const REAL shifted = x * 1.44269504088896341f + 12582912.0f; // 1.5 * 2^23: rounds to a whole number
  const REAL n = shifted - 12582912.0f;
  const REAL r = x - n * 0.693359375f + n * 2.12194440e-4f;
  REAL p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  int32_t bits;
  memcpy(&bits, &shifted, 4);
  bits = (bits + 127) << 23;
  memcpy(scale, &bits, 4);
  return p * r * r + r;
}
#else
#define BIG 709.4
#define SMALL -708.3
#define FLAT 20.0
INLINE REAL split_exp(REAL x, REAL *scale) {
  const REAL shifted = x * 1.4426950408889634073599 + 6755399441055744.0; // 1.5 * 2^52
  const REAL n = shifted - 6755399441055744.0;
  const REAL r = x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
  const REAL rr = r * r;
  const REAL p = r * ((1.26177193074810590878e-4 * rr + 3.02994407707441961300e-2) * rr + 9.99999999999999999910e-1);
  const REAL q = ((3.00198505138664455042e-6 * rr + 2.52448340349684104192e-3) * rr + 2.27265548208155028766e-1) * rr + 2.0;
  int64_t bits;
  memcpy(&bits, &shifted, 8);
  bits = (int64_t)((uint64_t)(bits + 1023) << 52);
  memcpy(scale, &bits, 8);
  return 2.0 * p / (q - p);
}
#endif

INLINE REAL f_exp(REAL x) {
  REAL scale;
  const REAL within = x > BIG ? BIG : x < SMALL ? SMALL : x;
  const REAL value = split_exp(within, &scale) * scale + scale;
  return x > BIG ? (REAL)INFINITY : x < SMALL ? 0 : value;
}

INLINE REAL f_sigmoid(REAL x) {
  REAL scale;
  const REAL within = x > -SMALL ? -SMALL : x < -BIG ? -BIG : x;
  const REAL value = split_exp(-within, &scale) * scale + scale;
  return 1 / (1 + value);
}

// From t = e^{2|x|} - 1, which is exact near zero: tanh |x| = t / (t + 2).
INLINE REAL f_tanh(REAL x) {
  REAL scale;
  const REAL a = x < 0 ? -x : x;
  const REAL t = split_exp(2 * (a > FLAT ? FLAT : a), &scale) * scale + (scale - 1);
  const REAL value = t / (t + 2);
  return x < 0 ? -value : value;
}

INLINE REAL f_max(REAL a, REAL b) { return a < b ? b : a; } // NaN where a is
INLINE REAL f_min(REAL a, REAL b) { return a > b ? b : a; }
INLINE REAL f_abs(REAL x) { return x < 0 ? -x : x; }

#if LANES == 8
#define LIBM(name) INLINE REAL f_##name(REAL x) { return name##f(x); }
#else
#define LIBM(name) INLINE REAL f_##name(REAL x) { return name(x); }
#endif
LIBM(expm1)
LIBM(log)
LIBM(log1p)
LIBM(sqrt)
LIBM(sin)
LIBM(cos)
LIBM(erf)
LIBM(atan)
LIBM(floor)
LIBM(rint)
#define f_round f_rint
#if LANES == 8
INLINE REAL f_pow(REAL x, REAL y) { return powf(x, y); }
#else
INLINE REAL f_pow(REAL x, REAL y) { return pow(x, y); }
#endif

// Turn LANES rows of LANES elements, `stride` apart, into columns: rows of PANEL elements, `PANEL` apart.
INLINE void turn(const REAL *from, long stride, REAL *to) {
#if LANES == 8
  vec a[8], b[8];
  for (int i = 0; i < 8; i++) a[i] = *(const vec *)(from + i * stride);
  for (int i = 0; i < 4; i++) { // pairs of rows, two at a time
    b[i] = SHUFFLE(a[2 * i], a[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    b[i + 4] = SHUFFLE(a[2 * i], a[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 4; j += 2) {
      a[i + j] = SHUFFLE(b[i + j], b[i + j + 1], 0, 1, 8, 9, 4, 5, 12, 13);
      a[i + j + 1] = SHUFFLE(b[i + j], b[i + j + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int i = 0; i < 8; i += 4) // i / 4: column modulo 2; j: column / 2 modulo 2
    for (int j = 0; j < 2; j++) {
      *(vec *)(to + (i / 4 + 2 * j) * PANEL) = SHUFFLE(a[i + j], a[i + j + 2], 0, 1, 2, 3, 8, 9, 10, 11);
      *(vec *)(to + (i / 4 + 2 * j + 4) * PANEL) = SHUFFLE(a[i + j], a[i + j + 2], 4, 5, 6, 7, 12, 13, 14, 15);
    }
#else
  for (int i = 0; i < LANES; i++)
    for (int j = 0; j < LANES; j++) to[j * PANEL + i] = from[i * stride + j];
#endif
}

// Pack a matrix [depth, width] of any strides into panels of PANEL columns, zeros behind its width; threads share the
// panels out.
static void pack(const REAL *matrix, long row_stride, long column_stride, long depth, long width, REAL *packed, long thread,
                 long threads) {
  const long panels = (width + PANEL - 1) / PANEL;
  for (long n = panels * thread / threads; n < panels * (thread + 1) / threads; n++) {
    REAL *panel = packed + n * PANEL * depth;
    const long columns = width - n * PANEL < PANEL ? width - n * PANEL : PANEL;
    const REAL *source = matrix + n * PANEL * column_stride;
    long k = 0;
    if (columns == PANEL && column_stride == 1)
      for (; k < depth; k++) memcpy(panel + k * PANEL, source + k * row_stride, PANEL * sizeof(REAL));
    else if (columns == PANEL && row_stride == 1)
      for (; k + LANES <= depth; k += LANES)
        for (long j = 0; j < PANEL; j += LANES) turn(source + k + j * column_stride, column_stride, panel + k * PANEL + j);
    for (; k < depth; k++)
      for (long j = 0; j < PANEL; j++)
        panel[k * PANEL + j] = j < columns ? source[k * row_stride + j * column_stride] : 0;
  }
}

// One register tile: ROWS rows of C [*, PANELS * PANEL] = A [ROWS, depth] times PANELS packed panels [depth, PANEL].
#define TILE_KERNEL(ROWS, PANELS)                                                                                \
  static void tile_##ROWS##_##PANELS(const REAL *restrict a, long a_stride, const REAL *restrict panel, long depth, \
                                     REAL *restrict c, long c_stride) {                                          \
    vec sum[ROWS][2 * PANELS];                                                                                   \
    _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++)                                                       \
      _Pragma("GCC unroll 8") for (int v = 0; v < 2 * PANELS; v++) sum[r][v] = (vec){0};                         \
    for (long k = 0; k < depth; k++) {                                                                           \
      vec b[2 * PANELS];                                                                                         \
      _Pragma("GCC unroll 8") for (int v = 0; v < 2 * PANELS; v++)                                               \
        b[v] = *(const vec *)(panel + (v / 2) * PANEL * depth + k * PANEL + (v % 2) * LANES);                    \
      _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++) {                                                   \
        const REAL x = a[r * a_stride + k];                                                                      \
        _Pragma("GCC unroll 8") for (int v = 0; v < 2 * PANELS; v++) sum[r][v] += x * b[v];                      \
      }                                                                                                          \
    }                                                                                                            \
    _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++)                                                       \
      _Pragma("GCC unroll 8") for (int v = 0; v < 2 * PANELS; v++)                                               \
        *(vec *)(c + r * c_stride + v * LANES) = sum[r][v];                                                      \
  }
TILE_KERNEL(1, 1)
TILE_KERNEL(2, 1)
TILE_KERNEL(3, 1)
TILE_KERNEL(4, 1)
TILE_KERNEL(5, 1)
TILE_KERNEL(6, 1)
TILE_KERNEL(1, 4)
TILE_KERNEL(2, 2)
TILE_KERNEL(3, 2)
typedef void tile_kernel(const REAL *restrict, long, const REAL *restrict, long, REAL *restrict, long);
static tile_kernel *const TILES[] = {0, tile_1_1, tile_2_1, tile_3_1, tile_4_1, tile_5_1, tile_6_1};
static tile_kernel *const WIDE[] = {0, tile_1_4, tile_2_2, tile_3_2};

// C [rows, width] = A [rows, depth] times a packed matrix; C's rows are padded to whole panels.
static void product(const REAL *a, long a_stride, const REAL *packed, long depth, long width, REAL *c, long c_stride,
                    long rows) {
  const long tiles = (rows + TILE - 1) / TILE, end = (width + PANEL - 1) / PANEL * PANEL;
  long n = 0;
  if (rows <= 3) { // too few rows to keep the multipliers busy on one panel
    const long columns = (rows == 1 ? 4 : 2) * PANEL;
    for (; n + columns <= end; n += columns) WIDE[rows](a, a_stride, packed + n * depth, depth, c + n, c_stride);
  }
  for (; n < end; n += PANEL)
    for (long i = 0; i < tiles; i++) {
      const long first = rows * i / tiles, last = rows * (i + 1) / tiles;
      TILES[last - first](a + first * a_stride, a_stride, packed + n * depth, depth, c + first * c_stride + n, c_stride);
    }
}
