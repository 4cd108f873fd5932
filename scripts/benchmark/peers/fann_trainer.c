/* FANN on one sample at a time, whole steps for a given time: what scripts/bench compares with.

     fann_trainer IMAGES LABELS WIDTHS ACTIVATION RATE SECONDS

   FANN has neither softmax nor cross-entropy: sigmoid outputs and squared errors stand in, which is
   less work. Nor has 2.2 relu: its piecewise linear function, cut off at 0 and 1, stands in. The
   loss printed is the mean squared error of the first and of the last tenth of the samples. */
#include <floatfann.h>

#include "data.h"

int main(int argc, char** argv) {
  if (argc != 7) fail("usage", "fann_trainer IMAGES LABELS WIDTHS ACTIVATION RATE SECONDS");
  const struct dataset data = read_dataset(argv[1], argv[2]);
  int widths[MAX_LAYERS + 1];
  const int count = parse_widths(argv[3], widths);
  const double limit = atof(argv[6]);

  unsigned sizes[MAX_LAYERS + 1];
  for (int i = 0; i < count; ++i) sizes[i] = (unsigned)widths[i];
  struct fann* network = fann_create_standard_array((unsigned)count, sizes);
  if (!network) fail("fann_create_standard_array", "no network");
  fann_set_activation_function_hidden(
      network, strcmp(argv[4], "relu") == 0 ? FANN_LINEAR_PIECE : FANN_SIGMOID);
  fann_set_activation_function_output(network, FANN_SIGMOID);
  fann_set_activation_steepness_hidden(network, 0.5f);
  fann_set_training_algorithm(network, FANN_TRAIN_INCREMENTAL);
  fann_set_learning_rate(network, (float)atof(argv[5]));
  fann_randomize_weights(network, -0.05f, 0.05f);

  const int classes = widths[count - 1];
  float* targets = calloc((size_t)(classes * classes), sizeof *targets);
  for (int c = 0; c < classes; ++c) targets[c * classes + c] = 1.0f;
  float* inputs = malloc(data.samples * data.values * sizeof *inputs);
  if (!inputs) fail("no memory", "inputs");
  for (size_t i = 0; i < data.samples * data.values; ++i) inputs[i] = data.images[i] / 255.0f;
  uint32_t* order = new_order(data.samples);

  /* Squared errors of every sample, so that the ends can be compared once the number is known. */
  size_t trained = 0, capacity = 1 << 16;
  float* errors = malloc(capacity * sizeof *errors);
  const double start = seconds_now();
  double seconds = 0;
  while (seconds < limit) {
    for (int i = 0; i < 64; ++i, ++trained) {
      if (trained % data.samples == 0 && trained > 0) shuffle(order, data.samples);
      const uint32_t sample = order[trained % data.samples];
      fann_reset_MSE(network);
      fann_train(network, inputs + sample * data.values, targets + data.labels[sample] * classes);
      if (trained == capacity) errors = realloc(errors, (capacity *= 2) * sizeof *errors);
      if (!errors) fail("no memory", "errors");
      errors[trained] = fann_get_MSE(network);
    }
    seconds = seconds_now() - start;
  }
  const size_t part = trained / 10 > 0 ? trained / 10 : 1;
  double first = 0, last = 0;
  for (size_t i = 0; i < part; ++i) {
    first += errors[i] / (double)part;
    last += errors[trained - 1 - i] / (double)part;
  }
  answer((double)trained, seconds, first, last);
  fann_destroy(network);
  return 0;
}
