// SPDX-License-Identifier: MIT
// The distinct keys of many lists, numbered first come, first numbered. Keys are dealt to shards by
// their hash: threads fill them side by side, and each stays in cache while it is filled. Neither
// the number of shards nor that of threads shows in the numbering.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "buffer.h"
#include "cpu/key_table.h"
#include "error.h"
#include "parallel.h"

namespace crfseg {

template <class Key>
using KeyChunks = std::vector<GrowingBuffer<Key>>;

// Throws where numbers of vertices, or of rows that see them, would not fit 32 bits.
inline void check_vertex_count(std::int64_t size) {
  if (size >= static_cast<std::int64_t>(no_vertex) - 1) {
    throw Error("the lattice would need more than 4294967293 vertices; use larger sigmas");
  }
}

template <class Key>
std::vector<std::int64_t> chunk_begins(const KeyChunks<Key>& chunks) {
  std::vector<std::int64_t> begin{0};
  for (const auto& chunk : chunks) {
    begin.push_back(begin.back() + static_cast<std::int64_t>(chunk.size()));
  }
  check_vertex_count(begin.back());
  return begin;
}

template <class Key>
class ShardedKeys {
 public:
  static constexpr std::uint32_t rare = no_vertex;  // the owner of a key that is left out

  ShardedKeys(const KeyChunks<Key>& chunks, int at_least, int threads)
      : chunks_(chunks), threads_(threads), begin_(chunk_begins(chunks)), owner_(begin_.back()) {
    std::size_t n_shards = 1;
    while (n_shards < 64 && static_cast<std::int64_t>(n_shards) * 16384 < begin_.back()) {
      n_shards *= 2;
    }
    shards_.resize(n_shards);
    deal();
    parallel_for(static_cast<std::int64_t>(n_shards), threads,
                 [&](std::int64_t shard) { fill(static_cast<std::size_t>(shard), at_least); });
    dealt_ = Buffer<Dealt>();
    count();
  }

  // How many distinct keys there are, those left out aside.
  std::int64_t size() const { return first_number_.back(); }

  // keys[number] of all distinct keys; numbers, if wanted: (all occurrences) theirs.
  void number(Key* keys, std::uint32_t* numbers) {
    each_chunk([&](std::size_t chunk) {
      std::int64_t next = first_number_[chunk];
      for (std::int64_t place = begin_[chunk]; place < begin_[chunk + 1]; ++place) {
        if (owner_[place] != place) continue;
        keys[next] = chunks_[chunk][static_cast<std::size_t>(place - begin_[chunk])];
        if (numbers != nullptr) numbers[place] = static_cast<std::uint32_t>(next);
        ++next;
      }
    });
    if (numbers == nullptr) return;
    each_chunk([&](std::size_t chunk) {
      for (std::int64_t place = begin_[chunk]; place < begin_[chunk + 1]; ++place) {
        if (owner_[place] != place) numbers[place] = numbers[owner_[place]];
      }
    });
  }

  // The tables, their keys gone by `numbers` from number().
  std::vector<KeyTable<Key>> take_tables(const std::uint32_t* numbers) {
    std::vector<KeyTable<Key>> tables(shards_.size());
    parallel_for(static_cast<std::int64_t>(shards_.size()), threads_, [&](std::int64_t i) {
      Shard& shard = shards_[i];
      shard.table.renumber([&](std::uint32_t own) { return numbers[shard.first[own]]; });
      tables[i] = std::move(shard.table);
      shard = Shard();
    });
    return tables;
  }

  // From bits between those that a table takes for its groups and for its tags.
  static std::size_t shard_of(std::uint64_t hash, std::size_t n_shards) {
    return (hash >> 8) & (n_shards - 1);
  }

 private:
  struct Dealt {
    Key key;
    std::uint32_t place;
  };
  struct Shard {
    KeyTable<Key> table;
    GrowingBuffer<Key> keys;
    GrowingBuffer<std::uint32_t> first, count;  // by the shard's own numbers
  };

  template <class F>
  void each_chunk(F&& f) {
    parallel_for(static_cast<std::int64_t>(chunks_.size()), threads_,
                 [&](std::int64_t chunk) { f(static_cast<std::size_t>(chunk)); });
  }

  // Sorts each chunk by shards, in order within a shard.
  void deal() {
    const std::size_t n_shards = shards_.size();
    dealt_ = Buffer<Dealt>(begin_.back());
    dealt_end_.resize(chunks_.size() * n_shards);
    each_chunk([&](std::size_t chunk) {
      std::int64_t* next = dealt_end_.data() + chunk * n_shards;
      for (const Key key : chunks_[chunk]) ++next[shard_of(hash_key(key), n_shards)];
      std::int64_t sum = begin_[chunk];
      for (std::size_t shard = 0; shard < n_shards; ++shard) sum += std::exchange(next[shard], sum);
      auto place = static_cast<std::uint32_t>(begin_[chunk]);
      for (const Key key : chunks_[chunk]) {
        dealt_[next[shard_of(hash_key(key), n_shards)]++] = {key, place++};
      }
    });
  }

  void fill(std::size_t which, int at_least) {
    Shard& shard = shards_[which];
    for (std::size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
      const std::size_t run = chunk * shards_.size() + which;
      const std::int64_t end = dealt_end_[run];
      std::int64_t i = which == 0 ? begin_[chunk] : dealt_end_[run - 1];
      for (; i < end; ++i) add(dealt_[i], at_least, &shard);
    }
    for (std::size_t own = 0; own < shard.count.size(); ++own) {
      if (shard.count[own] < static_cast<std::uint32_t>(at_least)) owner_[shard.first[own]] = rare;
    }
  }

  void add(const Dealt& dealt, int at_least, Shard* shard) {
    const std::uint32_t own =
        shard->table.find_or_append(&shard->keys, dealt.key, hash_key(dealt.key));
    if (own == shard->first.size()) {
      shard->first.push_back(dealt.place);
      if (at_least > 1) shard->count.push_back(0);
    }
    owner_[dealt.place] = shard->first[own];
    if (at_least > 1) ++shard->count[own];
  }

  void count() {
    first_number_.assign(chunks_.size() + 1, 0);
    each_chunk([&](std::size_t chunk) {
      std::int64_t owners = 0;
      for (std::int64_t place = begin_[chunk]; place < begin_[chunk + 1]; ++place) {
        owners += owner_[place] == place ? 1 : 0;
      }
      first_number_[chunk + 1] = owners;
    });
    for (std::size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
      first_number_[chunk + 1] += first_number_[chunk];
    }
  }

  const KeyChunks<Key>& chunks_;
  int threads_;
  std::vector<std::int64_t> begin_;         // of each chunk among all occurrences
  std::vector<std::int64_t> dealt_end_;     // (chunks, shards)
  std::vector<std::int64_t> first_number_;  // (chunks + 1)
  Buffer<Dealt> dealt_;
  Buffer<std::uint32_t> owner_;  // of each occurrence the first one of its key
  std::vector<Shard> shards_;
};

// The distinct keys that occur at least so often, in order of their first occurrence.
template <class Key>
Buffer<Key> frequent_keys(const KeyChunks<Key>& chunks, int at_least, int threads) {
  ShardedKeys<Key> sharded(chunks, at_least, threads);
  Buffer<Key> keys(sharded.size());
  sharded.number(keys.data(), nullptr);
  return keys;
}

// `old` and behind it `added`.
template <class Key>
Buffer<Key> appended(const Buffer<Key>& old, const Buffer<Key>& added) {
  check_vertex_count(old.size() + added.size());
  Buffer<Key> both(old.size() + added.size());
  std::copy(added.begin(), added.end(), std::copy(old.begin(), old.end(), both.begin()));
  return both;
}

// The vertices of a lattice: their keys by number and their numbers by key.
template <class Key>
class VertexIndex {
 public:
  // numbers: (all keys of all chunks) gets their numbers.
  VertexIndex(const KeyChunks<Key>& chunks, int threads, std::uint32_t* numbers)
      : threads_(threads) {
    ShardedKeys<Key> sharded(chunks, 1, threads);
    keys_ = Buffer<Key>(sharded.size());
    sharded.number(keys_.data(), numbers);
    tables_ = sharded.take_tables(numbers);
  }

  // Adds keys that are distinct and not there yet.
  void append(const Buffer<Key>& added) {
    const std::int64_t first = keys_.size();
    keys_ = appended(keys_, added);
    std::vector<GrowingBuffer<std::uint32_t>> dealt(tables_.size());
    for (std::int64_t v = first; v < keys_.size(); ++v) {
      dealt[shard_of(hash_key(keys_[v]))].push_back(static_cast<std::uint32_t>(v));
    }
    parallel_for(static_cast<std::int64_t>(tables_.size()), threads_, [&](std::int64_t table) {
      for (const std::uint32_t v : dealt[table]) {
        tables_[table].insert(keys_.data(), v, hash_key(keys_[v]));
      }
    });
  }

  // The numbers of up to `key_batch` keys; no_vertex for those that are not there.
  void find(const Key* keys, int n, std::uint32_t* found) const {
    find_keys(
        keys_.data(),
        [&](std::uint64_t hash) -> const KeyTable<Key>& { return tables_[shard_of(hash)]; }, keys,
        n, found);
  }

  const Buffer<Key>& keys() const { return keys_; }
  std::int64_t size() const { return keys_.size(); }

 private:
  std::size_t shard_of(std::uint64_t hash) const {
    return ShardedKeys<Key>::shard_of(hash, tables_.size());
  }

  int threads_;
  std::vector<KeyTable<Key>> tables_;
  Buffer<Key> keys_;
};

}  // namespace crfseg
