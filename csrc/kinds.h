// SPDX-License-Identifier: MIT
// Choices that mean the same on every device.
#pragma once

namespace crfseg {

// K~ for n = K 1: none K, before K n^-1, after n^-1 K (K&K 2011), symmetric n^-1/2 K n^-1/2 (2013).
enum class Normalization : int { none = 0, before = 1, after = 2, symmetric = 3 };

// Of an image.
enum class ChannelType : int { uint8, uint16, float32 };

// foreground: the probability of label 1 of two, and nothing of label 0.
enum class UnaryKind : int { energies, probabilities, logits, foreground };

}  // namespace crfseg
