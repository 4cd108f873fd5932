/* libxsmm's own deep-learning primitives (1.17) training a network, whole steps for a given time: what
   scripts/bench compares with.

     libxsmm_trainer IMAGES LABELS WIDTHS ACTIVATION BATCH RATE BN,BC,BK THREADS SECONDS

   Its optimizer knows plain stochastic descent alone, and the function that runs it has no body in
   1.17, so the same update is written here; it is less work than momentum or Adam. Its fused sigmoid
   takes the derivative from the gradient instead of the output, which does not learn, so sigmoid is
   applied here too. A batch is gathered into the blocked layout within the step, as every contender
   must. A block size that does not divide a width is replaced by the width, as the library does.

   Shapes, slowest index first: activations [N/bn][C/bc][bn][bc], weights [K/bk][C/bc][bc][bk]. */
#include <libxsmm.h>
#include <math.h>
#include <omp.h>

#include "data.h"

static void check(libxsmm_dnn_err_t status, const char* what) {
  if (status != LIBXSMM_DNN_SUCCESS) fail(what, libxsmm_dnn_get_error(status));
}

static int block(int wanted, int size) {
  return wanted <= size && size % wanted == 0 ? wanted : size;
}

static float* floats(size_t count) {
  float* p = (float*)libxsmm_aligned_malloc(count * sizeof(float), 2097152);
  if (!p) fail("no memory", "floats");
  memset(p, 0, count * sizeof(float));
  return p;
}

struct layer {
  libxsmm_dnn_fullyconnected* dense;
  int inputs, outputs, bk;
  float *weights, *d_weights, *bias, *d_bias;
  unsigned char* mask;
};

/* The library wants each buffer wrapped with the layout that it asked for. */
static libxsmm_dnn_tensor* bind(libxsmm_dnn_fullyconnected* dense, void* data,
                                libxsmm_dnn_tensor_type type) {
  libxsmm_dnn_err_t status;
  libxsmm_dnn_tensor_datalayout* layout =
      libxsmm_dnn_fullyconnected_create_tensor_datalayout(dense, type, &status);
  check(status, "layout");
  libxsmm_dnn_tensor* tensor = libxsmm_dnn_link_tensor(layout, data, &status);
  check(status, "tensor");
  libxsmm_dnn_destroy_tensor_datalayout(layout);
  check(libxsmm_dnn_fullyconnected_bind_tensor(dense, tensor, type), "bind_tensor");
  return tensor;
}

int main(int argc, char** argv) {
  if (argc != 10) {
    fail("usage",
         "libxsmm_trainer IMAGES LABELS WIDTHS ACTIVATION BATCH RATE BN,BC,BK THREADS SECONDS");
  }
  const struct dataset data = read_dataset(argv[1], argv[2]);
  int widths[MAX_LAYERS + 1], blocks[3];
  const int layers = parse_widths(argv[3], widths) - 1;
  const int sigmoid = strcmp(argv[4], "sigmoid") == 0;
  const int batch = atoi(argv[5]);
  const float rate = (float)atof(argv[6]);
  if (sscanf(argv[7], "%d,%d,%d", &blocks[0], &blocks[1], &blocks[2]) != 3) fail("blocks", argv[7]);
  const int threads = atoi(argv[8]);
  const double limit = atof(argv[9]);
  if ((size_t)widths[0] != data.values) fail("first width is not that of the images", argv[3]);
  libxsmm_init();

  const int bn = block(blocks[0], batch);
  struct layer net[MAX_LAYERS];
  float *activation[MAX_LAYERS + 1], *delta[MAX_LAYERS + 1];
  libxsmm_dnn_tensor *activation_tensor[MAX_LAYERS + 1], *delta_tensor[MAX_LAYERS + 1];
  for (int i = 0; i <= layers; ++i) {
    activation[i] = floats((size_t)batch * (size_t)widths[i]);
    delta[i] = floats((size_t)batch * (size_t)widths[i]);
  }
  size_t scratch_size = 0;
  libxsmm_dnn_err_t status;
  for (int i = 0; i < layers; ++i) {
    struct layer* l = &net[i];
    const int hidden = i + 1 < layers;
    l->inputs = widths[i];
    l->outputs = widths[i + 1];
    /* One layer's output blocks are the next one's input blocks. */
    const int bc = block(i == 0 ? blocks[1] : blocks[2], l->inputs);
    l->bk = hidden ? block(blocks[2], l->outputs) : l->outputs;
    const size_t weights = (size_t)l->inputs * (size_t)l->outputs;
    l->weights = floats(weights);
    l->d_weights = floats(weights);
    l->bias = floats((size_t)l->outputs);
    l->d_bias = floats((size_t)l->outputs);
    l->mask = (unsigned char*)floats((size_t)batch * (size_t)l->outputs / 4 + 1);
    const float width = sqrtf((hidden && !sigmoid ? 6.0f : 3.0f) / (float)l->inputs);
    for (size_t w = 0; w < weights; ++w) l->weights[w] = width * random_uniform();

    libxsmm_dnn_fullyconnected_desc dense = {0};
    dense.N = batch;
    dense.C = l->inputs;
    dense.K = l->outputs;
    dense.bn = bn;
    dense.bc = bc;
    dense.bk = l->bk;
    dense.threads = threads;
    dense.datatype_in = dense.datatype_out = LIBXSMM_DNN_DATATYPE_F32;
    dense.buffer_format = LIBXSMM_DNN_TENSOR_FORMAT_NCPACKED;
    dense.filter_format = LIBXSMM_DNN_TENSOR_FORMAT_CKPACKED;
    dense.fuse_ops = hidden && !sigmoid ? LIBXSMM_DNN_FULLYCONNECTED_FUSE_BIAS_RELU
                                        : LIBXSMM_DNN_FULLYCONNECTED_FUSE_BIAS;
    l->dense = libxsmm_dnn_create_fullyconnected(dense, &status);
    check(status, "create_fullyconnected");
    activation_tensor[i] = bind(l->dense, activation[i], LIBXSMM_DNN_REGULAR_INPUT);
    activation_tensor[i + 1] = bind(l->dense, activation[i + 1], LIBXSMM_DNN_REGULAR_OUTPUT);
    delta_tensor[i] = bind(l->dense, delta[i], LIBXSMM_DNN_GRADIENT_INPUT);
    delta_tensor[i + 1] = bind(l->dense, delta[i + 1], LIBXSMM_DNN_GRADIENT_OUTPUT);
    bind(l->dense, l->weights, LIBXSMM_DNN_REGULAR_FILTER);
    bind(l->dense, l->d_weights, LIBXSMM_DNN_GRADIENT_FILTER);
    bind(l->dense, l->bias, LIBXSMM_DNN_REGULAR_CHANNEL_BIAS);
    bind(l->dense, l->d_bias, LIBXSMM_DNN_GRADIENT_CHANNEL_BIAS);
    bind(l->dense, l->mask, LIBXSMM_DNN_RELU_MASK);

    const size_t wanted = libxsmm_dnn_fullyconnected_get_scratch_size(l->dense, &status);
    check(status, "scratch_size");
    if (wanted > scratch_size) scratch_size = wanted;
  }

  const int classes = widths[layers];
  libxsmm_dnn_softmaxloss_desc softmax_desc = {0};
  softmax_desc.N = batch;
  softmax_desc.C = classes;
  softmax_desc.bn = bn;
  softmax_desc.bc = classes; /* with more blocks than one it finds the wrong class */
  softmax_desc.loss_weight = 1.0f;
  softmax_desc.threads = threads;
  softmax_desc.datatype = LIBXSMM_DNN_DATATYPE_F32;
  softmax_desc.buffer_format = LIBXSMM_DNN_TENSOR_FORMAT_NCPACKED;
  libxsmm_dnn_softmaxloss* softmax = libxsmm_dnn_create_softmaxloss(softmax_desc, &status);
  check(status, "create_softmaxloss");
  libxsmm_dnn_tensor_datalayout* layout = libxsmm_dnn_softmaxloss_create_tensor_datalayout(
      softmax, LIBXSMM_DNN_REGULAR_OUTPUT, &status);
  check(status, "layout of probabilities");
  float* probability = floats((size_t)batch * (size_t)classes);
  libxsmm_dnn_tensor* output = libxsmm_dnn_link_tensor(layout, probability, &status);
  check(status, "tensor of probabilities");
  libxsmm_dnn_destroy_tensor_datalayout(layout);
  layout = libxsmm_dnn_softmaxloss_create_tensor_datalayout(softmax, LIBXSMM_DNN_LABEL, &status);
  check(status, "layout of labels");
  int* labels = (int*)floats((size_t)batch);
  libxsmm_dnn_tensor* label = libxsmm_dnn_link_tensor(layout, labels, &status);
  check(status, "tensor of labels");
  libxsmm_dnn_destroy_tensor_datalayout(layout);
  check(libxsmm_dnn_softmaxloss_bind_tensor(softmax, activation_tensor[layers],
                                            LIBXSMM_DNN_REGULAR_INPUT),
        "softmax input");
  check(libxsmm_dnn_softmaxloss_bind_tensor(softmax, delta_tensor[layers],
                                            LIBXSMM_DNN_GRADIENT_INPUT),
        "softmax gradient");
  check(libxsmm_dnn_softmaxloss_bind_tensor(softmax, output, LIBXSMM_DNN_REGULAR_OUTPUT), "output");
  check(libxsmm_dnn_softmaxloss_bind_tensor(softmax, label, LIBXSMM_DNN_LABEL), "label");
  const size_t wanted = libxsmm_dnn_softmaxloss_get_scratch_size(softmax, &status);
  check(status, "scratch_size");
  if (wanted > scratch_size) scratch_size = wanted;
  float* scratch = floats(scratch_size / sizeof(float) + 16);
  for (int i = 0; i < layers; ++i) {
    check(libxsmm_dnn_fullyconnected_bind_scratch(net[i].dense, scratch), "bind_scratch");
  }
  check(libxsmm_dnn_softmaxloss_bind_scratch(softmax, scratch), "bind_scratch");

  /* Inputs as floats once, like every contender. */
  float* images = floats(data.samples * data.values);
  for (size_t i = 0; i < data.samples * data.values; ++i) images[i] = data.images[i] / 255.0f;
  uint32_t* order = new_order(data.samples);
  const int values = (int)data.values, bc = block(blocks[1], values);

  size_t steps = 0, position = 0, capacity = 1 << 12;
  float* losses = (float*)malloc(capacity * sizeof *losses);
  double start = seconds_now(), seconds = 0;
  const size_t warm_up = 20;
  const int stride = batch > 16 ? batch / 16 : 1;
  int more = 1;
  omp_set_dynamic(0);
  omp_set_num_threads(threads);
#pragma omp parallel
  {
    const int tid = omp_get_thread_num();
#pragma omp single
    if (omp_get_num_threads() != threads) fail("OpenMP", "fewer threads than asked for");
    while (more) {
#pragma omp for schedule(static)
      for (int n = 0; n < batch; ++n) {
        const uint32_t sample = order[position + (size_t)n];
        labels[n] = data.labels[sample];
        const float* from = images + sample * data.values;
        float* to =
            activation[0] + ((size_t)(n / bn) * (size_t)values * (size_t)bn) + (n % bn) * bc;
        for (int c = 0; c < values; c += bc, to += bn * bc, from += bc) {
          memcpy(to, from, (size_t)bc * sizeof *to);
        }
      }
      for (int i = 0; i < layers; ++i) {
        libxsmm_dnn_fullyconnected_execute_st(net[i].dense, LIBXSMM_DNN_COMPUTE_KIND_FWD, 0, tid);
        if (sigmoid && i + 1 < layers) {
#pragma omp for schedule(static)
          for (int e = 0; e < batch * net[i].outputs; ++e) {
            activation[i + 1][e] = 1.0f / (1.0f + expf(-activation[i + 1][e]));
          }
        }
      }
      libxsmm_dnn_softmaxloss_execute_st(softmax, LIBXSMM_DNN_COMPUTE_KIND_FWD, 0, tid);
      libxsmm_dnn_softmaxloss_execute_st(softmax, LIBXSMM_DNN_COMPUTE_KIND_BWD, 0, tid);
      for (int i = layers - 1; i >= 0; --i) {
        if (sigmoid && i + 1 < layers) {
#pragma omp for schedule(static)
          for (int e = 0; e < batch * net[i].outputs; ++e) {
            const float a = activation[i + 1][e];
            delta[i + 1][e] *= a * (1.0f - a);
          }
        }
        libxsmm_dnn_fullyconnected_execute_st(
            net[i].dense, i > 0 ? LIBXSMM_DNN_COMPUTE_KIND_BWDUPD : LIBXSMM_DNN_COMPUTE_KIND_UPD, 0,
            tid);
        /* Nobody reads these weights again before the barrier at the end of the step. */
        float* weights = net[i].weights;
        const float* d_weights = net[i].d_weights;
#pragma omp for schedule(static) nowait
        for (int w = 0; w < net[i].inputs * net[i].outputs; ++w) weights[w] -= rate * d_weights[w];
#pragma omp for schedule(static) nowait
        for (int k = 0; k < net[i].outputs; ++k) net[i].bias[k] -= rate * net[i].d_bias[k];
      }
#pragma omp single
      {
        if (steps == capacity) losses = (float*)realloc(losses, (capacity *= 2) * sizeof *losses);
        if (!losses) fail("no memory", "losses");
        /* The mean of -log p of the right class, of some samples: the library's own figure costs a
           pass over all on one thread. */
        double loss = 0;
        for (int n = 0; n < batch; n += stride) {
          const float p = probability[n * classes + labels[n]];
          loss -= log(p > 1e-30f ? p : 1e-30f) / ((batch - 1) / stride + 1);
        }
        losses[steps++] = (float)loss;
        position += (size_t)batch;
        if (position + (size_t)batch > data.samples) {
          shuffle(order, data.samples);
          position = 0;
        }
        if (steps == warm_up) start = seconds_now();
        if (steps > warm_up && (batch >= 64 || steps % 64 == 0)) seconds = seconds_now() - start;
        more = seconds < limit;
      }
    }
  }
  const size_t part = steps / 10 > 0 ? steps / 10 : 1;
  double first = 0, last = 0;
  for (size_t i = 0; i < part; ++i) {
    first += losses[i] / (double)part;
    last += losses[steps - 1 - i] / (double)part;
  }
  answer((double)(steps - warm_up) * batch, seconds, first, last);
  return 0;
}
