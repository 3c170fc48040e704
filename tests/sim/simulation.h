// A whole endpoint in virtual time: the interchange's core between models of its pilots, its relay,
// its scheduler and its disk. One seed decides everything; a run is repeatable.
#pragma once

#include "models.h"

namespace farcall::sim {

class Simulation {
 public:
  explicit Simulation(const Options& options);
  Tally run();

  // --- for the models ---
  Now now() const { return {{time_}, {Duration(std::chrono::hours(24 * 365 * 50)) + time_}}; }
  Duration time() const { return time_; }
  void after(Duration delay, std::function<void()> what);
  bool chance(double p) { return static_cast<double>(rng.below(1'000'000)) < p * 1e6; }
  Duration between(int low_ms, int high_ms) {
    return milliseconds(low_ms + static_cast<int>(rng.below(
                                     static_cast<std::uint64_t>(std::max(1, high_ms - low_ms)))));
  }
  bool faults() const { return time_ < options.faults_until; }
  void wrong(const std::string& what);
  // Delivers after a delay and after what was sent before in this direction; or resets the link.
  void transmit(Link& link, int direction, std::function<void()> deliver);
  void reset(Link& link);
  // Hands an event to the core, if it is alive, and does what it asks for.
  template <class F>
  void tell(F&& event) {
    if (!core) return;
    event(*core);
    pump();
  }
  // As tell(), but only for the life of the core that asked.
  std::uint64_t life() const { return life_; }
  void dial_relay(Duration delay);
  PeerId connect(PilotModel& pilot) {
    peers_[++last_peer_] = &pilot;
    return last_peer_;
  }
  void disconnect(PeerId peer) { peers_.erase(peer); }
  void trace(std::uint64_t value) {
    tally.trace = (tally.trace ^ value) * 0x9e3779b97f4a7c15ULL + (tally.trace >> 29);
  }
  // How this attempt ends: the same in every run of the seed.
  std::uint64_t fate(const wire::AttemptRef& ref) const;

  const Options options;
  Rng rng;
  Tally tally;
  std::unique_ptr<Core> core;
  RelayModel relay;
  SchedulerModel scheduler;
  std::vector<std::unique_ptr<PilotModel>> pilots;
  Link relay_link;
  std::map<BlockId, std::map<std::string, LeftResults>> left;  // outlives everybody

 private:
  struct Event {
    Duration at;
    std::uint64_t number;
    std::function<void()> what;
    bool operator<(const Event& other) const {
      return at != other.at ? at > other.at : number > other.number;
    }
  };
  void pump();
  void carry_out(interchange::Effect& effect);
  void write(std::function<void()> apply, std::function<void(Core&)> answer);
  void check();
  void boot();
  void crash();
  void tick();
  void plan(Duration mean, std::function<void()> fault);

  std::priority_queue<Event> events_;
  std::uint64_t numbers_ = 0, life_ = 0, recovered_tasks_ = 0;
  Duration time_ = seconds(1);
  Duration last_write_{0};
  Disk disk_;
  InstanceId instance_;
  PeerId last_peer_ = 0;
  std::unordered_map<PeerId, PilotModel*> peers_;
  std::uint64_t dials_ = 0;
  bool stopping_ = false, exited_ = false;
};

}  // namespace farcall::sim
