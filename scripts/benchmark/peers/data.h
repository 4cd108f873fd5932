/* What the C peers share: the raw samples that scripts/benchmark writes for them, a shuffled endless
   order, arguments, and the line of JSON that they answer with.

   IMAGES holds one byte per value, sample after sample; LABELS one byte per sample. */
#ifndef BENCHMARK_PEERS_DATA_H
#define BENCHMARK_PEERS_DATA_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_LAYERS 8

struct dataset {
  size_t samples, values;
  uint8_t* images;
  uint8_t* labels;
};

static void fail(const char* what, const char* of) {
  fprintf(stderr, "%s: %s\n", what, of);
  exit(1);
}

static uint8_t* read_bytes(const char* path, size_t* bytes) {
  FILE* file = fopen(path, "rb");
  if (!file) fail("cannot open", path);
  fseek(file, 0, SEEK_END);
  *bytes = (size_t)ftell(file);
  rewind(file);
  uint8_t* content = (uint8_t*)malloc(*bytes);
  if (!content || fread(content, 1, *bytes, file) != *bytes) fail("cannot read", path);
  fclose(file);
  return content;
}

static struct dataset read_dataset(const char* images, const char* labels) {
  struct dataset data;
  size_t bytes;
  data.labels = read_bytes(labels, &data.samples);
  data.images = read_bytes(images, &bytes);
  if (data.samples == 0 || bytes % data.samples != 0) fail("not one label for each image", images);
  data.values = bytes / data.samples;
  return data;
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* xorshift64*: an order and first weights need no better. */
static uint64_t random_state = 88172645463325252ull;
static uint64_t random_bits(void) {
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 2685821657736338717ull;
}
/* In [-1, 1). */
__attribute__((unused)) static float random_uniform(void) {
  return (float)(random_bits() >> 40) / 8388608.0f - 1.0f;
}

static void shuffle(uint32_t* order, size_t count) {
  for (size_t i = count; i > 1; --i) {
    const size_t j = random_bits() % i;
    const uint32_t other = order[j];
    order[j] = order[i - 1];
    order[i - 1] = other;
  }
}

static uint32_t* new_order(size_t count) {
  uint32_t* order = (uint32_t*)malloc(count * sizeof *order);
  if (!order) fail("no memory", "order of samples");
  for (size_t i = 0; i < count; ++i) order[i] = (uint32_t)i;
  shuffle(order, count);
  return order;
}

/* "784,512,10" -> widths; returns how many. */
static int parse_widths(const char* text, int* widths) {
  int count = 0;
  for (char* end = (char*)text; *text && count <= MAX_LAYERS; text = *end ? end + 1 : end) {
    widths[count++] = (int)strtol(text, &end, 10);
  }
  return count;
}

static void answer(double samples, double seconds, double first_loss, double last_loss) {
  printf("{\"samples_per_second\": %.3f, \"first_loss\": %.6f, \"loss\": %.6f}\n",
         samples / seconds, first_loss, last_loss);
}

#endif
