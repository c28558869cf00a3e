// SPDX-License-Identifier: MIT
// One call of the library, stage by stage, for callgrind: `stages LABELS [ITERATIONS]`. Every stage
// is a function stage_* of its own, which bench_instructions.py has counted; the rest is not.
//
// The image is made up: flat regions with noise, and class scores of one cell per 8 x 8 pixels that
// follow them roughly. Nothing depends on the machine or the standard library: mt19937_64's bits
// are the same everywhere.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <random>
#include <vector>

#include "cpu/dispatch.h"
#include "image.h"
#include "mean_field.h"

namespace {

constexpr std::int64_t height = 120, width = 160, n_points = height * width, stride = 8;
constexpr std::int64_t rows = height / stride, columns = width / stride;
constexpr int n_regions = 12;

class Random {
 public:
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(bits_() >> 40) / 16777216.0F;
  }

 private:
  std::mt19937_64 bits_{7};
};

struct Region {
  float x, y, colour[3];
  int label;
};

std::vector<Region> make_regions(Random* random, int n_labels) {
  std::vector<Region> regions(n_regions);
  for (int i = 0; i < n_regions; ++i) {
    Region& region = regions[i];
    region.x = random->uniform(0.0F, width);
    region.y = random->uniform(0.0F, height);
    for (float& level : region.colour) level = random->uniform(20.0F, 235.0F);
    region.label = i % n_labels;
  }
  return regions;
}

float distance(const Region& region, float x, float y) {
  return std::hypot(region.x - x, region.y - y);
}

const Region& nearest(const std::vector<Region>& regions, float x, float y) {
  const Region* best = regions.data();
  for (const Region& region : regions) {
    if (distance(region, x, y) < distance(*best, x, y)) best = &region;
  }
  return *best;
}

std::vector<float> make_image(Random* random, const std::vector<Region>& regions) {
  std::vector<float> image;
  for (std::int64_t i = 0; i < n_points; ++i) {
    const Region& region = nearest(regions, float(i % width), float(i / width));
    for (float level : region.colour) {
      image.push_back(std::round(level + random->uniform(-12.0F, 12.0F)));
    }
  }
  return image;
}

// Scores fall with the distance to a label's nearest region; a label without one is unlikely.
std::vector<float> make_scores(Random* random, const std::vector<Region>& regions, int n_labels) {
  std::vector<float> scores(n_labels * rows * columns);
  for (float& score : scores) score = random->uniform(-9.0F, -6.0F);
  for (std::int64_t cell = 0; cell < rows * columns; ++cell) {
    const auto x = float(cell % columns * stride + stride / 2);
    const auto y = float(cell / columns * stride + stride / 2);
    for (const Region& region : regions) {
      float& score = scores[region.label * rows * columns + cell];
      score = std::fmax(score, random->uniform(-1.0F, 1.0F) - 0.2F * distance(region, x, y));
    }
  }
  return scores;
}

// (C, N) probabilities: scores stretched, then softmax.
std::vector<float> make_probabilities(const std::vector<float>& scores, int n_labels) {
  std::vector<float> p(n_labels * n_points);
  crfseg::upsample(scores.data(), n_labels, rows, columns, height, width, false, 1, p.data());
  for (std::int64_t i = 0; i < n_points; ++i) {
    float sum = 0.0F;
    for (int label = 0; label < n_labels; ++label) {
      float& value = p[label * n_points + i];
      sum += value = std::exp(value);
    }
    for (int label = 0; label < n_labels; ++label) p[label * n_points + i] /= sum;
  }
  return p;
}

struct Job {
  Job(int labels, int iterations) : n_labels(labels) {
    Random random;
    const std::vector<Region> regions = make_regions(&random, n_labels);
    image = make_image(&random, regions);
    probabilities = make_probabilities(make_scores(&random, regions, n_labels), n_labels);
    q.resize(probabilities.size());
    options.iterations = iterations;
  }

  int n_labels;
  crfseg::InferenceOptions options;
  std::vector<float> image, probabilities, q;
  std::shared_ptr<const crfseg::Lattice> spatial, bilateral;
  std::unique_ptr<crfseg::MeanField> field;
};

std::shared_ptr<const crfseg::Lattice> make_lattice(const std::vector<float>& inverse_sigmas,
                                                    const float* image) {
  const auto dim = static_cast<int>(inverse_sigmas.size());
  std::vector<float> features(n_points * dim);
  crfseg::image_features(height, width, image, dim - 2, inverse_sigmas.data(), 1, features.data());
  return std::make_shared<const crfseg::Lattice>(features.data(), n_points, dim, std::vector<int>{},
                                                 1, 1);
}

}  // namespace

// Names that callgrind finds as they stand.
#define CRFSEG_STAGE extern "C" __attribute__((noinline)) void

CRFSEG_STAGE stage_build_spatial(Job* job) {
  job->spatial = make_lattice({1 / 3.0F, 1 / 3.0F}, nullptr);
}

CRFSEG_STAGE stage_build_bilateral(Job* job) {
  const float xy = 1 / 80.0F, rgb = 1 / 13.0F;
  job->bilateral = make_lattice({xy, xy, rgb, rgb, rgb}, job->image.data());
}

CRFSEG_STAGE stage_unary(Job* job) {
  job->field = std::make_unique<crfseg::MeanField>(n_points, job->n_labels);
  job->field->set_unary({job->probabilities.data(), job->n_labels, n_points, n_points, 1},
                        crfseg::UnaryKind::probabilities, 1e-5F, 1);
}

CRFSEG_STAGE stage_normaliser(Job* job) {
  const auto symmetric = crfseg::Normalization::symmetric;
  job->field->add_kernel(job->spatial, symmetric, 3.0F, {}, false, 1);
  job->field->add_kernel(job->bilateral, symmetric, 10.0F, {}, false, 1);
}

CRFSEG_STAGE stage_inference(Job* job) {
  job->field->infer({}, job->options, {job->q.data(), job->n_labels, n_points, n_points, 1},
                    nullptr);
}

int main(int count, char** words) {
  try {
    const int n_labels = count > 1 ? std::atoi(words[1]) : 21;
    Job job(n_labels, count > 2 ? std::atoi(words[2]) : 5);
    stage_build_spatial(&job);
    stage_build_bilateral(&job);
    stage_unary(&job);
    stage_normaliser(&job);
    stage_inference(&job);
#if defined(__clang__)
    std::printf("Clang %d", __clang_major__);
#else
    std::printf("GCC %d", __GNUC__);
#endif
    std::printf(" %s\n", crfseg::active_kernels().name);
  } catch (const std::exception& fault) {
    std::fprintf(stderr, "%s\n", fault.what());
    return 1;
  }
  return 0;
}
