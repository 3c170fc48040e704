// Time and chance, as values: the pure cores receive them and never ask the machine.
#pragma once

#include <chrono>
#include <cstdint>
#include <random>

namespace farcall {

using Duration = std::chrono::nanoseconds;

// Since some fixed point of this process (CLOCK_MONOTONIC). Leases and time-outs use it.
struct MonoTime {
  Duration since_start{0};
  auto operator<=>(const MonoTime&) const = default;
  MonoTime operator+(Duration d) const { return {since_start + d}; }
  Duration operator-(MonoTime other) const { return since_start - other.since_start; }
  static constexpr MonoTime max() { return {Duration::max()}; }
};

// Since 1970-01-01 UTC. Shown to people and stored; never used to decide that somebody is dead.
struct WallTime {
  Duration since_epoch{0};
  auto operator<=>(const WallTime&) const = default;
  WallTime operator+(Duration d) const { return {since_epoch + d}; }
  Duration operator-(WallTime other) const { return since_epoch - other.since_epoch; }
  std::int64_t milliseconds_since_epoch() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
  }
  static WallTime from_milliseconds(std::int64_t ms) { return {std::chrono::milliseconds(ms)}; }
};

// Both, taken together once per turn of a loop and handed to the core with each event.
struct Now {
  MonoTime mono;
  WallTime wall;
};

inline Now read_clock() {
  return {{std::chrono::steady_clock::now().time_since_epoch()},
          {std::chrono::system_clock::now().time_since_epoch()}};
}

// 64 random bits a call. Not for keys: those come from base/keys.h.
class Rng {
 public:
  explicit Rng(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t next() { return engine_(); }
  // Uniform in [0, bound). REQUIRES: bound > 0.
  std::uint64_t below(std::uint64_t bound) { return engine_() % bound; }
  // Seeded from the operating system's entropy.
  static Rng from_entropy() {
    std::random_device device;
    return Rng((static_cast<std::uint64_t>(device()) << 32) | device());
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace farcall
