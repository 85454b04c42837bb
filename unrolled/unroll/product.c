// Products of rows with packed matrices, for the steps that include kernel.h; it stands before this.
#define TILE 6 // rows of a register tile, at most

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE __builtin_shufflevector
#endif
#endif
#ifndef SHUFFLE // GCC before 12
typedef int32_t index __attribute__((vector_size(32)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (index){__VA_ARGS__})
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
void pack(const REAL *matrix, long row_stride, long column_stride, long depth, long width, REAL *packed, long thread,
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
void product(const REAL *a, long a_stride, const REAL *packed, long depth, long width, REAL *c, long c_stride,
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
