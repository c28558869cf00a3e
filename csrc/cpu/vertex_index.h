// SPDX-License-Identifier: MIT
// Lattice vertices by their packed keys: exact, with tables that several threads fill at once while
// the numbering stays that of one thread (first come, first numbered).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "error.h"
#include "parallel.h"

namespace crfseg {

__extension__ typedef unsigned __int128 WideKey;
using NarrowKey = std::uint64_t;

inline std::uint64_t hash_key(NarrowKey key) {
  key ^= key >> 32;
  key *= 0x9E3779B97F4A7C15ULL;
  return key ^ (key >> 29);
}
inline std::uint64_t hash_key(WideKey key) {
  const NarrowKey high = hash_key(static_cast<NarrowKey>((key >> 64) + 0x632BE59BD9B4E019ULL));
  return hash_key(static_cast<NarrowKey>(key) ^ high);
}

// Open addressing; grows to stay at most half full.
template <class Key>
class KeyTable {
 public:
  static constexpr std::uint32_t none = 0xFFFFFFFFU;
  static constexpr std::uint32_t dropped = none - 1;  // a key that is known but has no value

  explicit KeyTable(std::int64_t expected = 0) {
    std::size_t capacity = 256;
    while (capacity < 2 * static_cast<std::size_t>(expected)) capacity *= 2;
    entries_.assign(capacity, Entry{});
  }

  // The value under `key`; `value` itself, now stored, where there was none.
  std::uint32_t find_or_insert(Key key, std::uint64_t hash, std::uint32_t value) {
    if (2 * size_ >= entries_.size()) grow();
    Entry& entry = entries_[slot(key, hash)];
    if (entry.value == none) {
      entry = {key, value};
      ++size_;
    }
    return entry.value;
  }

  std::uint32_t find(Key key, std::uint64_t hash) const {
    const std::uint32_t value = entries_[slot(key, hash)].value;
    return value == dropped ? none : value;
  }

  void prefetch(std::uint64_t hash) const {
    __builtin_prefetch(&entries_[hash & (entries_.size() - 1)]);
  }

  template <class F>
  void replace_values(F&& f) {
    for (Entry& entry : entries_) {
      if (entry.value != none) entry.value = f(entry.value);
    }
  }

 private:
  struct Entry {
    Key key{};
    std::uint32_t value = none;
  };

  std::size_t slot(Key key, std::uint64_t hash) const {
    const std::size_t mask = entries_.size() - 1;
    std::size_t i = static_cast<std::size_t>(hash) & mask;
    while (entries_[i].value != none && entries_[i].key != key) i = (i + 1) & mask;
    return i;
  }

  void grow() {
    std::vector<Entry> old(2 * entries_.size());
    old.swap(entries_);
    for (const Entry& entry : old) {
      if (entry.value != none) entries_[slot(entry.key, hash_key(entry.key))] = entry;
    }
  }

  std::vector<Entry> entries_;
  std::size_t size_ = 0;
};

template <class Key>
using KeyChunks = std::vector<std::vector<Key>>;

template <class Key>
class VertexIndex {
 public:
  explicit VertexIndex(int threads) : threads_(threads) {
    while (shards_.size() < 64 && static_cast<int>(shards_.size()) < threads) {
      shards_.resize(shards_.empty() ? 1 : 2 * shards_.size());
    }
  }

  // Numbers the distinct keys of all chunks in order of their first occurrence, leaving out those
  // that occur fewer than `at_least` times. ids, if wanted, gets the number of every occurrence.
  void number(const KeyChunks<Key>& chunks, int at_least, std::vector<std::uint32_t>* ids) {
    const std::vector<std::int64_t> begin = chunk_begins(chunks);
    std::vector<std::uint32_t> owner(static_cast<std::size_t>(begin.back()));
    std::vector<std::uint32_t> count(at_least > 1 ? owner.size() : 0);
    each_shard([&](std::size_t shard) {
      shards_[shard] = KeyTable<Key>(begin.back() / static_cast<std::int64_t>(2 * shards_.size()));
      for (std::size_t c = 0; c < chunks.size(); ++c) {
        for (std::size_t i = 0; i < chunks[c].size(); ++i) {
          const std::uint64_t hash = hash_key(chunks[c][i]);
          if (shard_of(hash) != shard) continue;
          const auto place = static_cast<std::uint32_t>(begin[c] + static_cast<std::int64_t>(i));
          owner[place] = shards_[shard].find_or_insert(chunks[c][i], hash, place);
          if (at_least > 1) ++count[owner[place]];
        }
      }
    });
    // From here on owner[i] is the number of the key at i; an owner comes before those it owns.
    std::size_t place = 0;
    for (const std::vector<Key>& chunk : chunks) {
      for (const Key& key : chunk) {
        if (owner[place] != place) {
          owner[place] = owner[owner[place]];
        } else if (at_least > 1 && count[place] < static_cast<std::uint32_t>(at_least)) {
          owner[place] = KeyTable<Key>::dropped;
        } else {
          owner[place] = static_cast<std::uint32_t>(keys_.size());
          keys_.push_back(key);
        }
        ++place;
      }
    }
    each_shard([&](std::size_t shard) {
      shards_[shard].replace_values([&](std::uint32_t first) { return owner[first]; });
    });
    if (ids != nullptr) *ids = std::move(owner);
  }

  // Adds keys that are distinct and not there yet.
  void append(const std::vector<Key>& added) {
    const std::size_t first = keys_.size();
    check_size(static_cast<std::int64_t>(first + added.size()));
    keys_.insert(keys_.end(), added.begin(), added.end());
    each_shard([&](std::size_t shard) {
      for (std::size_t i = 0; i < added.size(); ++i) {
        const std::uint64_t hash = hash_key(added[i]);
        if (shard_of(hash) != shard) continue;
        shards_[shard].find_or_insert(added[i], hash, static_cast<std::uint32_t>(first + i));
      }
    });
  }

  std::uint32_t find(Key key) const {
    const std::uint64_t hash = hash_key(key);
    return shards_[shard_of(hash)].find(key, hash);
  }

  const std::vector<Key>& keys() const { return keys_; }
  std::int64_t size() const { return static_cast<std::int64_t>(keys_.size()); }

 private:
  static std::vector<std::int64_t> chunk_begins(const KeyChunks<Key>& chunks) {
    std::vector<std::int64_t> begin{0};
    for (const auto& chunk : chunks) {
      begin.push_back(begin.back() + static_cast<std::int64_t>(chunk.size()));
    }
    check_size(begin.back());
    return begin;
  }

  static void check_size(std::int64_t size) {
    if (size >= static_cast<std::int64_t>(KeyTable<Key>::dropped)) {
      throw Error("the lattice would need more than 4294967293 vertices; use larger sigmas");
    }
  }

  // Bits that the tables do not use for their slots.
  std::size_t shard_of(std::uint64_t hash) const { return (hash >> 56) & (shards_.size() - 1); }

  template <class F>
  void each_shard(F&& f) {
    parallel_for(static_cast<std::int64_t>(shards_.size()), threads_,
                 [&](std::int64_t shard) { f(static_cast<std::size_t>(shard)); });
  }

  int threads_;
  std::vector<KeyTable<Key>> shards_ = std::vector<KeyTable<Key>>(1);
  std::vector<Key> keys_;
};

}  // namespace crfseg
