// Element types and element-wise functions that every compiled step shares.
// REAL is float or double. LANES of them fill 32 bytes. MASK is an integer of the same width.
// The compiler has these types and functions built in. Reading the system's headers takes longer than reading a step.
typedef __INT32_TYPE__ int32_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT64_TYPE__ uint64_t;
#define memcpy __builtin_memcpy
#define memset __builtin_memset
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#ifdef _OPENMP
int omp_get_thread_num(void);
int omp_get_num_threads(void);
#endif

#define INLINE static inline __attribute__((always_inline))
#define PANEL (2 * LANES) // columns of a packed panel

typedef REAL vec __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

// Return e^r - 1 and set `scale` to 2^n, where x = n ln 2 + r. The method is that of Cephes.
#if LANES == 8
#define BIG 88.37f // the largest x for which n is 127, rounded down
#define SMALL -87.3f // below this, exp is not a normal number
#define FLAT 10.0f // beyond this, tanh is 1
INLINE REAL split_exp(REAL x, REAL *scale) {
  const REAL shifted = x * 1.44269504088896341f + 12582912.0f; // adding 1.5 * 2^23 rounds to an integer
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
  bits = (int32_t)((uint32_t)(bits + 127) << 23);
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

// tanh |x| = t / (t + 2), where t = e^{2|x|} - 1, which is accurate near zero.
INLINE REAL f_tanh(REAL x) {
  REAL scale;
  const REAL a = x < 0 ? -x : x;
  const REAL t = split_exp(2 * (a > FLAT ? FLAT : a), &scale) * scale + (scale - 1);
  const REAL value = t / (t + 2);
  return x < 0 ? -value : value;
}

INLINE REAL f_max(REAL a, REAL b) { return a < b ? b : a; } // NaN if a is NaN
INLINE REAL f_min(REAL a, REAL b) { return a > b ? b : a; }
INLINE REAL f_abs(REAL x) { return x < 0 ? -x : x; }

#if LANES == 8
#define LIBM(name) INLINE REAL f_##name(REAL x) { return __builtin_##name##f(x); }
#else
#define LIBM(name) INLINE REAL f_##name(REAL x) { return __builtin_##name(x); }
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
INLINE REAL f_pow(REAL x, REAL y) { return __builtin_powf(x, y); }
#else
INLINE REAL f_pow(REAL x, REAL y) { return __builtin_pow(x, y); }
#endif

// The functions of product.c, which is compiled once and passed to every program.
typedef void pack_function(const REAL *matrix, long row_stride, long column_stride, long depth, long width, REAL *packed,
                           long thread, long threads);
typedef void product_function(const REAL *a, long a_stride, const REAL *packed, long depth, long width, const REAL *bias,
                              REAL *c, long c_stride, long rows);
typedef void contract_function(const REAL *a, long a_stride, long m, const REAL *b, long b_stride, long n, long rows,
                               REAL *c, REAL *workspace, long thread, long threads);
typedef void sum_rows_function(const REAL *a, long stride, long width, long rows, REAL *sums, long thread, long threads);
struct tools {
  pack_function *pack;
  product_function *product;
  contract_function *contract;
  sum_rows_function *sum_rows;
};
