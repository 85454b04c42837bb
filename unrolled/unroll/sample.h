// Choose the next token of a row from its logits, as unrolled.decoding.Sampling does. Included after kernel.h.
void qsort(void *, __SIZE_TYPE__, __SIZE_TYPE__, int (*)(const void *, const void *));

typedef struct {
  REAL score;
  long token;
} scored;

static int by_falling_score(const void *a, const void *b) {
  const scored *left = a, *right = b;
  if (left->score != right->score) return left->score < right->score ? 1 : -1;
  return left->token < right->token ? -1 : 1;
}

// Return the first token at which the running sum of the probabilities, in the order of tokens, exceeds `draw`, a
// uniform number in [0, 1). Return -1 if the softmax is NaN: one of the logits is NaN or +inf, or all are -inf.
// `order` has space for `count` entries. Overwrites `logits`.
static int64_t choose(REAL *logits, long count, double temperature, long top_k, double top_p, double draw, scored *order) {
  long best = 0;
  int nan = 0;
  for (long k = 0; k < count; k++) {
    nan |= __builtin_isnan(logits[k]);
    if (logits[k] > logits[best]) best = k;
  }
  if (nan || __builtin_isinf(logits[best])) return -1;
  if (temperature == 0) return best;
  const REAL most = logits[best];
  for (long k = 0; k < count; k++) logits[k] = (REAL)((logits[k] - most) / temperature);
  const int cut = top_k > 0 && top_k < count;
  if (cut || top_p < 1) {
    for (long k = 0; k < count; k++) order[k] = (scored){logits[k], k};
    qsort(order, count, sizeof(scored), by_falling_score);
    for (long k = cut ? top_k : count; k < count; k++) logits[order[k].token] = -(REAL)INFINITY;
  }
#pragma omp simd
  for (long k = 0; k < count; k++) logits[k] = f_exp(logits[k]);
  double total = 0;
  for (long k = 0; k < count; k++) total += logits[k];
  if (top_p < 1) {
    double before = 0;
    for (long k = 0; k < count; k++) {
      const double share = logits[order[k].token] / total;
      if (k && before >= top_p) logits[order[k].token] = 0;
      before += share;
    }
    total = 0;
    for (long k = 0; k < count; k++) total += logits[k];
  }
  double sum = 0;
  long last = best;
  for (long k = 0; k < count; k++)
    if (logits[k] > 0) {
      sum += logits[k];
      last = k;
      if (sum > draw * total) return k;
    }
  return last;
}
