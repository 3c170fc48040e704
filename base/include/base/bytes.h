// Immutable bytes that know who keeps them alive: a slice of a received frame goes to the next hop
// without being copied. Cheap to copy (one reference count). Thread-safe as shared_ptr is.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace farcall {

class Bytes {
 public:
  Bytes() = default;
  // Takes the string over.
  explicit Bytes(std::string text) : Bytes(std::make_shared<const std::string>(std::move(text))) {}
  static Bytes copy_of(std::string_view view) { return Bytes(std::string(view)); }
  // `owner` keeps data[0, size) alive and unchanged.
  Bytes(std::shared_ptr<const void> owner, const char* data, std::size_t size)
      : owner_(std::move(owner)), data_(data), size_(size) {}

  const char* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::string_view view() const { return {data_, size_}; }
  std::string string() const { return std::string(data_, size_); }
  // REQUIRES: offset + length <= size().
  Bytes slice(std::size_t offset, std::size_t length) const {
    return Bytes(owner_, data_ + offset, length);
  }
  const std::shared_ptr<const void>& owner() const { return owner_; }
  bool operator==(const Bytes& other) const { return view() == other.view(); }

 private:
  explicit Bytes(std::shared_ptr<const std::string> text)
      : owner_(text), data_(text->data()), size_(text->size()) {}

  std::shared_ptr<const void> owner_;
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace farcall
