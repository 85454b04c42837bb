// Matrix products and sums over rows, for every compiled program. Included after kernel.h.
#define TILE 6 // maximum rows of a register tile
#define DEPTH 384 // rows that `contract` packs at a time
#define COLUMNS (16 * TILE) // columns of the left operand that `contract` packs at a time

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE __builtin_shufflevector
#endif
#endif
#ifndef SHUFFLE // GCC before 12
typedef int32_t index __attribute__((vector_size(32)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (index){__VA_ARGS__})
#endif

// Transpose LANES rows of LANES elements, `stride` apart. The resulting rows are PANEL apart.
INLINE void transpose(const REAL *from, long stride, REAL *to) {
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

// Pack a matrix [depth, width] of any strides into panels of PANEL columns, with zeros beyond its width. The panels are
// divided among the threads.
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
        for (long j = 0; j < PANEL; j += LANES) transpose(source + k + j * column_stride, column_stride, panel + k * PANEL + j);
    for (; k < depth; k++)
      for (long j = 0; j < PANEL; j++)
        panel[k * PANEL + j] = j < columns ? source[k * row_stride + j * column_stride] : 0;
  }
}

#define UNROLL _Pragma("GCC unroll 8")

// Compute one register tile of ROWS rows and VECTORS * LANES columns: C = A times packed panels [depth, PANEL], plus
// the bias if there is one, plus C itself if `add` is set. A's rows are `a_row` apart and its columns `a_column`.
#define TILE_KERNEL(ROWS, VECTORS)                                                                                      \
  INLINE void tile_##ROWS##_##VECTORS##_at(const REAL *restrict a, long a_row, long a_column, const REAL *restrict panel, \
                                           long depth, const REAL *bias, int add, REAL *restrict c, long c_stride) {   \
    vec sum[ROWS][VECTORS];                                                                                             \
    if (add) UNROLL for (int r = 0; r < ROWS; r++) __builtin_prefetch(c + r * c_stride, 1);                              \
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < VECTORS; v++)                                      \
        sum[r][v] = bias ? *(const vec *)(bias + v * LANES) : (vec){0};                                                 \
    for (long k = 0; k < depth; k++) {                                                                                  \
      vec b[VECTORS];                                                                                                   \
      UNROLL for (int v = 0; v < VECTORS; v++)                                                                          \
        b[v] = *(const vec *)(panel + (v / 2) * PANEL * depth + k * PANEL + (v % 2) * LANES);                           \
      UNROLL for (int r = 0; r < ROWS; r++) {                                                                           \
        const REAL x = a[r * a_row + k * a_column];                                                                     \
        UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] += x * b[v];                                                 \
      }                                                                                                                 \
    }                                                                                                                   \
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < VECTORS; v++) {                                    \
      vec *const target = (vec *)(c + r * c_stride + v * LANES);                                                        \
      if (add) sum[r][v] += *target;                                                                                    \
      *target = sum[r][v];                                                                                              \
    }                                                                                                                   \
  }                                                                                                                     \
  static void tile_##ROWS##_##VECTORS(const REAL *a, long a_stride, const REAL *panel, long depth, const REAL *bias,     \
                                      REAL *c, long c_stride) {                                                         \
    tile_##ROWS##_##VECTORS##_at(a, a_stride, 1, panel, depth, bias, 0, c, c_stride);                                   \
  }
TILE_KERNEL(1, 1)
TILE_KERNEL(2, 1)
TILE_KERNEL(3, 1)
TILE_KERNEL(4, 1)
TILE_KERNEL(5, 1)
TILE_KERNEL(6, 1)
TILE_KERNEL(1, 2)
TILE_KERNEL(2, 2)
TILE_KERNEL(3, 2)
TILE_KERNEL(4, 2)
TILE_KERNEL(5, 2)
TILE_KERNEL(6, 2)
TILE_KERNEL(1, 4)
TILE_KERNEL(1, 6)
TILE_KERNEL(1, 8)
TILE_KERNEL(2, 4)
TILE_KERNEL(3, 4)
typedef void tile_kernel(const REAL *, long, const REAL *, long, const REAL *, REAL *, long);
static tile_kernel *const HALF[] = {0, tile_1_1, tile_2_1, tile_3_1, tile_4_1, tile_5_1, tile_6_1};
static tile_kernel *const WHOLE[] = {0, tile_1_2, tile_2_2, tile_3_2, tile_4_2, tile_5_2, tile_6_2};
static tile_kernel *const SINGLE[] = {0, tile_1_2, tile_1_4, tile_1_6, tile_1_8}; // one row, indexed by panels
static tile_kernel *const PAIR[] = {0, 0, tile_2_4, tile_3_4}; // two panels, indexed by rows

// Like `product`, for one row. It computes several panels at once, so that the multipliers do not wait for the sums.
static void product_of_row(const REAL *a, const REAL *packed, long depth, long width, const REAL *bias, REAL *c) {
  for (long n = 0; n < width; n += 4 * PANEL) {
    const long left = width - n, panels = left > 3 * PANEL ? 4 : (left + PANEL - 1) / PANEL;
    if (left >= panels * PANEL) {
      SINGLE[panels](a, 0, packed + n * depth, depth, bias ? bias + n : 0, c + n, 0);
      continue;
    }
    REAL edge[4 * PANEL], edge_bias[4 * PANEL]; // memory after a matrix's last column may not be readable or writable
    if (bias) memcpy(edge_bias, bias + n, left * sizeof(REAL));
    SINGLE[panels](a, 0, packed + n * depth, depth, bias ? edge_bias : 0, edge, 0);
    memcpy(c + n, edge, left * sizeof(REAL));
  }
}

// C [rows, width] = A [rows, depth] times a packed matrix, plus a bias [width] unless `bias` is 0.
void product(const REAL *a, long a_stride, const REAL *packed, long depth, long width, const REAL *bias, REAL *c,
             long c_stride, long rows) {
  const long tiles = (rows + TILE - 1) / TILE, end = width / PANEL * PANEL;
  if (rows == 1) {
    product_of_row(a, packed, depth, width, bias, c);
    return;
  }
  long n = 0;
  if (rows <= 3)
    for (; n + 2 * PANEL <= end; n += 2 * PANEL)
      PAIR[rows](a, a_stride, packed + n * depth, depth, bias ? bias + n : 0, c + n, c_stride);
  for (; n < end; n += PANEL)
    for (long i = 0; i < tiles; i++) {
      const long first = rows * i / tiles, last = rows * (i + 1) / tiles;
      WHOLE[last - first](a + first * a_stride, a_stride, packed + n * depth, depth, bias ? bias + n : 0,
                          c + first * c_stride + n, c_stride);
    }
  const long left = width - n;
  if (!left) return;
  REAL edge[TILE * PANEL], edge_bias[PANEL];
  if (bias) memcpy(edge_bias, bias + n, left * sizeof(REAL));
  for (long i = 0; i < tiles; i++) {
    const long first = rows * i / tiles, last = rows * (i + 1) / tiles;
    (left <= LANES ? HALF : WHOLE)[last - first](a + first * a_stride, a_stride, packed + n * depth, depth,
                                                 bias ? edge_bias : 0, edge, PANEL);
    for (long r = first; r < last; r++) memcpy(c + r * c_stride + n, edge + (r - first) * PANEL, left * sizeof(REAL));
  }
}

// Copy rows [count, width] into panels of COLUMNS columns, with zeros beyond the width.
#define GATHER(COLUMNS)                                                                                                 \
  static void gather_##COLUMNS(const REAL *restrict from, long stride, long count, long width, REAL *restrict to) {     \
    const long whole = width / COLUMNS, left = width % COLUMNS;                                                         \
    for (long r = 0; r < count; r++) {                                                                                  \
      const REAL *row = from + r * stride;                                                                              \
      REAL *target = to + r * COLUMNS;                                                                                  \
      for (long n = 0; n < whole; n++, row += COLUMNS, target += COLUMNS * count)                                       \
        memcpy(target, row, COLUMNS * sizeof(REAL));                                                                    \
      if (left) {                                                                                                       \
        memset(target, 0, COLUMNS * sizeof(REAL));                                                                      \
        memcpy(target, row, left * sizeof(REAL));                                                                       \
      }                                                                                                                 \
    }                                                                                                                   \
  }
GATHER(TILE)
GATHER(PANEL)

static void contract_tile(const REAL *a, const REAL *panel, long depth, int add, REAL *c, long c_stride, long high, long wide) {
  if (high == TILE && wide == PANEL) {
    tile_6_2_at(a, 1, TILE, panel, depth, 0, add, c, c_stride);
    return;
  }
  REAL edge[TILE * PANEL];
  if (wide <= LANES) tile_6_1_at(a, 1, TILE, panel, depth, 0, 0, edge, PANEL);
  else tile_6_2_at(a, 1, TILE, panel, depth, 0, 0, edge, PANEL);
  for (long i = 0; i < high; i++)
    for (long j = 0; j < wide; j++) c[i * c_stride + j] = edge[i * PANEL + j] + (add ? c[i * c_stride + j] : 0);
}

// C [m, n] = A^T B, for A [rows, m] and B [rows, n]. C is divided among the threads. `workspace` has
// DEPTH * (n + PANEL + COLUMNS) elements.
void contract(const REAL *a, long a_stride, long m, const REAL *b, long b_stride, long n, long rows, REAL *c,
              REAL *workspace, long thread, long threads) {
  long top = 0, bottom = m, left = 0, right = n;
  const long tall = (m + TILE - 1) / TILE, broad = (n + PANEL - 1) / PANEL;
  if (tall >= 2 * threads || tall >= broad) {
    top = tall * thread / threads * TILE;
    bottom = tall * (thread + 1) / threads * TILE;
    if (bottom > m) bottom = m;
  } else {
    left = broad * thread / threads * PANEL;
    right = broad * (thread + 1) / threads * PANEL;
    if (right > n) right = n;
  }
  if (top >= bottom || left >= right) return;
  REAL *const panels = workspace + DEPTH * COLUMNS;
  const long blocks = (rows + DEPTH - 1) / DEPTH;
  for (long block = 0; block < blocks; block++) {
    const long r = rows * block / blocks, depth = rows * (block + 1) / blocks - r;
    gather_PANEL(b + r * b_stride + left, b_stride, depth, right - left, panels);
    for (long i = top; i < bottom; i += COLUMNS) {
      const long high = bottom - i < COLUMNS ? bottom - i : COLUMNS;
      gather_TILE(a + r * a_stride + i, a_stride, depth, high, workspace);
      for (long j = left; j < right; j += PANEL)
        for (long k = 0; k < high; k += TILE)
          contract_tile(workspace + k * depth, panels + (j - left) * depth, depth, r > 0, c + (i + k) * n + j, n,
                        high - k < TILE ? high - k : TILE, right - j < PANEL ? right - j : PANEL);
    }
  }
}

// Sum A [rows, width] over its rows. The columns are divided among the threads.
void sum_rows(const REAL *a, long stride, long width, long rows, REAL *sums, long thread, long threads) {
  const long groups = (width + PANEL - 1) / PANEL, start = groups * thread / threads * PANEL;
  const long end = thread + 1 == threads ? width : groups * (thread + 1) / threads * PANEL;
  for (long n = start; n < end; n += COLUMNS) {
    const long columns = end - n < COLUMNS ? end - n : COLUMNS;
    REAL total[COLUMNS] = {0};
    for (long r = 0; r < rows; r += 64) { // in blocks: the rounding error grows with the terms in a sum
      const long last = rows - r < 64 ? rows : r + 64;
      REAL part[COLUMNS] = {0};
      for (long k = r; k < last; k++)
        for (long j = 0; j < columns; j++) part[j] += a[k * stride + n + j];
      for (long j = 0; j < columns; j++) total[j] += part[j];
    }
    memcpy(sums + n, total, columns * sizeof(REAL));
  }
}

const struct tools tools = {pack, product, contract, sum_rows};
