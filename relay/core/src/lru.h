// A bounded cache that drops what was not used for longest.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <utility>

namespace farcall::relay {

template <class Key, class Value>
class Lru {
 public:
  explicit Lru(std::uint64_t bytes_max) : bytes_max_(bytes_max) {}

  void put(const Key& key, Value value, std::uint64_t bytes) {
    drop(key);
    order_.push_front({key, std::move(value), bytes});
    index_[key] = order_.begin();
    bytes_ += bytes;
    while (bytes_ > bytes_max_ && order_.size() > 1) drop(Key(order_.back().key));
  }
  // nullptr when it is not there; valid until the next put() or drop().
  const Value* get(const Key& key) {
    auto found = index_.find(key);
    if (found == index_.end()) return nullptr;
    order_.splice(order_.begin(), order_, found->second);
    return &found->second->value;
  }
  void drop(const Key& key) {
    auto found = index_.find(key);
    if (found == index_.end()) return;
    bytes_ -= found->second->bytes;
    order_.erase(found->second);
    index_.erase(found);
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  struct Item {
    Key key;
    Value value;
    std::uint64_t bytes;
  };
  std::uint64_t bytes_max_;
  std::uint64_t bytes_ = 0;
  std::list<Item> order_;
  std::map<Key, typename std::list<Item>::iterator> index_;
};

}  // namespace farcall::relay
