// SPDX-License-Identifier: MIT
// Numbers of keys by their keys, exact. Open addressing in groups of eight slots with one tag byte
// each, so that most keys which are not there are turned away without a look at any key, and those
// which are there are found without a branch that is hard to predict.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"

namespace crfseg {

__extension__ typedef unsigned __int128 WideKey;
using NarrowKey = std::uint64_t;

constexpr std::uint32_t no_vertex = 0xFFFFFFFFU;

inline std::uint64_t hash_key(NarrowKey key) {
  const WideKey product = static_cast<WideKey>(key ^ 0x632BE59BD9B4E019ULL) * 0x9E3779B97F4A7C15ULL;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}
inline std::uint64_t hash_key(WideKey key) {
  const std::uint64_t high = hash_key(static_cast<NarrowKey>(key >> 64));
  return hash_key(static_cast<NarrowKey>(key) ^ high);
}

// Holds the numbers only: keys[number] is the key, in an array of the owner's.
template <class Key>
class KeyTable {
 public:
  explicit KeyTable(std::int64_t expected = 0) {
    std::int64_t n_groups = 8;
    while (n_groups * most_in_group < expected) n_groups *= 2;
    clear(n_groups);
  }

  // keys[number] == key, or no_vertex.
  std::uint32_t find(const Key* keys, Key key, std::uint64_t hash) const {
    for (std::uint64_t group = hash >> shift_;; group = (group + 1) & mask_) {
      const std::uint64_t tags = tags_[group];
      for (std::uint64_t like = same_tags(tags, hash); like != 0; like &= like - 1) {
        const std::uint32_t number = numbers_[slot(group, like)];
        if (keys[number] == key) return number;
      }
      if ((~tags & highest_bits) != 0) return no_vertex;
    }
  }

  // The same, but keys that are not there are appended to `keys`.
  std::uint32_t find_or_append(GrowingBuffer<Key>* keys, Key key, std::uint64_t hash) {
    const std::uint32_t found = find(keys->data(), key, hash);
    if (found != no_vertex) return found;
    const auto number = static_cast<std::uint32_t>(keys->size());
    keys->push_back(key);
    insert(keys->data(), number, hash);
    return number;
  }

  // keys[number], whose hash this is, is not there yet.
  void insert(const Key* keys, std::uint32_t number, std::uint64_t hash) {
    if (size_ == most_in_group * static_cast<std::int64_t>(tags_.size())) grow(keys);
    place(number, hash);
  }

  void prefetch(std::uint64_t hash) const { __builtin_prefetch(&tags_[hash >> shift_]); }

  // A first look at where a key would be. Its number is *number or, if `is_conclusive`, there is
  // none; number points to some number in any case. No branches: see find_keys.
  struct Glance {
    const std::uint32_t* number;
    std::uint32_t is_conclusive;
  };
  Glance glance(std::uint64_t hash) const {
    const std::uint64_t group = hash >> shift_;
    const std::uint64_t tags = tags_[group];
    const std::uint64_t like = same_tags(tags, hash);
    const std::uint64_t empty = ~tags & highest_bits;
    const std::int64_t candidate =
        slot(group, like | (every_byte << 63)) & -std::int64_t{like != 0};
    return {numbers_.data() + candidate,
            std::uint32_t{(like & (like - 1)) == 0} & std::uint32_t{empty != 0}};
  }

  // From now on keys go by f(number).
  template <class F>
  void renumber(F&& f) {
    each([&](std::uint32_t& number) { number = f(number); });
  }

 private:
  static constexpr std::int64_t most_in_group = 5;  // on average, when the table grows
  static constexpr std::uint64_t every_byte = 0x0101010101010101ULL;
  static constexpr std::uint64_t highest_bits = 0x80 * every_byte;

  // 0 marks an empty slot, so a tag has its highest bit set.
  static std::uint64_t tag_of(std::uint64_t hash) { return (hash & 0x7F) | 0x80; }

  // The highest bit of every byte that may be the tag: of the lowest that is, for sure.
  static std::uint64_t same_tags(std::uint64_t tags, std::uint64_t hash) {
    const std::uint64_t other = tags ^ (tag_of(hash) * every_byte);
    return (other - every_byte) & ~other & highest_bits;
  }

  static std::int64_t slot(std::uint64_t group, std::uint64_t high_bit) {
    return static_cast<std::int64_t>(8 * group) + __builtin_ctzll(high_bit) / 8;
  }

  void place(std::uint32_t number, std::uint64_t hash) {
    std::uint64_t group = hash >> shift_;
    while ((~tags_[group] & highest_bits) == 0) group = (group + 1) & mask_;
    const std::uint64_t empty = ~tags_[group] & highest_bits;
    tags_[group] |= tag_of(hash) << (__builtin_ctzll(empty) - 7);
    numbers_[slot(group, empty)] = number;
    ++size_;
  }

  void clear(std::int64_t n_groups) {
    tags_.assign(static_cast<std::size_t>(n_groups), 0);
    numbers_ = Buffer<std::uint32_t>(8 * n_groups);
    numbers_[0] = 0;  // what a glance finds where there is nothing
    mask_ = static_cast<std::uint64_t>(n_groups - 1);
    shift_ = 64 - __builtin_popcountll(mask_);
    size_ = 0;
  }

  void grow(const Key* keys) {
    KeyTable larger(most_in_group * 2 * static_cast<std::int64_t>(tags_.size()));
    each([&](std::uint32_t number) { larger.place(number, hash_key(keys[number])); });
    *this = std::move(larger);
  }

  template <class F>
  void each(F&& f) {
    for (std::uint64_t group = 0; group <= mask_; ++group) {
      for (std::uint64_t used = tags_[group] & highest_bits; used != 0; used &= used - 1) {
        f(numbers_[slot(group, used)]);
      }
    }
  }

  std::vector<std::uint64_t> tags_;  // eight slots each
  Buffer<std::uint32_t> numbers_;    // of the slots; only those with a tag are set
  std::uint64_t mask_ = 0;
  int shift_ = 0;
  std::int64_t size_ = 0;
};

// found[i] = number of wanted[i] or no_vertex, for up to `key_batch` keys. Every memory access is
// asked for well before it is needed, and no branch depends on what is found: in tables beyond the
// second-level cache that is twice as fast as one key after the other, in smaller ones slower.
// table_of(hash) is the table to look into.
constexpr int key_batch = 64;

template <class Key, class TableOf>
void find_keys(const Key* keys, const TableOf& table_of, const Key* wanted, int n,
               std::uint32_t* found) {
  std::uint64_t hash[key_batch];
  typename KeyTable<Key>::Glance glance[key_batch];
  for (int i = 0; i < n; ++i) {
    hash[i] = hash_key(wanted[i]);
    table_of(hash[i]).prefetch(hash[i]);
  }
  for (int i = 0; i < n; ++i) {
    glance[i] = table_of(hash[i]).glance(hash[i]);
    __builtin_prefetch(glance[i].number);
  }
  for (int i = 0; i < n; ++i) {
    found[i] = *glance[i].number;
    __builtin_prefetch(&keys[found[i]]);
  }
  for (int i = 0; i < n; ++i) {
    const std::uint32_t is_it{keys[found[i]] == wanted[i]};
    found[i] |= is_it - 1;  // all bits where it is not, no_vertex
    if ((is_it | glance[i].is_conclusive) == 0) {
      found[i] = table_of(hash[i]).find(keys, wanted[i], hash[i]);
    }
  }
}

}  // namespace crfseg
