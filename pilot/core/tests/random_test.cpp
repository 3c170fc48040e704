// Many seeds of everything at once: whatever was dispatched ends as an outcome, a hand-back, or an
// abandonment that was asked for, and the core's invariants hold after each step.
#include "harness.h"

namespace farcall::pilot::test {
namespace {

using namespace std::chrono_literals;

// The interchange and the runners, with chance.
class World {
 public:
  explicit World(std::uint64_t seed) : rng_(seed), bench_(1 + rng_.below(4)) { bench_.welcome(); }

  void step() {
    switch (rng_.below(9)) {
      case 0:
      case 1:
        return dispatch();
      case 2:
      case 3:
      case 4:
        return run_one();
      case 5:
        return cancel();
      case 6:
        return reconnect();
      case 7:
        return bench_.advance(std::chrono::milliseconds(rng_.below(400)));
      default:
        return acknowledge();
    }
  }
  void finish() {
    bench_.core->on_down(bench_.now);
    bench_.hello();
    bench_.welcome();
    for (int i = 0; i < 10000 && bench_.core->running() + bench_.core->queued() > 0; ++i) run_one();
    acknowledge();
    EXPECT_EQ(bench_.core->unacknowledged(), 0u);
    std::set<wire::AttemptRef> ended(abandoned_);
    for (const auto& item : bench_.delivered) ended.insert(item.ref);
    for (const auto& [ref, reason] : bench_.handed_back)
      if (reason == FailureClass::kCrash) ended.insert(ref);
    EXPECT_EQ(ended, placed_);
  }

 private:
  void dispatch() {
    if (!up_) return;
    const auto n = static_cast<std::uint8_t>(1 + rng_.below(3));
    const std::uint32_t index = next_++;
    placed_.insert(ref(n, index));
    bench_.dispatch(n, {{index, "J"}}, 1,
                    {rng_.below(2) ? FunctionKind::kShell : FunctionKind::kPythonSource,
                     rng_.below(2) ? 300u : 0u, static_cast<std::uint32_t>(1 + rng_.below(2))});
  }
  void run_one() {
    if (seen_ == bench_.started.size() && live_.empty()) return bench_.advance(10ms);
    for (; seen_ < bench_.started.size(); ++seen_) live_.push_back(bench_.started[seen_].work.ref);
    for (; killed_ < bench_.kills.size(); ++killed_) doomed_.insert(bench_.kills[killed_]);
    const std::size_t i = rng_.below(live_.size());
    const wire::AttemptRef r = live_[i];
    if (begun_.insert(r).second && rng_.below(3) > 0) return bench_.began(r);
    begun_.erase(r);
    live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(i));
    const bool doomed = doomed_.erase(r) > 0;
    if (doomed && rng_.below(4) > 0) return bench_.killed(r);
    if (rng_.below(5) > 0) return bench_.succeed(r);
    bench_.core->on_returned(r, bench_.now);
    bench_.settle();
  }
  void cancel() {
    if (placed_.empty() || !up_) return;
    auto it = placed_.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(rng_.below(placed_.size())));
    bench_.cancel({*it});
  }
  void reconnect() {
    if (up_) {
      up_ = false;
      return bench_.core->on_down(bench_.now);
    }
    up_ = true;
    const wire::PilotHello hello = bench_.hello();
    std::vector<wire::AttemptRef> abandon;
    for (const auto& r : hello.holds)
      if (rng_.below(10) == 0) abandon.push_back(r);
    abandoned_.insert(abandon.begin(), abandon.end());
    bench_.welcome(abandon);
  }
  void acknowledge() {
    if (up_ || bench_.core->unacknowledged() > 0) bench_.ack(bench_.batches);
  }

  Rng rng_;
  Bench bench_;
  bool up_ = true;
  std::uint32_t next_ = 0;
  std::size_t seen_ = 0, killed_ = 0;
  std::vector<wire::AttemptRef> live_;
  std::set<wire::AttemptRef> begun_, doomed_, placed_, abandoned_;
};

TEST(CoreAtRandom, NothingIsLostAndInvariantsHold) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    for (int i = 0; i < 200; ++i) world.step();
    world.finish();
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace farcall::pilot::test
