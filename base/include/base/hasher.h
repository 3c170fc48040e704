// content_hash() of bytes that come piece by piece. Not thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace farcall {

class ContentHasher {
 public:
  ContentHasher();
  ~ContentHasher();
  ContentHasher(ContentHasher&&) noexcept;
  ContentHasher& operator=(ContentHasher&&) noexcept;

  void add(std::string_view bytes);
  // The hash of all that was added. REQUIRES: called once, and nothing is added after it.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace farcall
